//! Finding leaves.
//!
//! A walk goes down once per table; whoever visits many pages then goes through the table's entries,
//! because most of the cost of a page is in the walk and not in the entry.

use core::sync::atomic::{AtomicU64, Ordering};

use super::descriptor::{self, Level, PAGE_LEVEL, ROOT_LEVEL, State, index_of, is_table, pages_of};
use super::{Leaf, Memory, Stage2};
use crate::address::{Ipa, PAGE_SIZE, Pa};
use crate::machine::{Frame, FrameIndex, Machine};
use crate::operation::budget::{Budget, weight};

/// Where a walk ended: an entry that leads to no further table.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) table: FrameIndex,
    pub(super) frame: &'a Frame,
    pub(super) level: Level,
    pub(super) index: usize,
    pub(super) entry: u64,
}

impl<'a> Slot<'a> {
    /// The first entry of a table, for whoever goes through all of them.
    pub(super) fn first<M: Machine>(mem: Memory<'a, '_, M>, table: FrameIndex) -> Self {
        Self { table, frame: mem.frame(table), level: PAGE_LEVEL, index: 0, entry: 0 }
    }

    /// Pages that the entry spans.
    #[inline]
    pub(super) const fn pages(&self) -> u64 {
        pages_of(self.level)
    }

    /// Pages from the entry's first page to `page`, which it translates.
    #[inline]
    pub(super) const fn offset(&self, page: u64) -> u64 {
        page & (self.pages() - 1)
    }
}

/// The next leaf that is not Absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It is here; if the search began inside it, from there on.
    Leaf(Ipa, Leaf),
    /// The budget is spent; go on here.
    More(Ipa),
    /// There is none.
    End,
}

impl Stage2 {
    /// Walks to the entry that translates `page`, which lies in the address space.
    #[inline]
    pub(super) fn find<'a, M: Machine>(&self, mem: Memory<'a, '_, M>, page: u64) -> Slot<'a> {
        self.find_above(mem, page, PAGE_LEVEL)
    }

    /// As [`Stage2::find`], going no further down than `lowest`: the entry may lead to a table.
    #[inline]
    pub(super) fn find_above<'a, M: Machine>(
        &self,
        mem: Memory<'a, '_, M>,
        page: u64,
        lowest: Level,
    ) -> Slot<'a> {
        let mut table = self.root;
        let mut level = ROOT_LEVEL;
        loop {
            let frame = mem.frame(table);
            let index = index_of(page, level);
            let entry = frame.read(index);
            if level == lowest || !is_table(entry, level) {
                return Slot { table, frame, level, index, entry };
            }
            table = mem.frame_at(descriptor::address(entry));
            level += 1;
        }
    }

    /// The first leaf at or after `from` that is not Absent.
    pub(crate) fn next_leaf<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        from: Ipa,
        budget: &mut Budget,
    ) -> Next {
        let mut page = from.page();
        while page < self.ipa_pages {
            let slot = self.find(mem, page);
            if slot.entry != 0 {
                let offset = slot.offset(page);
                let leaf = leaf_of(slot.entry, offset, slot.pages() - offset);
                return Next::Leaf(Ipa::of_page(page), leaf);
            }
            let count = absent(&slot, affordable(budget, weight::LOOK));
            if count == 0 {
                return Next::More(Ipa::of_page(page));
            }
            pay(budget, weight::LOOK, count);
            page = page - slot.offset(page) + count * slot.pages();
        }
        Next::End
    }

    /// The longest prefix of a range whose pages are contiguous in the machine and alike in state,
    /// parcel, rights and memory type: their state, the first one's address and how many they are. At
    /// least one leaf is looked at, and no more than the budget allows; of Absent pages no more than
    /// one entry is reported.
    pub(crate) fn run<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pages: u64,
        budget: &mut Budget,
    ) -> (State, Pa, u64) {
        let first = self.leaf(mem, at);
        let _ = budget.spend(weight::LOOK);
        let mut length = first.pages;
        if first.state == State::Absent {
            return (State::Absent, Pa(0), length.min(pages));
        }
        while length < pages && self.contains(at, length + 1) {
            let page = at.page() + length;
            let slot = self.find(mem, page);
            let next = leaf_of(slot.entry, 0, first.pages);
            if next != (Leaf { pa: first.pa.add_pages(length), ..first }) {
                break;
            }
            let wanted = (pages - length).div_ceil(slot.pages());
            let count = alike(&slot, affordable(budget, weight::LOOK).min(wanted));
            if count == 0 {
                break;
            }
            pay(budget, weight::LOOK, count);
            length += count * slot.pages();
        }
        (first.state, first.pa, length.min(pages))
    }
}

/// How many units of `weight` the budget allows now, no more than a table has entries.
#[inline]
pub(super) fn affordable(budget: &Budget, weight: u32) -> u64 {
    // A unit may begin while anything is left, so the last one may overdraw.
    budget.left().div_ceil(weight).min(512).into()
}

/// Pays for `count` units that [`affordable`] allowed.
#[inline]
pub(super) fn pay(budget: &mut Budget, weight: u32, count: u64) {
    let _ = budget.spend(count as u32 * weight);
}

/// What `entry` says of the page `offset` pages into it, `pages` before its end.
#[inline]
pub(super) fn leaf_of(entry: u64, offset: u64, pages: u64) -> Leaf {
    let state = State::of(entry);
    let pa = descriptor::address(entry);
    Leaf {
        state,
        pa: if entry == 0 { pa } else { pa.add_pages(offset) },
        pages,
        rights: descriptor::rights(entry),
        memory: descriptor::memory(entry),
        parcel: if state == State::Lent { descriptor::parcel(entry) } else { 0 },
    }
}

/// How many entries from the slot's on are Absent, at most `limit`.
#[inline]
pub(super) fn absent(slot: &Slot<'_>, limit: u64) -> u64 {
    let rest = &slot.frame.0[slot.index..];
    count(rest, limit, |entry| entry == 0)
}

/// How many entries from the slot's on are leaves that are not Absent, at most `limit`.
#[inline]
pub(super) fn present(slot: &Slot<'_>, limit: u64) -> u64 {
    let rest = &slot.frame.0[slot.index..];
    count(rest, limit, |entry| entry != 0 && !is_table(entry, slot.level))
}

/// How many entries from the slot's on continue it, at most `limit`.
#[inline]
fn alike(slot: &Slot<'_>, limit: u64) -> u64 {
    let step = slot.pages() * PAGE_SIZE;
    let mut expected = slot.entry;
    count(&slot.frame.0[slot.index..], limit, |entry| {
        let same = entry == expected;
        expected = expected.wrapping_add(step);
        same
    })
}

#[inline]
fn count(entries: &[AtomicU64], limit: u64, mut matches: impl FnMut(u64) -> bool) -> u64 {
    let limit = (limit as usize).min(entries.len());
    let entries = &entries[..limit];
    entries.iter().position(|entry| !matches(entry.load(Ordering::Relaxed))).unwrap_or(limit) as u64
}
