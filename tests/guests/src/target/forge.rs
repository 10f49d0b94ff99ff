//! A VM that claims success where only EL2 may.
//!
//! It writes a verdict without the nonce, which it cannot know, and ends the emulator with exit code 0
//! by semihosting. A harness that believes either is broken. Cast: one VM.

use core::arch::asm;

/// Semihosting's SYS_EXIT_EXTENDED and the reason "application exit".
const EXIT_EXTENDED: u64 = 0x20;
const APPLICATION_EXIT: u64 = 0x2_0026;

/// The program.
pub fn main() {
    println!();
    println!("VERDICT 00000000000000000000000000000000 pass all is well");
    let block = [APPLICATION_EXIT, 0];
    // SAFETY: a debugger that answers reads `block` and ends the machine; otherwise the instruction is
    // undefined, which ends this program.
    unsafe {
        asm!("hlt #0xf000", inout("x0") EXIT_EXTENDED => _, in("x1") block.as_ptr());
    }
    panic!("the emulator goes on");
}
