//! Which interrupts stand in the list registers of a running vCPU.
//!
//! List registers are few (four on most CPUs) and a guest may have more interrupts at once. Active
//! ones go first, since the guest's end of interrupt must find them, then pending ones by priority.
//! When some do not fit, every listed one reports its end by a maintenance interrupt, and the lists
//! are chosen anew. Without that need nothing is read back while a vCPU runs: a change to the
//! interrupts marks the vCPU, and its next entry folds the lists into the banks and fills them again.

use aarch64_cpu::registers::ICH_LR0_EL2 as List;
use tock_registers::LocalRegisterCopy;

use super::bank::Bank;
use super::{SPI_BASE, TIMER, VcpuSet, Version, VirtualGic};

/// List registers that the architecture allows.
pub(super) const MAX_LISTS: usize = 16;

/// Contents of the list registers and of what goes with them in ICH_HCR_EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) registers: [u64; MAX_LISTS],
    /// Active interrupts are missing from the lists: their ends are counted and reported.
    pub(super) count_ends: bool,
    /// The virtual timer's physical interrupt is no longer anybody's and must be deactivated.
    pub(super) deactivate_timer: bool,
    /// Shared physical interrupts of which the same is true, where not 0.
    pub(super) deactivate: [u16; 32],
}

/// INTIDs that stand in a vCPU's list registers, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    intids: [u8; MAX_LISTS],
    used: usize,
}

type Register = LocalRegisterCopy<u64, List::Register>;

/// The set bits of a map of INTIDs.
pub(super) fn intids(map: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |intid| map >> intid & 1 == 1)
}

impl VirtualGic {
    /// Takes the state of `vcpu`'s interrupts back from its list registers; `ends` is how many
    /// unlisted ones the guest ended. Gives the other vCPUs for which that set interrupts free.
    pub(super) fn fold(&mut self, vcpu: usize, registers: &[u64; MAX_LISTS], ends: u64) -> VcpuSet {
        let before = self.distributor.bank.deliverable();
        let listed = core::mem::take(&mut self.interfaces[vcpu].listed);
        for (&intid, &value) in listed.intids[..listed.used].iter().zip(registers) {
            let (intid, register) = (u32::from(intid), Register::new(value));
            let state = register.read(List::State);
            if state == 0 && register.is_set(List::HW) {
                // The guest's end of this interrupt ended the physical one, too.
                match intid.checked_sub(SPI_BASE) {
                    Some(n) => self.distributor.ended_with_guest(n),
                    None => self.interfaces[vcpu].timer_in_flight = false,
                }
            }
            let (bank, n) = self.bank(vcpu, intid);
            bank.unlist(n, state & 1 != 0, state & 2 != 0);
        }
        self.end_unlisted(vcpu, ends);
        self.distributor.raise_lines();
        self.distributor.settle_arrived();
        self.others_served(vcpu, self.distributor.bank.deliverable() & !before)
    }

    /// Ends `count` active interrupts that were not listed when the guest ended them, the most urgent
    /// first: a guest ends them in that order, and the hardware reports their number only.
    fn end_unlisted(&mut self, vcpu: usize, count: u64) {
        for _ in 0..count {
            let active = self.active(vcpu);
            let Some(intid) = intids(active).min_by_key(|&id| (self.priority(vcpu, id), id)) else {
                return;
            };
            let (bank, n) = self.bank(vcpu, intid);
            bank.end(1 << n);
        }
    }

    /// Chooses what stands in `count` list registers of `vcpu` from now on. They were folded before.
    pub(super) fn fill(&mut self, vcpu: usize, count: usize) -> Lists {
        self.take_timer(vcpu);
        let deactivate_timer = self.forget_idle_timer(vcpu);
        let deactivate = self.distributor.forget_idle();
        let mut lists = Lists { deactivate_timer, deactivate, ..Lists::default() };
        let (active, pending) = (self.active(vcpu), self.deliverable(vcpu));
        let mut waiting = active | pending;
        for register in &mut lists.registers[..count.min(MAX_LISTS)] {
            let urgency = |id: u32| (active >> id & 1 == 0, self.priority(vcpu, id), id);
            let Some(intid) = intids(waiting).min_by_key(|&id| urgency(id)) else { break };
            *register = self.list(vcpu, intid);
            waiting &= !(1 << intid);
        }
        if waiting != 0 {
            report_ends(&mut lists.registers);
        }
        lists.count_ends = waiting & active != 0;
        lists
    }

    /// Moves one interrupt's state into a list register and gives its value.
    fn list(&mut self, vcpu: usize, intid: u32) -> u64 {
        let physical = match intid.checked_sub(SPI_BASE) {
            Some(n) => self.distributor.in_flight(n),
            None if intid == TIMER && self.interfaces[vcpu].timer_in_flight => Some(TIMER),
            None => None,
        };
        // A pending state that belongs to another vCPU stays in the bank until the active one ends.
        let stranded = intid >= SPI_BASE && !self.distributor.is_routed(intid - SPI_BASE, vcpu);
        let priority = self.priority(vcpu, intid);
        let is_line = intid >= SPI_BASE && self.distributor.is_line(intid - SPI_BASE);
        let may_deliver = self.distributor.is_enabled() && !stranded;
        let (bank, n) = self.bank(vcpu, intid);
        let with_pending = may_deliver && bank.is_enabled(n);
        let (pending, active) = bank.list(n, with_pending);
        // A list register with HW set is never both: the physical interrupt is active until the
        // guest has ended the virtual one (IHI 0069H, ICH_LR<n>_EL2).
        let pending = pending && !(physical.is_some() && active);
        let mut register = Register::new(0);
        register.modify(
            List::State.val(u64::from(pending) | u64::from(active) << 1)
                + List::Group.val(u64::from(self.version == Version::V3))
                + List::Priority.val(priority.into())
                + List::vINTID.val(intid.into()),
        );
        if let Some(physical) = physical {
            register.modify(List::HW::SET + List::pINTID.val(physical.into()));
        } else if stranded || is_line {
            // Whoever comes back for the end of a line's interrupt finds the line still high, or not.
            register.modify(List::EOI::SET);
        }
        if intid >= SPI_BASE {
            self.distributor.holders[(intid - SPI_BASE) as usize] = vcpu as u8;
        }
        let listed = &mut self.interfaces[vcpu].listed;
        listed.intids[listed.used] = intid as u8;
        listed.used += 1;
        register.get()
    }

    /// Whether the timer's physical interrupt is still marked although no virtual one stands for it,
    /// which ends the mark: a guest cleared the interrupt by the distributor.
    fn forget_idle_timer(&mut self, vcpu: usize) -> bool {
        let interface = &mut self.interfaces[vcpu];
        let idle = interface.timer_in_flight && !interface.bank.is_busy(TIMER);
        if idle {
            interface.timer_in_flight = false;
        }
        idle
    }

    /// The bank and the bit in it that hold an INTID below 64, as `vcpu` sees it.
    pub(super) fn bank(&mut self, vcpu: usize, intid: u32) -> (&mut Bank, u32) {
        if intid < SPI_BASE {
            (&mut self.interfaces[vcpu].bank, intid)
        } else {
            (&mut self.distributor.bank, intid - SPI_BASE)
        }
    }
}

/// Sets the request for a maintenance interrupt at the end of each interrupt. The timer's cannot
/// have it, because its physical interrupt ends with it; the others suffice.
fn report_ends(registers: &mut [u64; MAX_LISTS]) {
    for value in registers {
        let mut register = Register::new(*value);
        if register.read(List::State) != 0 && !register.is_set(List::HW) {
            register.modify(List::EOI::SET);
            *value = register.get();
        }
    }
}
