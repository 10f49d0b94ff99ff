//! Transitions that cannot fail: the table of states, and the loop that applies a row of it.
//!
//! A row is data: from which states, to which bits. The loop applies it to runs of leaves that are
//! alike but for their address, so what depends on the row is decided once per run, and an entry
//! costs a handful of instructions.

use rm_abi::Rights;

use super::descriptor::{self, ADDRESS, Level, MemoryType, State, VALID};
use super::walk::{Slot, affordable, pay};
use super::{Batch, Memory, Stage2, tables};
use crate::address::{Ipa, PAGE_SIZE};
use crate::machine::{IpaRange, Machine, Scope};
use crate::operation::budget::{Budget, weight};

/// What unlinking emptied tables and returning them to the pool weighs.
const UNLINK: u32 = 24;

/// What happens to the leaves of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Claimed becomes Owned.
    Unclaim,
    /// Owned or Claimed becomes Lent to a parcel: out of the VM's reach.
    Lend { parcel: u16 },
    /// Owned or Claimed becomes Shared, with what the owner's own ACL entry and the parcel's cache
    /// policy say. Lines of a page that is to be used uncached are the caller's to clean.
    Share { rights: Rights, memory: MemoryType },
    /// Shared stays so, with another memory type.
    Retype { memory: MemoryType },
    /// Lent or Shared becomes Owned.
    Restore,
    /// Lent becomes Absent: another VM has accepted a donation.
    GiveAway,
    /// Owned or Claimed becomes Absent: it goes back to a heap.
    Leave,
    /// Held becomes Absent: an accept was given up.
    Unhold,
    /// Held becomes Borrowed.
    Borrow { rights: Rights, memory: MemoryType },
    /// Held becomes Owned.
    Own,
    /// Held becomes registers of a device that the VM drives itself.
    Device,
    /// Held becomes registers of a device that the embedder emulates: Device, but invalid.
    Emulate,
    /// Borrowed, or still Held, becomes Absent.
    Unmap,
}

impl Change {
    const fn starts_from(self, state: State) -> bool {
        match self {
            Self::Unclaim => matches!(state, State::Claimed),
            Self::Lend { .. } | Self::Share { .. } | Self::Leave => {
                matches!(state, State::Owned | State::Claimed)
            }
            Self::Retype { .. } => matches!(state, State::Shared),
            Self::Restore => matches!(state, State::Lent | State::Shared),
            Self::GiveAway => matches!(state, State::Lent),
            Self::Unhold | Self::Borrow { .. } | Self::Own | Self::Device | Self::Emulate => {
                matches!(state, State::Held)
            }
            Self::Unmap => matches!(state, State::Borrowed | State::Held),
        }
    }
}

/// How far a pass of break-before-make has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The change needs no break.
    Plain,
    /// New bits, not yet valid.
    Break,
    /// The same bits, valid.
    Make,
}

impl Stage2 {
    /// Applies `to` to the leaves of a range, from its start, as far as the budget goes; returns the
    /// pages done. Cannot fail: the range consists of whole leaves in states that the change starts
    /// from, which a claim, a cut under the same lock, a hold or an earlier change has seen to.
    pub(crate) fn change<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        batch: &mut Batch,
        at: Ipa,
        pages: u64,
        to: Change,
        budget: &mut Budget,
    ) -> u64 {
        assert!(self.contains(at, pages), "G4: a change stays in the address space");
        let mut done = 0;
        while done < pages && !budget.is_spent() {
            let here = at.add_pages(done);
            let slot = self.find(mem, here.page());
            let new = self.bits(to, slot.entry & !ADDRESS, slot.level);
            let rest = pages - done;
            done += if descriptor::retypes(slot.entry, new) {
                self.retype(mem, batch, (here, &slot), rest, (to, new), budget)
            } else {
                self.pass(mem, batch, (here, &slot), rest, (to, Phase::Plain, new), budget)
            };
        }
        done
    }

    /// A change of memory type: break, invalidate, make, in this step. Accesses that fault in between
    /// find the new entry when the abort is checked again.
    fn retype<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        batch: &mut Batch,
        (at, slot): (Ipa, &Slot<'_>),
        pages: u64,
        (to, new): (Change, u64),
        budget: &mut Budget,
    ) -> u64 {
        let broken = (to, Phase::Break, new & !VALID);
        let done = self.pass(mem, batch, (at, slot), pages, broken, budget);
        let broken = [IpaRange { at, pages: done }];
        self.invalidate(mem, Scope::Ranges(&broken));
        let mut all = Budget::new(u32::MAX);
        let mut made = 0;
        while made < done {
            let at = at.add_pages(made);
            let slot = self.find(mem, at.page());
            let valid = (to, Phase::Make, slot.entry & !ADDRESS | VALID);
            made += self.pass(mem, batch, (at, &slot), done - made, valid, &mut all);
        }
        done
    }

    /// Gives the leaf at the slot, and those after it in its table that are like it, the bits of a phase.
    fn pass<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        batch: &mut Batch,
        (at, slot): (Ipa, &Slot<'_>),
        pages: u64,
        (to, phase, new): (Change, Phase, u64),
        budget: &mut Budget,
    ) -> u64 {
        let page = at.page();
        let old = slot.entry & !ADDRESS;
        assert!(
            to.starts_from(State::of(old)) || phase == Phase::Make,
            "G4: {to:?} of a page that is {:?}",
            State::of(old)
        );
        assert!(
            slot.offset(page) == 0 && pages >= slot.pages(),
            "G4: {to:?} of a part of a leaf, which must have been cut before"
        );
        let limit = (pages / slot.pages()).min(affordable(budget, weight::DESCRIPTOR));
        let edit = rewrite(mem, slot, limit, new, &self.home_run(mem, slot));
        pay(budget, weight::DESCRIPTOR, edit.count);
        let done = edit.count * slot.pages();
        match phase {
            Phase::Plain => self.note(batch, at, done, (old, new)),
            Phase::Break => {}
            Phase::Make => batch.publish(),
        }
        if self.account(mem, batch, slot, (old, new), edit) {
            pay(budget, UNLINK, 1);
        }
        if new == 0 {
            self.hint.freed(page..page + done);
        }
        done
    }

    /// All bits of the leaf that `to` makes, but its address. An Absent leaf has none at all.
    fn bits(&self, to: Change, old: u64, level: Level) -> u64 {
        match to {
            Change::Unclaim => descriptor::retag(old, State::Owned),
            Change::Lend { parcel } => descriptor::lent(parcel),
            Change::Share { rights, memory } => {
                self.encoder.leaf(level, State::Shared, rights, memory)
            }
            Change::Retype { memory } => {
                self.encoder.leaf(level, State::Shared, descriptor::rights(old), memory)
            }
            Change::Restore | Change::Own => self.encoder.owned(level),
            Change::Borrow { rights, memory } => {
                self.encoder.leaf(level, State::Borrowed, rights, memory)
            }
            Change::Device => {
                self.encoder.leaf(level, State::Device, Rights::RW, MemoryType::Device)
            }
            Change::Emulate => descriptor::invalid(State::Device),
            Change::GiveAway | Change::Leave | Change::Unhold | Change::Unmap => 0,
        }
    }

    /// Where the slot's entry is at home.
    #[inline]
    pub(super) fn home_run<M: Machine>(&self, mem: Memory<'_, '_, M>, slot: &Slot<'_>) -> Home {
        let step = slot.pages() * PAGE_SIZE;
        // Without a home this is odd and stays odd, so it is no leaf's address.
        let at = mem.pool.record(slot.table).home_bits() + slot.index as u64 * step;
        Home { at, step }
    }

    /// Remembers what the hardware must be told of a run of leaves.
    fn note(&mut self, batch: &mut Batch, at: Ipa, pages: u64, (old, new): (u64, u64)) {
        let removed = old & VALID != 0 && new & VALID == 0;
        if removed || (old & new & VALID != 0 && descriptor::restricts(old, new)) {
            batch.push(at, pages);
            self.unfinished = true;
        } else if new & VALID != 0 && descriptor::hardware(old) != descriptor::hardware(new) {
            batch.publish();
        }
    }

    /// Keeps the table's record in step with a run of its entries. Whether the table was emptied.
    fn account<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        batch: &mut Batch,
        slot: &Slot<'_>,
        (old, new): (u64, u64),
        edit: Edit,
    ) -> bool {
        let owned = self.encoder.owned(slot.level);
        let record = mem.pool.record(slot.table);
        let mut uses = record.uses();
        let mut deviants = record.deviants();
        // No change starts from Absent: a hold fills it, and counts what it fills.
        if new == 0 {
            uses -= edit.count as u32;
        }
        if old == owned {
            deviants += edit.at_home;
        }
        if new == owned {
            deviants -= edit.at_home;
        }
        record.set_counts(uses, deviants);
        self.settle(mem, slot.table);
        let emptied = uses == 0 && slot.table != self.root;
        if emptied {
            if old & VALID == 0 {
                // No leaf's invalidation reaches the cached way to this table.
                batch.push(Ipa::of_page(record.first_page()), 512 * slot.pages());
                self.unfinished = true;
            }
            self.unlink(mem, batch, slot.table);
        }
        emptied
    }
}

/// Where entries of a table point while it is as it was cut.
pub(super) struct Home {
    at: u64,
    step: u64,
}

/// What [`rewrite`] did.
#[derive(Clone, Copy)]
pub(super) struct Edit {
    /// Entries changed.
    pub(super) count: u64,
    /// How many of them point to their home.
    pub(super) at_home: u32,
}

/// Gives the slot's entry and those after it that are like it the bits `new`, at most `limit`. They
/// keep their addresses, unless `new` is Absent.
#[inline]
pub(super) fn rewrite<M: Machine>(
    mem: Memory<'_, '_, M>,
    slot: &Slot<'_>,
    limit: u64,
    new: u64,
    home: &Home,
) -> Edit {
    let old = slot.entry & !ADDRESS;
    // What remains if an entry is like the first, which then is its address.
    let address_of = |entry| Some(entry ^ old).filter(|rest| rest & !ADDRESS == 0);
    let mut plain = home.at;
    let mut at_home = 0_u32;
    let count = if new == 0 {
        // No entry at home turns Absent in one step, so nothing has to be compared.
        tables::sweep(mem, slot, limit, |entry| address_of(entry).map(|_| 0))
    } else {
        tables::sweep(mem, slot, limit, |entry| {
            let address = address_of(entry)?;
            at_home = at_home.wrapping_add((address == plain).into());
            plain = plain.wrapping_add(home.step);
            Some(address | new)
        })
    };
    Edit { count, at_home }
}
