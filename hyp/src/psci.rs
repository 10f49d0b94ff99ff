//! Firmware's power control. EL2 reaches it by SMC; an HVC from EL2 would come back to EL2.

use rm::address::Pa;
use smccc::{Smc, psci};

/// Starts a CPU at a physical address, at EL2 with the MMU off; `context` arrives in its X0.
pub(crate) fn cpu_on(affinity: u64, entry: Pa, context: usize) -> Result<(), psci::Error> {
    psci::cpu_on::<Smc>(affinity, entry.0, context as u64)
}

/// Switches the machine off.
pub(crate) fn system_off() -> ! {
    // What firmware answers does not matter: there is nothing else to do.
    let _ = psci::system_off::<Smc>();
    loop {
        aarch64_cpu::asm::wfe();
    }
}
