//! EL2 mechanism: boot, traps, vCPUs, interrupts and the stage-2 hardware. No policy.
#![no_std]

pub mod board;
pub mod boot;
pub mod cache;
pub mod cpu;
pub mod errata;
mod exit;
mod fatal;
pub mod frames;
pub mod log;
mod psci;
mod semihosting;
mod smp;
pub mod stage1;
pub mod syndrome;
mod uart;

pub use exit::{Exit, exit};

/// What a CPU does between two looks at something that another CPU will change.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        relax();
    }
}

/// Lets other CPUs go first. `core::hint::spin_loop` is ISB here, which QEMU's deterministic mode
/// does not treat as a hint.
#[inline]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) };
}
