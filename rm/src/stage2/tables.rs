//! The life of a translation table: taken, cut from a block, emptied, merged.
//!
//! Whatever replaces a valid entry by another goes through one function here, which breaks,
//! invalidates and makes; whatever writes an entry at all goes through another.

use core::sync::atomic::Ordering;

use super::descriptor::{self, Level, State, pages_of};
use super::walk::{Slot, pay};
use super::{Batch, Memory, Stage2, Walker};
use crate::address::{Ipa, PAGE_SIZE};
use crate::frame_pool::NoFrame;
use crate::machine::{FrameIndex, FrameUse, IpaRange, Machine, Scope};
use crate::operation::budget::{Budget, weight};

/// Gives entries of a table new values, from the slot's on, until `value` has none for an entry or
/// `limit` is reached; returns how many. All writes to tables come through here.
#[inline]
pub(super) fn sweep<M: Machine>(
    mem: Memory<'_, '_, M>,
    slot: &Slot<'_>,
    limit: u64,
    mut value: impl FnMut(u64) -> Option<u64>,
) -> u64 {
    let end = slot.index + (limit as usize).min(512 - slot.index);
    let mut count = 0;
    for cell in &slot.frame.0[slot.index..end] {
        let old = cell.load(Ordering::Relaxed);
        let Some(new) = value(old) else { break };
        mem.machine.table_write(slot.table, slot.index + count, old, new);
        // A single store, as the walker needs it.
        cell.store(new, Ordering::Relaxed);
        count += 1;
    }
    count as u64
}

/// Gives the slot's entry a new value.
pub(super) fn write<M: Machine>(mem: Memory<'_, '_, M>, slot: &Slot<'_>, new: u64) {
    sweep(mem, slot, 1, |_| Some(new));
}

impl Stage2 {
    /// A frame, all zero. If the pool has none for the VM, a table is merged that it does not need: so
    /// no frame that the VM is guaranteed is out of its reach.
    pub(crate) fn take_frame<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        user: FrameUse,
    ) -> Result<FrameIndex, NoFrame> {
        match mem.pool.take(mem.machine, self.vm, user) {
            Err(NoFrame::Empty) => {
                // Not by way of the pool, where another VM might take it.
                let frame = self.remove_mergeable(mem).ok_or(NoFrame::Empty)?;
                mem.pool.reuse(mem.machine, frame, user);
                Ok(frame)
            }
            taken => taken,
        }
    }

    /// A table for this tree. A merge is paid here, since only here it is known.
    pub(super) fn take_table<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        level: Level,
        first_page: u64,
        budget: &mut Budget,
    ) -> Result<FrameIndex, NoFrame> {
        let tables = self.tables;
        let user = match self.walker {
            Walker::Cpus(context) => FrameUse::Table(context.tag),
            Walker::Device(context) => FrameUse::StreamTable(context.stream),
        };
        let frame = self.take_frame(mem, user)?;
        if self.tables < tables {
            pay(budget, weight::TABLE, 1);
        }
        mem.pool.record(frame).adopt(level, first_page);
        self.tables += 1;
        Ok(frame)
    }

    /// Returns a table to the pool that no walk can reach any more.
    pub(super) fn put_table<M: Machine>(&mut self, mem: Memory<'_, '_, M>, table: FrameIndex) {
        self.tables -= 1;
        mem.pool.put(mem.machine, self.vm, table);
    }

    /// Replaces an OWNED block by a table that says the same, one level down. The new table is not
    /// listed as mergeable before it is settled, so a second cut does not undo the first.
    pub(super) fn split<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        slot: Slot<'_>,
        page: u64,
        budget: &mut Budget,
    ) -> Result<(), NoFrame> {
        pay(budget, weight::TABLE, 1);
        let first_page = page - slot.offset(page);
        let level = slot.level + 1;
        self.charge(mem, slot.table)?;
        let child = match self.take_table(mem, level, first_page, budget) {
            Ok(child) => child,
            Err(error) => {
                self.settle(mem, slot.table);
                return Err(error);
            }
        };
        self.replace_by_table(mem, slot, first_page, child);
        Ok(())
    }

    /// Puts an empty table in the place of a leaf, from whose first page on it translates, and lets it
    /// say the same. What is the VM's own is at home there, so that it merges when all of it is OWNED.
    pub(super) fn replace_by_table<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        slot: Slot<'_>,
        first_page: u64,
        table: FrameIndex,
    ) {
        let level = slot.level + 1;
        let step = pages_of(level) * PAGE_SIZE;
        let mut entry = descriptor::lowered(slot.entry, level);
        sweep(mem, &Slot::first(mem, table), 512, |_| {
            let this = entry;
            entry = entry.wrapping_add(step);
            Some(this)
        });
        let record = mem.pool.record(table);
        let state = State::of(slot.entry);
        if !matches!(state, State::Borrowed | State::Held | State::Device) {
            record.set_home(descriptor::address(slot.entry));
        }
        record.set_counts(512, if state == State::Owned { 0 } else { 512 });
        self.replace(mem, slot, first_page, descriptor::table(mem.address(table)));
    }

    /// Break-before-make of one entry that stays in use.
    fn replace<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        slot: Slot<'_>,
        first_page: u64,
        new: u64,
    ) {
        if descriptor::is_valid(slot.entry) {
            write(mem, &slot, 0);
            let broken = [IpaRange { at: Ipa::of_page(first_page), pages: slot.pages() }];
            self.invalidate(mem, Scope::Ranges(&broken));
        } else {
            // No TLB keeps an invalid entry; a new table must be written before it is linked.
            mem.machine.publish();
        }
        write(mem, &slot, new);
        mem.machine.publish();
        let record = mem.pool.record(slot.table);
        let plain = self.plain(mem, &slot);
        let deviants = record.deviants() + u32::from(slot.entry == plain) - u32::from(new == plain);
        record.set_counts(record.uses(), deviants);
        self.settle(mem, slot.table);
    }

    /// What the slot's entry is while its table is as it was cut; no descriptor if it was not cut.
    fn plain<M: Machine>(&self, mem: Memory<'_, '_, M>, slot: &Slot<'_>) -> u64 {
        let step = slot.pages() * PAGE_SIZE;
        match mem.pool.record(slot.table).home() {
            Some(home) => self.encoder.owned(slot.level) | (home.0 + slot.index as u64 * step),
            None => u64::MAX,
        }
    }

    /// Merges the table that has been mergeable longest. `false` if there is none.
    pub(crate) fn merge_one<M: Machine>(&mut self, mem: Memory<'_, '_, M>) -> bool {
        let table = self.remove_mergeable(mem);
        if let Some(table) = table {
            mem.pool.put(mem.machine, self.vm, table);
        }
        table.is_some()
    }

    /// Takes the table out of the tree that has been mergeable longest, and gives it, all zero.
    fn remove_mergeable<M: Machine>(&mut self, mem: Memory<'_, '_, M>) -> Option<FrameIndex> {
        self.assert_finished();
        let table = self.mergeable.first()?;
        self.delist(mem, table);
        let record = mem.pool.record(table);
        let home = record.home().expect("G8: a mergeable table was cut from a block");
        let level = record.level() - 1;
        let slot = self.find_above(mem, record.first_page(), level);
        debug_assert!(
            slot.entry == descriptor::table(mem.address(table)),
            "G8: a table stands where its record says"
        );
        self.replace(mem, slot, record.first_page(), self.encoder.owned(level) | home.0);
        sweep(mem, &Slot::first(mem, table), 512, |_| Some(0));
        self.tables -= 1;
        Some(table)
    }

    /// Takes an empty table out of the tree, and those above it that this leaves empty. They return
    /// to the pool when the batch has been invalidated.
    pub(super) fn unlink<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        batch: &mut Batch,
        table: FrameIndex,
    ) {
        let mut table = table;
        while table != self.root && mem.pool.record(table).uses() == 0 {
            let record = mem.pool.record(table);
            // An empty table is not plain, so it is in no list and its links are free.
            record.set_next(batch.push_empty(table));
            let slot = self.find_above(mem, record.first_page(), record.level() - 1);
            write(mem, &slot, 0);
            // A table's descriptor and an absent entry both deviate from home.
            let parent = mem.pool.record(slot.table);
            parent.set_counts(parent.uses() - 1, parent.deviants());
            table = slot.table;
        }
    }
}
