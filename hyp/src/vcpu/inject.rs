//! Exceptions that EL2 makes a guest take at EL1, by hand on the loaded registers of the guest.

use super::context::{mrs, msr};
use crate::exception::{self, Cause};

/// Makes the loaded guest take `cause` when it is entered next. Its instruction is not skipped.
pub(crate) fn inject(cause: Cause) {
    let pstate = mrs!("spsr_el2");
    let sctlr = mrs!("sctlr_el1");
    msr!("elr_el1", mrs!("elr_el2"));
    msr!("spsr_el1", pstate);
    msr!("esr_el1", exception::syndrome(cause, exception::is_el1(pstate)));
    if let Cause::DataAbort(at) | Cause::InstructionAbort(at) = cause {
        msr!("far_el1", at);
    }
    msr!("spsr_el2", exception::entry_state(pstate, sctlr));
    msr!("elr_el2", mrs!("vbar_el1") + exception::vector(pstate));
}

/// Moves the guest past the 32-bit instruction that trapped.
pub(crate) fn skip_instruction() {
    msr!("elr_el2", mrs!("elr_el2").wrapping_add(4));
}
