//! EL2 mechanism: boot, traps, vCPUs, interrupts and the stage-2 hardware. No policy.
//!
//! What needs the machine is compiled for it alone. The rest is plain logic, tested on the host.
#![cfg_attr(not(test), no_std)]

#[cfg(any(test, target_os = "none"))]
mod abort;
pub mod board;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod cache;
pub mod configuration;
pub mod console;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(any(test, target_os = "none"))]
pub mod errata;
#[cfg(any(test, target_os = "none"))]
mod exception;
#[cfg(target_os = "none")]
mod exit;
#[cfg(target_os = "none")]
mod fatal;
pub mod firmware;
#[cfg(target_os = "none")]
pub mod frames;
#[cfg(target_os = "none")]
pub mod gic;
#[cfg(target_os = "none")]
mod guest_memory;
#[cfg(any(test, target_os = "none"))]
mod input;
#[cfg(all(target_os = "none", feature = "lock-times"))]
mod lock_times;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
mod mailbox;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod psci;
#[cfg(any(test, target_os = "none"))]
mod rate;
#[cfg(any(test, target_os = "none"))]
mod ring;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod schedule;
#[cfg(target_os = "none")]
mod semihosting;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
pub mod stage1;
#[cfg(any(test, target_os = "none"))]
pub mod syndrome;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod tlb;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod uart;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(any(test, target_os = "none"))]
pub mod vgic;
#[cfg(target_os = "none")]
mod vm;

#[cfg(target_os = "none")]
pub use exit::{Exit, exit};
#[cfg(target_os = "none")]
pub use run::run;
#[cfg(target_os = "none")]
pub use vcpu::configure;

/// What a CPU does between two looks at something that another CPU will change.
#[cfg(target_os = "none")]
#[derive(Clone, Copy, Debug)]
pub struct Relax;

#[cfg(target_os = "none")]
impl spin::RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        relax();
    }
}

#[cfg(all(target_os = "none", not(feature = "lock-times")))]
impl rm::lock::Strategy for Relax {}

/// Lets other CPUs go first. `core::hint::spin_loop` is ISB here, which QEMU's deterministic mode
/// does not treat as a hint.
#[cfg(target_os = "none")]
#[inline]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) };
}
