//! The keyboard: bytes that come in on EL2's UART, for the one VM that has it.
//!
//! At the start that is the first VM. Ctrl-A and another key are for EL2 itself, so that any terminal
//! program will do; EL2 says on a line of the log what came of it. One entry reads at most
//! [`BYTES_PER_ENTRY`](keyboard::BYTES_PER_ENTRY) bytes, so a sender that never stops takes no more time
//! from the VMs than that at each tick of left-over work.

mod escape;
#[cfg(target_os = "none")]
mod keyboard;

#[cfg(target_os = "none")]
pub(crate) use keyboard::receive;
