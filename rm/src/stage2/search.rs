//! Finding room in a guest's address space.
//!
//! The search is first fit, so its result does not depend on what was tried before. It looks at a
//! bounded number of entries in each step, and a [`Hint`] remembers across calls up to where nothing
//! is free, so filling an address space from below does not look at its beginning again and again.

use core::ops::Range;

use super::walk::{absent, affordable, pay, present};
use super::{Memory, Stage2};
use crate::address::{Ipa, PAGE_SIZE};
use crate::machine::Machine;
use crate::operation::budget::{Budget, weight};

/// How far a search has come. What it has seen free may be taken before it ends; who then holds the
/// range is told so, and searches again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FreeCursor {
    /// No candidate begins below this page.
    lowest: u64,
    /// The first page of the candidate.
    start: u64,
    /// Pages of the candidate that were seen free.
    seen: u64,
}

impl FreeCursor {
    /// A search that finds nothing below `lowest`.
    pub(crate) const fn from(lowest: Ipa) -> Self {
        let lowest = lowest.0.div_ceil(PAGE_SIZE);
        Self { lowest, start: lowest, seen: 0 }
    }
}

/// No page from `lowest` up to `full_below` is Absent.
#[derive(Clone, Copy, Default)]
pub(super) struct Hint {
    lowest: u64,
    full_below: u64,
}

impl Hint {
    /// The first page from `lowest` on that may be free.
    fn first(&mut self, lowest: u64) -> u64 {
        // A VM's searches all begin at the same page, so one hint is enough.
        if self.lowest != lowest {
            *self = Self { lowest, full_below: lowest };
        }
        self.full_below
    }

    /// None of these pages is free.
    pub(super) fn full(&mut self, pages: Range<u64>) {
        if pages.contains(&self.full_below) {
            self.full_below = pages.end;
        }
    }

    /// These pages became free.
    pub(super) fn freed(&mut self, pages: Range<u64>) {
        if pages.end > self.lowest {
            self.full_below = self.full_below.min(pages.start.max(self.lowest));
        }
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
                let from = cursor.start.max(self.hint.first(cursor.lowest));
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
            self.look(mem, cursor, pages, budget);
        }
    }

    /// Goes through the entries of one table that are alike in being Absent or not; through no more
    /// Absent ones than a range of `pages` needs.
    fn look<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        cursor: &mut FreeCursor,
        pages: u64,
        budget: &mut Budget,
    ) {
        let page = cursor.start + cursor.seen;
        let slot = self.find(mem, page);
        let first = page - slot.offset(page);
        let limit = affordable(budget, weight::LOOK);
        if slot.entry == 0 {
            let needed = (cursor.start + pages - first).div_ceil(slot.pages());
            let count = absent(&slot, limit.min(needed));
            pay(budget, weight::LOOK, count);
            cursor.seen = first + count * slot.pages() - cursor.start;
        } else {
            let count = present(&slot, limit);
            pay(budget, weight::LOOK, count);
            let end = first + count * slot.pages();
            self.hint.full(page..end);
            *cursor = FreeCursor { start: end, seen: 0, ..*cursor };
        }
    }
}
