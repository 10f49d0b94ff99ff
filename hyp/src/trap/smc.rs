//! SMC from a guest: it never reaches the firmware.

use crate::trap::{Next, hypercall};
use crate::vcpu::context::Registers;
use crate::vcpu::inject;

/// SMCCC and PSCI calls by SMC are those by HVC; any other immediate is unknown.
pub(crate) fn call(registers: &mut Registers, immediate: u16) -> Next {
    // Unlike HVC, a trapped SMC has not been executed yet (DDI 0487 L.b, HCR_EL2.TSC).
    inject::skip_instruction();
    match immediate {
        0 => hypercall::smccc(registers),
        _ => hypercall::unknown(registers),
    }
}
