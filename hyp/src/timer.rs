//! The EL2 physical timer: ends of time slices, and moments at which a sleeping guest is due.

use crate::vcpu::context::{mrs, msr};

/// CNTHP_CTL_EL2.ENABLE.
const ENABLE: u64 = 1;

/// Ticks since the machine started.
pub(crate) fn now() -> u64 {
    mrs!("cntpct_el0")
}

/// Ticks a second.
pub(crate) fn frequency() -> u64 {
    mrs!("cntfrq_el0")
}

/// Asks for an interrupt when the counter reaches `at`, in place of what was asked before.
pub(crate) fn arm(at: u64) {
    msr!("cnthp_cval_el2", at);
    msr!("cnthp_ctl_el2", ENABLE);
}

/// Asks for no interrupt.
pub(crate) fn disarm() {
    msr!("cnthp_ctl_el2", 0);
}
