//! That all VMs see a page with one memory type.
//!
//! Two mappings of a page that differ in type lose coherency (DDI 0487, "Mismatched memory
//! attributes"), and one VM could read through one what another believes to have overwritten through
//! the other. Pages that are not write-back are few, so those are indexed; when one becomes so, all
//! trees are searched.

use std::collections::BTreeMap;

use super::decode::{Translation, size};
use super::tlb::Runs;

/// Leaves that are not write-back: pages and memory type, by first machine page, tag and guest page.
#[derive(Default)]
pub(super) struct Special(BTreeMap<(u64, u16, u64), (u64, u64)>);

fn pages_of(to: &Translation, pages: u64) -> core::ops::Range<u64> {
    to.pa.page()..to.pa.page() + pages
}

impl Special {
    /// Leaves of `size` pages each, and `pages` in all, are about to become valid.
    pub(super) fn add(
        &mut self,
        (tag, first): (u16, u64),
        (pages, size): (u64, u64),
        new: &Translation,
        stale: &Runs,
    ) {
        let range = pages_of(new, pages);
        let other = self.overlapping(tag, range.clone()).find(|(_, memory)| *memory != new.memory);
        assert!(other.is_none(), "mismatched aliases: {new:?} of {tag} and {other:?}");
        let cached = stale.iter().find(|(of, _, length, to)| {
            let differs = *of != tag && to.memory != new.memory;
            differs && overlap(&pages_of(to, *length), &range)
        });
        assert!(cached.is_none(), "mismatched aliases: {new:?} of {tag}, cached {cached:?}");
        if !new.is_write_back() {
            let leaf = |n| ((range.start + n, tag, first + n), (size, new.memory));
            self.0.extend((0..pages).step_by(size as usize).map(leaf));
        }
    }

    /// Leaves are no longer valid.
    pub(super) fn remove(
        &mut self,
        (tag, first): (u16, u64),
        (pages, size): (u64, u64),
        old: &Translation,
    ) {
        if !old.is_write_back() {
            for n in (0..pages).step_by(size as usize) {
                self.0.remove(&(old.pa.page() + n, tag, first + n));
            }
        }
    }

    /// Panics if write-back leaves lead to one of these pages too.
    pub(super) fn check_against(&self, tag: u16, pages: u64, leaf: &Translation) {
        if leaf.is_write_back() {
            let other = self.overlapping(tag, pages_of(leaf, pages)).next();
            assert!(other.is_none(), "mismatched aliases: {leaf:?} of {tag} and {other:?}");
        }
    }

    /// VM and memory type of leaves of others than `tag` that have pages in common with a range.
    fn overlapping(
        &self,
        tag: u16,
        range: core::ops::Range<u64>,
    ) -> impl Iterator<Item = (u16, u64)> {
        // A leaf begins at a multiple of its size, so those before the range begin at one of these.
        let before = [2, 1].map(|level| range.start / size(level) * size(level));
        let before = before.into_iter().filter(move |start| *start != range.start);
        let starts = before.flat_map(|start| self.0.range((start, 0, 0)..(start + 1, 0, 0)));
        starts
            .chain(self.0.range((range.start, 0, 0)..(range.end, 0, 0)))
            .filter(move |((start, of, _), (pages, _))| {
                *of != tag && overlap(&(*start..start + pages), &range)
            })
            .map(|((_, tag, _), (_, memory))| (*tag, *memory))
    }
}

fn overlap(one: &core::ops::Range<u64>, other: &core::ops::Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
