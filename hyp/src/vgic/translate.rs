//! List registers of a GICv2 (`GICH_LR<n>`, IHI 0048B, 5.3.8) from and to those of a GICv3
//! (`ICH_LR<n>_EL2`, IHI 0069H, 12.4.13).

use aarch64_cpu::registers::ICH_LR0_EL2 as List;
use tock_registers::LocalRegisterCopy;

type Register = LocalRegisterCopy<u64, List::Register>;

const INTID: u32 = 0x3ff;
const HARDWARE: u32 = 1 << 31;
const GROUP_1: u32 = 1 << 30;
const REPORT_END: u32 = 1 << 19;

/// The GICv2's register that says what the GICv3's says.
pub(super) fn to_v2(value: u64) -> u32 {
    let register = Register::new(value);
    let field = |value: u64, shift: u32| (value as u32) << shift;
    let mut v2 = field(register.read(List::vINTID), 0) & INTID
        | field(register.read(List::Priority) >> 3, 23)
        | field(register.read(List::State), 28);
    if register.is_set(List::Group) {
        v2 |= GROUP_1;
    }
    if register.is_set(List::HW) {
        v2 |= HARDWARE | field(register.read(List::pINTID), 10) & INTID << 10;
    } else if register.is_set(List::EOI) {
        v2 |= REPORT_END;
    }
    v2
}

/// The GICv3's register that says what the GICv2's says.
pub(super) fn from_v2(value: u32) -> u64 {
    let field = |shift: u32, mask: u32| u64::from(value >> shift & mask);
    let mut register = Register::new(0);
    register.modify(
        List::vINTID.val(field(0, INTID))
            + List::Priority.val(field(23, 0x1f) << 3)
            + List::State.val(field(28, 0b11)),
    );
    if value & GROUP_1 != 0 {
        register.modify(List::Group::SET);
    }
    if value & HARDWARE != 0 {
        register.modify(List::HW::SET + List::pINTID.val(field(10, INTID)));
    } else if value & REPORT_END != 0 {
        register.modify(List::EOI::SET);
    }
    register.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_interrupt_has_the_same_fields_in_both() {
        let value = 1 << 62 | 0xa0 << 48 | 33;
        assert_eq!(to_v2(value), 1 << 28 | (0xa0 >> 3) << 23 | 33);
        assert_eq!(from_v2(to_v2(value)), value);
    }

    #[test]
    fn the_physical_interrupt_and_the_report_of_an_end_share_bits() {
        let hardware = 2 << 62 | 1 << 61 | 1 << 60 | 27 << 32 | 0xa0 << 48 | 27;
        assert_eq!(
            to_v2(hardware),
            2 << 28 | 1 << 31 | 1 << 30 | (0xa0 >> 3) << 23 | 27 << 10 | 27
        );
        assert_eq!(from_v2(to_v2(hardware)), hardware);
        let reported = 1 << 62 | 1 << 41 | 40;
        assert_eq!(to_v2(reported), 1 << 28 | 1 << 19 | 40);
        assert_eq!(from_v2(to_v2(reported)), reported);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!((to_v2(0), from_v2(0)), (0, 0));
    }
}
