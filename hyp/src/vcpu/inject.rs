//! Exceptions that EL2 makes a guest take at EL1.
//!
//! What the CPU does on an exception entry (DDI 0487 L.b, AArch64.TakeException) is done here by hand
//! on the loaded registers of the guest.

use super::context::{mrs, msr};

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

/// Makes the loaded guest take `cause` when it is entered next. Its instruction is not skipped.
pub(crate) fn inject(cause: Cause) {
    let pstate = mrs!("spsr_el2");
    let sctlr = mrs!("sctlr_el1");
    let same_level = pstate & 0b1_1100 == 0b0_0100;
    msr!("elr_el1", mrs!("elr_el2"));
    msr!("spsr_el1", pstate);
    msr!("esr_el1", syndrome(cause, same_level));
    if let Cause::DataAbort(at) | Cause::InstructionAbort(at) = cause {
        msr!("far_el1", at);
    }
    msr!("spsr_el2", entry_state(pstate, sctlr));
    msr!("elr_el2", mrs!("vbar_el1") + vector(pstate));
}

fn syndrome(cause: Cause, same_level: bool) -> u64 {
    let (class, status) = match cause {
        Cause::DataAbort(_) => (0x24 + u64::from(same_level), EXTERNAL),
        Cause::InstructionAbort(_) => (0x20 + u64::from(same_level), EXTERNAL),
        Cause::Undefined => (0, 0),
    };
    class << 26 | IL | status
}

/// Offset of the synchronous vector for an exception from `pstate`.
fn vector(pstate: u64) -> u64 {
    match pstate & 0x1F {
        0b0_0100 => 0x000,
        0b0_0101 => 0x200,
        from if from & 0x10 == 0 => 0x400,
        _ => 0x600,
    }
}

fn entry_state(pstate: u64, sctlr: u64) -> u64 {
    let mut state = pstate & KEPT | ENTRY;
    if sctlr & SPAN == 0 {
        state |= PAN;
    }
    if sctlr & DSSBS != 0 {
        state |= SSBS;
    }
    state
}

/// Moves the guest past the 32-bit instruction that trapped.
pub(crate) fn skip_instruction() {
    msr!("elr_el2", mrs!("elr_el2").wrapping_add(4));
}
