//! The virtual timer.

use crate::cpu;

/// Its interrupt.
pub const INTERRUPT: u32 = 27;

const ENABLE: u64 = 1;

/// Asks for an interrupt in `ticks` ticks of the counter.
pub fn after(ticks: u64) {
    crate::write_register!("cntv_tval_el0", ticks);
    crate::write_register!("cntv_ctl_el0", ENABLE);
    cpu::isb();
}

/// Asks for none, and takes a pending one back.
pub fn stop() {
    crate::write_register!("cntv_ctl_el0", 0);
    cpu::isb();
}

/// Ticks in `microseconds`.
pub fn microseconds(microseconds: u64) -> u64 {
    cpu::frequency() * microseconds / 1_000_000
}
