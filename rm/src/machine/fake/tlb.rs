//! What CPUs may have cached although no table says it any more.
//!
//! A live translation needs no model: the table has it. This is the rest, kept as runs of guest pages
//! for each tag, from the write that took a translation away to the invalidation that covers it. It
//! stands for stage-2 entries and for entries that combine both stages, on all CPUs, because an
//! invalidation has to reach all of them.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::decode::Translation;
use crate::machine::FrameIndex;

/// Translations of runs of guest pages, by tag and first page. No two runs overlap.
#[derive(Default)]
pub(super) struct Runs(BTreeMap<(u16, u64), (u64, Translation)>);

impl Runs {
    /// Remembers a translation. Pages that are remembered already keep what they have: the oldest
    /// translation is the one that differs most.
    pub(super) fn add(&mut self, tag: u16, first: u64, pages: u64, to: Translation) {
        let mut from = first;
        for (at, length, _) in self.overlapping(tag, first, pages) {
            if at > from {
                self.insert((tag, from), at - from, first, to);
            }
            from = from.max(at + length);
        }
        if from < first + pages {
            self.insert((tag, from), first + pages - from, first, to);
        }
    }

    /// `to` is the translation of page `first`.
    fn insert(&mut self, at: (u16, u64), pages: u64, first: u64, to: Translation) {
        let pa = to.pa.add_pages(at.1 - first);
        self.0.insert(at, (pages, Translation { pa, ..to }));
    }

    /// Runs that have pages in common with the given one.
    pub(super) fn overlapping(
        &self,
        tag: u16,
        first: u64,
        pages: u64,
    ) -> Vec<(u64, u64, Translation)> {
        let before = self.0.range(..(tag, first)).next_back();
        before
            .into_iter()
            .chain(self.0.range((tag, first)..(tag, first + pages)))
            .filter(|((of, at), (length, _))| *of == tag && at + length > first)
            .map(|((_, at), (length, to))| (*at, *length, *to))
            .collect()
    }

    /// The translation of one page.
    pub(super) fn lookup(&self, tag: u16, page: u64) -> Option<Translation> {
        let (at, _, to) = *self.overlapping(tag, page, 1).first()?;
        Some(Translation { pa: to.pa.add_pages(page - at), ..to })
    }

    /// Forgets what is known of a run of pages, and of nothing else.
    pub(super) fn remove(&mut self, tag: u16, first: u64, pages: u64) {
        let end = first + pages;
        for (at, length, to) in self.overlapping(tag, first, pages) {
            self.0.remove(&(tag, at));
            if at < first {
                self.insert((tag, at), first - at, at, to);
            }
            if at + length > end {
                self.insert((tag, end), at + length - end, at, to);
            }
        }
    }

    fn remove_tag(&mut self, tag: u16) {
        self.0.retain(|(of, _), _| *of != tag);
    }

    /// Tag, first page, length and translation of all runs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64, u64, Translation)> {
        self.0.iter().map(|((tag, at), (pages, to))| (*tag, *at, *pages, *to))
    }
}

/// A table descriptor that CPUs may have cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub(super) tag: u16,
    pub(super) first: u64,
    pub(super) pages: u64,
    /// The table that it leads to, and that table's level.
    pub(super) table: FrameIndex,
    pub(super) level: u32,
}

impl Walk {
    /// Whether it translates any of these pages.
    pub(super) const fn overlaps(&self, tag: u16, first: u64, pages: u64) -> bool {
        self.tag == tag && self.first < first + pages && first < self.first + self.pages
    }
}

/// Everything that may be cached and is no longer in the tables.
#[derive(Default)]
pub(super) struct Tlb {
    /// Grants that were taken away.
    pub(super) stale: Runs,
    /// Translations that grant less than the table does now: they fault, and then are looked at
    /// again.
    pub(super) weak: Runs,
    pub(super) walks: Vec<Walk>,
}

impl Tlb {
    /// Forgets a run of pages. A cached walk is forgotten when any page behind it is.
    pub(super) fn invalidate(&mut self, tag: u16, first: u64, pages: u64) {
        self.stale.remove(tag, first, pages);
        self.weak.remove(tag, first, pages);
        self.walks.retain(|walk| !walk.overlaps(tag, first, pages));
    }

    /// Forgets all of a VM.
    pub(super) fn invalidate_all(&mut self, tag: u16) {
        self.stale.remove_tag(tag);
        self.weak.remove_tag(tag);
        self.walks.retain(|walk| walk.tag != tag);
    }
}
