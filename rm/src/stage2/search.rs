//! Finding room in a guest's address space.
//!
//! The search is first fit, so its result does not depend on what was tried before. It looks at a
//! bounded number of entries in each step, and remembers across calls below which page nothing is
//! free, so filling an address space from below does not look at its beginning again and again.

use super::walk::{absent, affordable, pay, present};
use super::{Memory, Stage2};
use crate::address::Ipa;
use crate::machine::Machine;
use crate::operation::budget::{Budget, weight};

/// How far a search has come. What it has seen free may be taken before it ends; who then holds the
/// range is told so, and searches again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FreeCursor {
    /// The first page of the candidate.
    start: u64,
    /// Pages of the candidate that were seen free.
    seen: u64,
}

impl FreeCursor {
    /// A search that finds nothing below `lowest`.
    pub(crate) const fn from(lowest: Ipa) -> Self {
        Self { start: lowest.0.div_ceil(crate::address::PAGE_SIZE), seen: 0 }
    }
}

/// What a step of a search came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Search {
    /// The range from here on is Absent.
    Found(Ipa),
    /// The budget is spent; go on with the same cursor.
    More,
    /// There is no such range.
    Nowhere,
}

impl Stage2 {
    /// Says, once and at boot, that nobody will look for room below `lowest`, so that the search does
    /// not stop at the holes there.
    pub(crate) const fn search_from(&mut self, lowest: Ipa) {
        self.full_below = lowest.page();
    }

    /// Looks for the lowest range of `pages` Absent pages that begins at a multiple of `align_pages`,
    /// a power of two.
    pub(crate) fn find_free<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        cursor: &mut FreeCursor,
        pages: u64,
        align_pages: u64,
        budget: &mut Budget,
    ) -> Search {
        debug_assert!(align_pages.is_power_of_two());
        loop {
            if cursor.seen == 0 {
                let from = cursor.start.max(self.full_below);
                cursor.start = from.next_multiple_of(align_pages);
            }
            let end = cursor.start.checked_add(pages);
            if end.is_none_or(|end| end > self.ipa_pages) || pages == 0 {
                return Search::Nowhere;
            }
            if cursor.seen >= pages {
                return Search::Found(Ipa::of_page(cursor.start));
            }
            if budget.is_spent() {
                return Search::More;
            }
            self.look(mem, cursor, budget);
        }
    }

    /// Goes through the entries of one table that are alike in being Absent or not.
    fn look<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        cursor: &mut FreeCursor,
        budget: &mut Budget,
    ) {
        let page = cursor.start + cursor.seen;
        let slot = self.find(mem, page);
        let first = page - slot.offset(page);
        let limit = affordable(budget, weight::LOOK);
        if slot.entry == 0 {
            let count = absent(&slot, limit);
            pay(budget, weight::LOOK, count);
            cursor.seen = first + count * slot.pages() - cursor.start;
        } else {
            let count = present(&slot, limit);
            pay(budget, weight::LOOK, count);
            let end = first + count * slot.pages();
            if (page..end).contains(&self.full_below) {
                self.full_below = end;
            }
            *cursor = FreeCursor { start: end, seen: 0 };
        }
    }
}
