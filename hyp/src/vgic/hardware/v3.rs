//! The virtual interface control registers of a GICv3, in the system (IHI 0069H, 12.4).

use aarch64_cpu::registers::*;

use super::ActivePriorities;
use crate::vgic::lists::MAX_LISTS;

pub(super) fn list_count() -> usize {
    ICH_VTR_EL2.read(ICH_VTR_EL2::ListRegs) as usize + 1
}

pub(super) fn write_lists(values: &[u64], count_ends: bool) {
    for (n, &value) in values.iter().enumerate() {
        write_list(n, value);
    }
    ICH_HCR_EL2.write(ICH_HCR_EL2::En::SET + ICH_HCR_EL2::LRENPIE.val(count_ends.into()));
}

pub(super) fn disable() {
    ICH_HCR_EL2.set(0);
}

pub(super) fn pause() {
    ICH_HCR_EL2.modify(ICH_HCR_EL2::En::CLEAR);
}

pub(super) fn unlisted_ends() -> u64 {
    ICH_HCR_EL2.read(ICH_HCR_EL2::EOIcount)
}

pub(super) fn guest_control() -> u64 {
    ICH_VMCR_EL2.get()
}

pub(super) fn set_guest_control(value: u64) {
    ICH_VMCR_EL2.set(value);
}

/// Registers of active priorities per group: 5 bits of preemption take one, 6 two, 7 four.
fn priority_registers() -> usize {
    1 << ICH_VTR_EL2.read(ICH_VTR_EL2::PREbits).saturating_sub(4).min(2)
}

pub(super) fn active_priorities() -> ActivePriorities {
    let mut saved = ActivePriorities::default();
    for n in 0..priority_registers() {
        (saved.group0[n], saved.group1[n]) = match n {
            0 => (ICH_AP0R0_EL2.get(), ICH_AP1R0_EL2.get()),
            1 => (ICH_AP0R1_EL2.get(), ICH_AP1R1_EL2.get()),
            2 => (ICH_AP0R2_EL2.get(), ICH_AP1R2_EL2.get()),
            _ => (ICH_AP0R3_EL2.get(), ICH_AP1R3_EL2.get()),
        };
    }
    saved
}

pub(super) fn set_active_priorities(saved: &ActivePriorities) {
    for n in 0..priority_registers() {
        let (group0, group1) = (saved.group0[n], saved.group1[n]);
        match n {
            0 => (ICH_AP0R0_EL2.set(group0), ICH_AP1R0_EL2.set(group1)),
            1 => (ICH_AP0R1_EL2.set(group0), ICH_AP1R1_EL2.set(group1)),
            2 => (ICH_AP0R2_EL2.set(group0), ICH_AP1R2_EL2.set(group1)),
            _ => (ICH_AP0R3_EL2.set(group0), ICH_AP1R3_EL2.set(group1)),
        };
    }
}

macro_rules! list_registers {
    ($($n:literal $register:ident)+) => {
        pub(super) fn read_list(n: usize) -> u64 {
            match n {
                $($n => $register.get(),)+
                _ => unreachable!("the architecture has {MAX_LISTS} list registers"),
            }
        }

        fn write_list(n: usize, value: u64) {
            match n {
                $($n => $register.set(value),)+
                _ => unreachable!("the architecture has {MAX_LISTS} list registers"),
            }
        }
    };
}

list_registers! {
    0 ICH_LR0_EL2 1 ICH_LR1_EL2 2 ICH_LR2_EL2 3 ICH_LR3_EL2
    4 ICH_LR4_EL2 5 ICH_LR5_EL2 6 ICH_LR6_EL2 7 ICH_LR7_EL2
    8 ICH_LR8_EL2 9 ICH_LR9_EL2 10 ICH_LR10_EL2 11 ICH_LR11_EL2
    12 ICH_LR12_EL2 13 ICH_LR13_EL2 14 ICH_LR14_EL2 15 ICH_LR15_EL2
}
