//! The direct call by `hvc`, for programs at EL1.
//!
//! Buffers are named by the addresses that the caller's own translation gives them. With the MMU on
//! they are best mapped write-back; otherwise EL2 maintains the caches around its accesses.
#![expect(
    unsafe_code,
    reason = "the trap itself is one line of assembly; the crate denies it elsewhere"
)]

use core::arch::asm;

use rm_abi::hypercall;

use crate::transport::{Direct, DirectCall, DirectResult, Trap};

/// The direct call with its number in the instruction.
pub type Hvc = Direct<Native>;

/// The direct call with its number in W0, as SMCCC has it.
pub type Smccc = Direct<SmcccTrap>;

/// Traps by `hvc #0x61f0`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Trap for Native {
    fn trap(&mut self, call: &DirectCall) -> DirectResult {
        let (error, length, token);
        // SAFETY: EL2 reads and writes only the two buffers of `call`, which `Direct` lends to it,
        // and the registers declared here: the native form may change X0 to X17.
        unsafe {
            asm!(
                "hvc {number}",
                number = const hypercall::native(hypercall::DIRECT_CALL),
                inout("x0") call.request() => error,
                inout("x1") call.length() => length,
                inout("x2") call.reply() => token,
                inout("x3") call.capacity() => _,
                inout("x4") call.token() => _,
                out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
                out("x16") _, out("x17") _,
                options(nostack),
            );
        }
        DirectResult { error, length, token }
    }
}

/// Traps by `hvc #0` with a function id.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmcccTrap;

impl Trap for SmcccTrap {
    fn trap(&mut self, call: &DirectCall) -> DirectResult {
        let (error, length, token);
        // SAFETY: EL2 reads and writes only the two buffers of `call`, which `Direct` lends to it,
        // and the registers declared here: SMCCC 1.1 preserves all but results.
        unsafe {
            asm!(
                "hvc #0",
                inout("x0") u64::from(hypercall::smccc(hypercall::DIRECT_CALL)) => error,
                inout("x1") call.request() => length,
                inout("x2") call.length() => token,
                inout("x3") call.reply() => _,
                in("x4") call.capacity(),
                in("x5") call.token(),
                options(nostack),
            );
        }
        DirectResult { error, length, token }
    }
}
