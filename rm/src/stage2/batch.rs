//! What one step must tell the hardware before the VM's lock is dropped.
//!
//! Removing entries one by one and invalidating each would cost more than the removal. A step collects
//! what it took away and pays for one invalidation at its end; only then are the tables that it
//! emptied returned to the pool, because until then a walker may still be inside them (G5).

use super::{Memory, Stage2};
use crate::address::Ipa;
use crate::machine::{FrameIndex, IpaRange, Machine, Scope};

/// More ranges than this are not kept apart: the whole VM is invalidated.
const RANGES: usize = 16;

/// The pending invalidation of one step over one VM.
#[must_use = "what was removed must be invalidated by `Stage2::finish`"]
pub(crate) struct Batch {
    ranges: [IpaRange; RANGES],
    /// Ranges in use; `RANGES + 1` if there were more.
    count: usize,
    /// The last table that was emptied; each record links the one before.
    emptied: Option<FrameIndex>,
    /// Entries became valid or more permissive.
    publish: bool,
}

impl Batch {
    /// Nothing to do yet.
    pub(crate) const fn new() -> Self {
        let nothing = IpaRange { at: Ipa(0), pages: 0 };
        Self { ranges: [nothing; RANGES], count: 0, emptied: None, publish: false }
    }

    /// Translations of these pages must go.
    pub(super) fn push(&mut self, at: Ipa, pages: u64) {
        if let Some(last) = self.ranges[..self.count.min(RANGES)].last_mut()
            && last.at.add_pages(last.pages) == at
        {
            last.pages += pages;
        } else if let Some(free) = self.ranges.get_mut(self.count) {
            *free = IpaRange { at, pages };
            self.count += 1;
        } else {
            self.count = RANGES + 1;
        }
    }

    /// Something became valid or more permissive.
    pub(super) const fn publish(&mut self) {
        self.publish = true;
    }

    /// A table was emptied and unlinked; returns the one before it, to be linked in its record.
    pub(super) const fn push_empty(&mut self, table: FrameIndex) -> Option<FrameIndex> {
        self.emptied.replace(table)
    }

    fn scope(&self) -> Option<Scope<'_>> {
        match self.count {
            0 => None,
            1..=RANGES => Some(Scope::Ranges(&self.ranges[..self.count])),
            _ => Some(Scope::All),
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let done = self.count == 0 && self.emptied.is_none() && !self.publish;
        assert!(done || unwinding(), "G5: a step ended before its invalidation");
    }
}

/// Whether a failed test is being unwound, in which a second panic would hide the first.
#[cfg(any(test, feature = "fake"))]
fn unwinding() -> bool {
    std::thread::panicking()
}

#[cfg(not(any(test, feature = "fake")))]
const fn unwinding() -> bool {
    false
}

impl Stage2 {
    /// Invalidates what the step removed, publishes what it made, and returns the tables that it
    /// emptied. Called before the VM's lock is dropped.
    pub(crate) fn finish<M: Machine>(&mut self, mem: Memory<'_, '_, M>, mut batch: Batch) {
        if let Some(scope) = batch.scope() {
            self.invalidate(mem, scope);
        } else if batch.publish {
            mem.machine.publish();
        }
        let mut emptied = batch.emptied.take();
        while let Some(table) = emptied {
            emptied = mem.pool.record(table).next();
            self.put_table(mem, table);
        }
        batch.count = 0;
        batch.publish = false;
        self.unfinished = false;
    }

    /// What is put in the place of a removed entry before its invalidation could be hidden by it.
    pub(super) fn assert_finished(&self) {
        debug_assert!(!self.unfinished, "G5: the step's batch must be finished first");
    }
}
