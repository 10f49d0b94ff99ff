//! The vCPU itself: its number, its counter, waiting.

use core::arch::asm;

/// Reads a system register, by name or as `S3_..`.
#[macro_export]
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a register changes no memory; a trap is the hypervisor's business.
        unsafe { core::arch::asm!(concat!("mrs {value}, ", $name), value = out(reg) value) };
        value
    }};
}

/// Writes a system register, by name or as `S3_..`.
#[macro_export]
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers that programs write change nothing that Rust code relies on.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {value}"), value = in(reg) value) };
    }};
}

/// Number of this vCPU in its VM.
pub fn index() -> usize {
    (read_register!("mpidr_el1") & 0xff) as usize
}

/// Syndrome of the last exception.
pub fn esr() -> u64 {
    read_register!("esr_el1")
}

/// Address of the last abort.
pub fn far() -> u64 {
    read_register!("far_el1")
}

/// Nothing before moves behind this, and nothing behind before.
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb") };
}

/// The virtual counter, read in order.
pub fn now() -> u64 {
    isb();
    read_register!("cntvct_el0")
}

/// Ticks of the counter in a second.
pub fn frequency() -> u64 {
    read_register!("cntfrq_el0")
}

/// Whether `ticks` have passed since `start`.
pub fn passed(start: u64, ticks: u64) -> bool {
    now().wrapping_sub(start) >= ticks
}

/// Waits a moment, in a loop that waits for somebody else: the hypervisor may give the CPU to that
/// somebody. The event stream of [`start`](crate::start) ends the wait at the latest.
pub fn relax() {
    wait_for_event();
}

/// Waits for an interrupt, taken or pending.
pub fn wait_for_interrupt() {
    // SAFETY: a hint; the barrier lets writes reach whoever is to wake this vCPU.
    unsafe { asm!("dsb sy", "wfi") };
}

/// Waits for an event.
pub fn wait_for_event() {
    // SAFETY: a hint.
    unsafe { asm!("wfe") };
}

/// Lets interrupts through to this vCPU.
pub fn unmask_interrupts() {
    // SAFETY: the vectors save what the handler changes.
    unsafe { asm!("msr daifclr, #2") };
}

/// Keeps interrupts from this vCPU.
pub fn mask_interrupts() {
    // SAFETY: changes the processor state alone.
    unsafe { asm!("msr daifset, #2") };
}

/// Rests this vCPU for good: PSCI CPU_OFF. Returns only where that is refused.
pub fn park() {
    const CPU_OFF: u64 = 0x8400_0002;
    crate::raw::hvc([CPU_OFF, 0, 0, 0, 0, 0]);
}
