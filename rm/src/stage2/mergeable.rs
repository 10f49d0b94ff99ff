//! Which tables are mergeable, and what that means for the VM's account.
//!
//! A table that was cut from a block remembers where that block was, its *home*, and how many of its
//! entries *deviate*: say something else than the block did, and are no table that is mergeable
//! itself. At zero it is mergeable and stands in its VM's list. It is merged when a frame is wanted,
//! not at once, because a VM that shared one page of a block tends to share another.

use super::descriptor::ROOT_LEVEL;
use super::{Memory, Stage2};
use crate::frame_pool::NoFrame;
use crate::machine::{FrameIndex, Machine};

/// A VM's mergeable tables, oldest first, linked through their records.
pub(super) struct List {
    first: Option<FrameIndex>,
    last: Option<FrameIndex>,
    len: u32,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { first: None, last: None, len: 0 }
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// The table that has been mergeable longest.
    pub(super) const fn first(&self) -> Option<FrameIndex> {
        self.first
    }

    fn push<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        let record = mem.pool.record(table);
        record.set_previous(self.last);
        record.set_next(None);
        record.set_listed(true);
        match self.last {
            Some(last) => mem.pool.record(last).set_next(Some(table)),
            None => self.first = Some(table),
        }
        self.last = Some(table);
        self.len += 1;
    }

    fn remove<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        let record = mem.pool.record(table);
        record.set_listed(false);
        let (previous, next) = (record.previous(), record.next());
        match previous {
            Some(previous) => mem.pool.record(previous).set_next(next),
            None => self.first = next,
        }
        match next {
            Some(next) => mem.pool.record(next).set_previous(previous),
            None => self.last = previous,
        }
        self.len -= 1;
    }
}

impl Stage2 {
    /// Lists the table if it has become mergeable, delists it if it no longer is.
    #[inline]
    pub(super) fn settle<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        let record = mem.pool.record(table);
        match (record.is_plain(), record.is_listed()) {
            (true, false) => self.enlist(mem, table),
            (false, true) => self.delist(mem, table),
            _ => {}
        }
    }

    fn enlist<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        self.mergeable.push(mem, table);
        mem.pool.credit(self.vm);
        if let Some(parent) = self.home_parent(mem, table) {
            let record = mem.pool.record(parent);
            record.set_counts(record.uses(), record.deviants() - 1);
            self.settle(mem, parent);
        }
    }

    /// Takes a table out of the list, so that it is not merged and counts as used. It stays out until
    /// it is settled again.
    pub(super) fn delist<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        if !mem.pool.record(table).is_listed() {
            return;
        }
        self.mergeable.remove(mem, table);
        mem.pool.uncredit(self.vm);
        if let Some(parent) = self.home_parent(mem, table) {
            let record = mem.pool.record(parent);
            record.set_counts(record.uses(), record.deviants() + 1);
            self.settle(mem, parent);
        }
    }

    /// As [`Stage2::delist`], refused if what then counts as used would exceed the VM's limit.
    pub(super) fn charge<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        table: FrameIndex,
    ) -> Result<(), NoFrame> {
        if mem.pool.record(table).is_listed() {
            let parent = self.home_parent(mem, table);
            let both = parent.is_some_and(|parent| mem.pool.record(parent).is_listed());
            if !mem.pool.affords(mem.machine, self.vm, 1 + u32::from(both)) {
                return Err(NoFrame::Quota);
            }
            self.delist(mem, table);
        }
        Ok(())
    }

    /// The table above, if this one, merged, would be at home there. A mergeable table below does not
    /// keep that one from being mergeable, and since it is listed first, it is merged first.
    fn home_parent<M: Machine>(
        &self,
        mem: Memory<'_, '_, M>,
        table: FrameIndex,
    ) -> Option<FrameIndex> {
        let record = mem.pool.record(table);
        let level = record.level() - 1;
        if level == ROOT_LEVEL {
            return None;
        }
        let slot = self.find_above(mem, record.first_page(), level);
        let home = mem.pool.record(slot.table).home()?;
        let here = home.add_pages(slot.index as u64 * slot.pages());
        (record.home() == Some(here)).then_some(slot.table)
    }
}
