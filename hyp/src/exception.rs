//! What a CPU does when it takes an exception to EL1, computed (DDI 0487 L.b, AArch64.TakeException).

/// The causes that EL2 injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A synchronous external abort of a load or store at this virtual address.
    DataAbort(u64),
    /// A synchronous external abort of an instruction fetch from this virtual address.
    InstructionAbort(u64),
    /// An instruction that does not exist for the guest.
    Undefined,
}

/// DFSC and IFSC of a synchronous external abort that is not on a table walk.
const EXTERNAL: u64 = 0x10;
/// ESR_ELx.IL: the instruction has 32 bits.
const IL: u64 = 1 << 25;
/// SCTLR_EL1.SPAN: an exception leaves PSTATE.PAN alone. RES1 where FEAT_PAN is missing.
const SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: PSTATE.SSBS at an exception entry. RES0 where FEAT_SSBS is missing.
const DSSBS: u64 = 1 << 44;

/// Bits of a saved PSTATE that an exception entry keeps: NZCV, DIT and PAN.
const KEPT: u64 = 0xF << 28 | 1 << 24 | PAN;
const PAN: u64 = 1 << 22;
const SSBS: u64 = 1 << 12;
/// DAIF set, EL1 with SP_EL1.
const ENTRY: u64 = 0x3C5;

/// ESR_EL1 of the exception. `same_level`: it comes from EL1 itself.
pub(crate) fn syndrome(cause: Cause, same_level: bool) -> u64 {
    let (class, status) = match cause {
        Cause::DataAbort(_) => (0x24 + u64::from(same_level), EXTERNAL),
        Cause::InstructionAbort(_) => (0x20 + u64::from(same_level), EXTERNAL),
        Cause::Undefined => (0, 0),
    };
    class << 26 | IL | status
}

/// Whether a PSTATE is one of EL1.
pub(crate) const fn is_el1(pstate: u64) -> bool {
    pstate & 0b1_1100 == 0b0_0100
}

/// Offset of the synchronous vector for an exception from `pstate`.
pub(crate) fn vector(pstate: u64) -> u64 {
    match pstate & 0x1F {
        0b0_0100 => 0x000,
        0b0_0101 => 0x200,
        from if from & 0x10 == 0 => 0x400,
        _ => 0x600,
    }
}

/// PSTATE in which the handler starts.
pub(crate) fn entry_state(pstate: u64, sctlr: u64) -> u64 {
    let mut state = pstate & KEPT | ENTRY;
    if sctlr & SPAN == 0 {
        state |= PAN;
    }
    if sctlr & DSSBS != 0 {
        state |= SSBS;
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const EL1H: u64 = 0x3C5;
    const EL1T: u64 = 0x3C4;
    const EL0: u64 = 0x3C0;
    const EL0_AARCH32: u64 = 0x1D0;

    #[test]
    fn a_forbidden_access_looks_like_an_external_abort() {
        assert_eq!(syndrome(Cause::DataAbort(0x1000), true), 0x9600_0010);
        assert_eq!(syndrome(Cause::DataAbort(0x1000), false), 0x9200_0010);
        assert_eq!(syndrome(Cause::InstructionAbort(0x1000), true), 0x8600_0010);
        assert_eq!(syndrome(Cause::InstructionAbort(0x1000), false), 0x8200_0010);
        assert_eq!(syndrome(Cause::Undefined, true), 0x0200_0000);
    }

    #[test]
    fn the_vector_depends_on_where_the_guest_was() {
        let offsets = [EL1T, EL1H, EL0, EL0_AARCH32].map(vector);
        assert_eq!(offsets, [0x000, 0x200, 0x400, 0x600]);
        assert_eq!([EL1T, EL1H, EL0].map(is_el1), [true, true, false]);
    }

    #[test]
    fn the_handler_starts_masked_at_el1_with_the_flags_kept() {
        let carry = 1 << 29;
        let single_step = 1 << 21;
        let state = entry_state(EL0 & !0x3C0 | carry | single_step, SPAN);
        assert_eq!(state, EL1H | carry);
    }

    #[test]
    fn privileged_access_never_is_set_as_the_guest_asked() {
        assert_eq!(entry_state(EL0, 0) & PAN, PAN);
        assert_eq!(entry_state(EL0, SPAN) & PAN, 0);
        assert_eq!(entry_state(EL0 | PAN, SPAN) & PAN, PAN);
        assert_eq!(entry_state(EL0, SPAN | DSSBS) & SSBS, SSBS);
    }
}
