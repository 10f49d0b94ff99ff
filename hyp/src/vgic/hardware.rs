//! The part of a virtual CPU interface that is hardware: list registers and what goes with them.
//!
//! Everything is said in the words of a GICv3; `v2` translates.

mod v2;
mod v3;

use super::lists::{Lists, MAX_LISTS};
use super::{TIMER, Version};
use crate::gic;

/// What the hardware keeps of a vCPU's CPU interface besides ICH_VMCR_EL2: the active priorities.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ActivePriorities {
    group0: [u64; 4],
    group1: [u64; 4],
}

/// This CPU's virtual interface.
#[derive(Clone, Copy)]
pub(super) enum Hardware {
    V2(&'static v2::Control),
    V3,
}

impl Version {
    /// The machine's, which is what its VMs get.
    pub fn found() -> Self {
        if gic::is_v2() { Self::V2 } else { Self::V3 }
    }
}

impl Hardware {
    /// The machine's.
    #[inline]
    pub(super) fn found() -> Self {
        match gic::found() {
            crate::board::Gic::V2 { control, .. } => Self::V2(v2::control(*control)),
            crate::board::Gic::V3 { .. } => Self::V3,
        }
    }

    /// How many list registers there are.
    pub(super) fn list_count(self) -> usize {
        match self {
            Self::V2(control) => control.list_count().min(MAX_LISTS),
            Self::V3 => v3::list_count(),
        }
    }

    pub(super) fn read_list(self, n: usize) -> u64 {
        match self {
            Self::V2(control) => control.read_list(n),
            Self::V3 => v3::read_list(n),
        }
    }

    /// Writes the list registers and enables the virtual CPU interface, which also starts the count of
    /// unlisted ends from zero.
    pub(super) fn write_lists(self, lists: &Lists) {
        if lists.deactivate_timer {
            gic::deactivate(TIMER);
        }
        for &intid in lists.deactivate.iter().filter(|&&intid| intid != 0) {
            gic::deactivate_shared(intid.into());
        }
        let values = &lists.registers[..self.list_count()];
        match self {
            Self::V2(control) => control.write_lists(values, lists.count_ends),
            Self::V3 => v3::write_lists(values, lists.count_ends),
        }
    }

    /// Nothing is signalled any more.
    pub(super) fn disable(self) {
        match self {
            Self::V2(control) => control.disable(),
            Self::V3 => v3::disable(),
        }
    }

    /// Nothing is signalled until the list registers are written. The count of unlisted ends stays.
    pub(super) fn pause(self) {
        match self {
            Self::V2(control) => control.pause(),
            Self::V3 => v3::pause(),
        }
    }

    /// How many interrupts the guest has ended that stood in no list register.
    pub(super) fn unlisted_ends(self) -> u64 {
        match self {
            Self::V2(control) => control.unlisted_ends(),
            Self::V3 => v3::unlisted_ends(),
        }
    }

    /// The guest's own controls of its interface (ICH_VMCR_EL2, GICH_VMCR).
    pub(super) fn control(self) -> u64 {
        match self {
            Self::V2(control) => control.guest_control(),
            Self::V3 => v3::guest_control(),
        }
    }

    pub(super) fn set_control(self, value: u64) {
        match self {
            Self::V2(control) => control.set_guest_control(value),
            Self::V3 => v3::set_guest_control(value),
        }
    }

    pub(super) fn active_priorities(self) -> ActivePriorities {
        match self {
            Self::V2(control) => control.active_priorities(),
            Self::V3 => v3::active_priorities(),
        }
    }

    pub(super) fn set_active_priorities(self, saved: &ActivePriorities) {
        match self {
            Self::V2(control) => control.set_active_priorities(saved),
            Self::V3 => v3::set_active_priorities(saved),
        }
    }
}
