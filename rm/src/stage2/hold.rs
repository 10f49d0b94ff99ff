//! Reserving guest addresses together with their tables.
//!
//! HELD entries are how an accept keeps what it counted on: nobody else finds the range free, and the
//! tables cannot go away because they are in use. Filling them cannot fail.

use super::descriptor::{self, Level, PAGE_LEVEL, State, index_of, pages_of};
use super::walk::{Slot, affordable, pay};
use super::{Batch, Change, Memory, Stage2, tables};
use crate::address::{Ipa, PAGE_SIZE, Pa};
use crate::frame_pool::NoFrame;
use crate::machine::Machine;
use crate::operation::budget::{Budget, weight};

/// What taking and linking an empty table weighs; nothing is written to it.
const LINK: u32 = 16;

/// Why a range cannot be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldError {
    /// A page of it is not Absent, or lies outside the address space.
    Taken,
    /// No table for it.
    NoFrame(NoFrame),
}

impl From<NoFrame> for HoldError {
    fn from(error: NoFrame) -> Self {
        Self::NoFrame(error)
    }
}

impl Stage2 {
    /// Holds a range for the machine pages from `pa` on, from its start as far as the budget goes, in
    /// the largest blocks that both addresses allow; returns the pages done. A refusal undoes what
    /// this call has done; what earlier calls held stays, until [`Change::Unhold`].
    pub(crate) fn hold<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pa: Pa,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<u64, HoldError> {
        self.assert_finished();
        if !self.contains(at, pages) {
            return Err(HoldError::Taken);
        }
        let mut done = 0;
        while done < pages && !budget.is_spent() {
            match self.hold_run(mem, at.page() + done, pa.add_pages(done), pages - done, budget) {
                Ok(held) => done += held,
                Err(error) => {
                    self.apply(mem, at, done, Change::Unhold);
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// Makes a range of RAM the VM's own, as a VM is built.
    pub(crate) fn give<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pa: Pa,
        pages: u64,
    ) -> Result<(), HoldError> {
        self.install(mem, at, pa, pages, Change::Own)
    }

    /// Makes the registers of a device the VM's own, as a VM is built. It drives them itself.
    pub(crate) fn give_device<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pa: Pa,
        pages: u64,
    ) -> Result<(), HoldError> {
        self.install(mem, at, pa, pages, Change::Device)
    }

    /// Keeps addresses free of memory where the embedder emulates the registers of a device: the VM's
    /// accesses fault, and neither a search nor a hold takes them.
    pub(crate) fn give_emulated<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pages: u64,
    ) -> Result<(), HoldError> {
        self.install(mem, at, Pa(0), pages, Change::Emulate)
    }

    fn install<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pa: Pa,
        pages: u64,
        to: Change,
    ) -> Result<(), HoldError> {
        self.hold(mem, at, pa, pages, &mut Budget::new(u32::MAX))?;
        self.apply(mem, at, pages, to);
        Ok(())
    }

    /// A change of a whole range with its invalidation.
    fn apply<M: Machine>(&mut self, mem: Memory<'_, '_, M>, at: Ipa, pages: u64, to: Change) {
        let mut batch = Batch::new();
        let mut done = 0;
        while done < pages {
            let mut budget = Budget::new(u32::MAX);
            let at = at.add_pages(done);
            done += self.change(mem, &mut batch, at, pages - done, to, &mut budget);
        }
        self.finish(mem, batch);
    }

    /// Holds at least one leaf, and those after it in its table that the budget allows.
    fn hold_run<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        page: u64,
        pa: Pa,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<u64, HoldError> {
        let mut slot = self.find(mem, page);
        if slot.entry != 0 {
            return Err(HoldError::Taken);
        }
        let largest = if self.is_of_device() { PAGE_LEVEL } else { largest(page, pa, pages) };
        let level = largest.max(slot.level);
        if level > slot.level {
            pay(budget, LINK, (level - slot.level).into());
            slot = self.link(mem, slot, page, level, budget)?;
        }
        let limit = (pages / slot.pages()).min(affordable(budget, weight::DESCRIPTOR).max(1));
        debug_assert!(limit > 0, "G7: a hold that takes nothing never ends");
        let held = fill(mem, &slot, limit, descriptor::invalid(State::Held) | pa.0);
        pay(budget, weight::DESCRIPTOR, held);
        let record = mem.pool.record(slot.table);
        // Where the table has a home, an Absent entry deviates as much as a Held one does.
        record.set_counts(record.uses() + held as u32, record.deviants());
        let held = held * slot.pages();
        self.hint.full(page..page + held);
        Ok(held)
    }

    /// Puts empty tables under an Absent entry, down to `level`; returns the slot there. The caller
    /// fills it in the same step, since an empty table has nobody who would return it.
    fn link<'a, M: Machine>(
        &mut self,
        mem: Memory<'a, '_, M>,
        slot: Slot<'a>,
        page: u64,
        level: Level,
        budget: &mut Budget,
    ) -> Result<Slot<'a>, NoFrame> {
        let first = self.take_empty(mem, slot.level + 1, page, budget)?;
        let mut last = first;
        if level > slot.level + 1 {
            let below = match self.take_empty(mem, level, page, budget) {
                Ok(below) => below,
                Err(error) => {
                    self.put_table(mem, first.table);
                    return Err(error);
                }
            };
            tables::write(mem, &first, descriptor::table(mem.address(below.table)));
            mem.pool.record(first.table).set_counts(1, 0);
            last = below;
        }
        // The tables are empty for every walker before one can enter them.
        mem.machine.publish();
        let record = mem.pool.record(slot.table);
        record.set_counts(record.uses() + 1, record.deviants());
        tables::write(mem, &slot, descriptor::table(mem.address(first.table)));
        mem.machine.publish();
        Ok(last)
    }

    /// A new table of `level` that translates `page`, and the slot of that page in it.
    fn take_empty<'a, M: Machine>(
        &mut self,
        mem: Memory<'a, '_, M>,
        level: Level,
        page: u64,
        budget: &mut Budget,
    ) -> Result<Slot<'a>, NoFrame> {
        let first_page = page & !(512 * pages_of(level) - 1);
        let table = self.take_table(mem, level, first_page, budget)?;
        let index = index_of(page, level);
        Ok(Slot { table, frame: mem.frame(table), level, index, entry: 0 })
    }
}

/// The level of the largest leaf that may begin at both addresses and fits.
fn largest(page: u64, pa: Pa, pages: u64) -> Level {
    let aligned = page | pa.page();
    let fits =
        |level: &Level| aligned.is_multiple_of(pages_of(*level)) && pages >= pages_of(*level);
    [1, 2].into_iter().find(fits).unwrap_or(PAGE_LEVEL)
}

/// Fills Absent entries from the slot's on with consecutive addresses from `first`, at most `limit`.
/// Returns how many.
#[inline]
fn fill<M: Machine>(mem: Memory<'_, '_, M>, slot: &Slot<'_>, limit: u64, first: u64) -> u64 {
    let step = slot.pages() * PAGE_SIZE;
    let mut next = first;
    tables::sweep(mem, slot, limit, |entry| {
        let this = next;
        next = next.wrapping_add(step);
        (entry == 0).then_some(this)
    })
}
