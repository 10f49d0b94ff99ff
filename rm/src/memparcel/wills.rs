//! What a VM wants done when its part in a page ends, because it may not live to do it.
//!
//! A record has all that it takes to execute it: where the byte is in the machine, and which doorbell.
//! It was checked and paid for when it was set, so nothing is left that could fail when a VM has died
//! in the middle of anything. A page's machine address does not change while it is in the parcel.

use crate::address::{Pa, VmIndex};
use crate::frame_pool::NoFrame;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::memparcel::holes::Hole;
use crate::memparcel::units::Walk;
use crate::memparcel::words::{Cursor, Words};
use crate::operation::budget::{Budget, weight};
use crate::stage2::{Memory, Stage2};

/// The wills of one VM about the pages of one parcel, at most one for each page. One needs no frame.
#[derive(Debug)]
pub(crate) struct Wills {
    list: Words<2, 1>,
    /// The next that is executed, once the VM's part has ended.
    next: Cursor,
    /// Rises whenever all are gone: places in the list that were found before mean nothing any more.
    pub(crate) generation: u32,
}

/// What is done when the part in a page ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Will {
    /// The page, by its number in the parcel.
    pub(crate) page: u32,
    /// Its byte. Only read if it is to be cleared.
    pub(crate) byte: Pa,
    pub(crate) clears: bool,
    /// A doorbell of the VM, whose other end is rung, and the flag.
    pub(crate) rings: Option<(u8, u8)>,
}

const CLEARS: u64 = 1 << 32;
const RINGS: u64 = 1 << 33;
const BELL: u32 = 40;
const FLAG: u32 = 48;

impl Will {
    /// Two words: the page number below what is done, and the byte.
    const fn encode(self) -> [u64; 2] {
        let clears = if self.clears { CLEARS } else { 0 };
        let rings = match self.rings {
            Some((bell, flag)) => RINGS | (bell as u64) << BELL | (flag as u64) << FLAG,
            None => 0,
        };
        [self.page as u64 | clears | rings, self.byte.0]
    }

    const fn decode([what, byte]: [u64; 2]) -> Self {
        let rings = ((what >> BELL) as u8, (what >> FLAG) as u8);
        Self {
            page: what as u32,
            byte: Pa(byte),
            clears: what & CLEARS != 0,
            rings: if what & RINGS != 0 { Some(rings) } else { None },
        }
    }

    /// Nothing is to be done: the place is free for another.
    pub(crate) const fn is_void(self) -> bool {
        !self.clears && self.rings.is_none()
    }

    const fn voided(self) -> Self {
        Self { clears: false, rings: None, ..self }
    }
}

impl Wills {
    pub(crate) const fn new() -> Self {
        Self { list: Words::new(), next: Cursor::START, generation: 0 }
    }

    /// The one at a place; nothing behind the last.
    pub(crate) fn peek<M: Machine>(&self, mem: Memory<'_, '_, M>, place: Cursor) -> Option<Will> {
        self.list.peek(mem, place).map(Will::decode)
    }

    pub(crate) fn step<M: Machine>(&self, mem: Memory<'_, '_, M>, place: &mut Cursor) {
        let _ = self.list.next(mem, place);
    }

    /// Puts one in the place of another.
    pub(crate) fn replace<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        place: Cursor,
        will: Will,
    ) {
        self.list.replace(mem, place, will.encode());
    }

    /// Adds one. The VM of `payer` is charged for the frame that it may take.
    pub(crate) fn add<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        payer: &mut Stage2,
        will: Will,
    ) -> Result<(), NoFrame> {
        self.list.reserve(mem, payer)?;
        self.list.push(mem, will.encode());
        Ok(())
    }

    /// The part of `vm` has ended: executes all wills and forgets them.
    #[inline]
    pub(crate) fn execute<M: Machine>(
        &mut self,
        manager: &Manager<'_, M>,
        (vm, cached): (VmIndex, bool),
        budget: &mut Budget,
    ) -> Walk {
        // Few parcels have any.
        if self.list.is_clear() {
            Walk::End
        } else {
            self.execute_all(manager, (vm, cached), budget)
        }
    }

    #[inline(never)]
    fn execute_all<M: Machine>(
        &mut self,
        manager: &Manager<'_, M>,
        (vm, cached): (VmIndex, bool),
        budget: &mut Budget,
    ) -> Walk {
        let mem = manager.mem();
        while let Some(will) = self.peek(mem, self.next) {
            if budget.is_spent() {
                return Walk::More;
            }
            manager.execute(vm, will, cached);
            self.list.next(mem, &mut self.next);
            // Paid afterwards, so that a budget of one still does one.
            let _ = budget.spend(weight::WILL);
        }
        if !self.list.clear(mem, vm, budget) {
            return Walk::More;
        }
        self.next = Cursor::START;
        self.generation = self.generation.wrapping_add(1);
        Walk::End
    }

    /// The part of `vm` in some pages has ended: executes what it said about those, from `place` on.
    pub(crate) fn execute_in<M: Machine>(
        &mut self,
        manager: &Manager<'_, M>,
        (vm, cached): (VmIndex, bool),
        (range, place): (Hole, &mut Cursor),
        budget: &mut Budget,
    ) -> Walk {
        let mem = manager.mem();
        while let Some(will) = self.peek(mem, *place) {
            if budget.is_spent() {
                return Walk::More;
            }
            if (range.first()..range.end()).contains(&will.page.into()) {
                manager.execute(vm, will, cached);
                self.list.replace(mem, *place, will.voided().encode());
            }
            self.list.next(mem, place);
            let _ = budget.spend(weight::WILL);
        }
        Walk::End
    }
}

impl<M: Machine> Manager<'_, M> {
    /// Executes a will of `vm`. Whoever hears the bell finds the byte cleared.
    fn execute(&self, vm: VmIndex, will: Will, cached: bool) {
        if will.clears {
            self.machine().write(will.byte, &[0], cached);
        }
        if let Some((bell, flag)) = will.rings {
            self.ring_peer((vm, bell), 1 << flag);
        }
    }
}
