//! SMC from a guest: it never reaches the firmware.

use crate::trap::{Next, hypercall};
use crate::vcpu::context::Registers;
use crate::vcpu::{Vcpu, inject};

/// SMCCC and PSCI calls by SMC are those by HVC; any other immediate is unknown.
pub(crate) fn call(vcpu: Vcpu, registers: &mut Registers, immediate: u16) -> Next {
    // Unlike HVC, a trapped SMC has not been executed yet (DDI 0487 L.b, HCR_EL2.TSC).
    inject::skip_instruction();
    match immediate {
        0 => hypercall::smccc(vcpu, registers),
        _ => hypercall::unknown(registers),
    }
}
