//! The virtual interface control registers of a GICv2, in memory (IHI 0048B, 5.3).

use rm::address::Pa;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use super::super::translate;
use super::ActivePriorities;
use crate::mmio::{self, ReadOnly, ReadWrite};

register_structs! {
    /// GICH_*.
    pub(crate) Control {
        (0x000 => hypervisor_control: ReadWrite<u32>),
        (0x004 => kind: ReadOnly<u32>),
        (0x008 => guest_control: ReadWrite<u32>),
        (0x00c => _status),
        (0x0f0 => active_priorities: ReadWrite<u32>),
        (0x0f4 => _gap),
        (0x100 => lists: [ReadWrite<u32>; 64]),
        (0x200 => @END),
    }
}

/// GICH_HCR: the virtual interface works.
const ENABLE: u32 = 1;
/// GICH_HCR.LRENPIE: an interrupt when the guest ends what is in no list register.
const REPORT_UNLISTED: u32 = 1 << 2;

/// This CPU's registers.
pub(super) fn control(at: Pa) -> &'static Control {
    // SAFETY: the board's, of a GICv2; each CPU sees its own, and only `vgic` uses them.
    unsafe { mmio::registers(at) }
}

impl Control {
    pub(super) fn list_count(&self) -> usize {
        (self.kind.get() as usize & 0x3f) + 1
    }

    pub(super) fn read_list(&self, n: usize) -> u64 {
        translate::from_v2(self.lists[n].get())
    }

    pub(super) fn write_lists(&self, values: &[u64], count_ends: bool) {
        for (register, &value) in self.lists.iter().zip(values) {
            register.set(translate::to_v2(value));
        }
        self.hypervisor_control.set(if count_ends { ENABLE | REPORT_UNLISTED } else { ENABLE });
    }

    pub(super) fn disable(&self) {
        self.hypervisor_control.set(0);
    }

    pub(super) fn pause(&self) {
        self.hypervisor_control.set(self.hypervisor_control.get() & !ENABLE);
    }

    pub(super) fn unlisted_ends(&self) -> u64 {
        u64::from(self.hypervisor_control.get() >> 27)
    }

    pub(super) fn guest_control(&self) -> u64 {
        self.guest_control.get().into()
    }

    pub(super) fn set_guest_control(&self, value: u64) {
        self.guest_control.set(value as u32);
    }

    pub(super) fn active_priorities(&self) -> ActivePriorities {
        let all = u64::from(self.active_priorities.get());
        ActivePriorities { group0: [all, 0, 0, 0], group1: [0; 4] }
    }

    pub(super) fn set_active_priorities(&self, saved: &ActivePriorities) {
        self.active_priorities.set(saved.group0[0] as u32);
    }
}
