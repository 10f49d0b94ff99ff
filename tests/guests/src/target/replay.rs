//! The captured exchanges, replayed on the running system by the VMs themselves.
//!
//! Cast: the primary (VMID 3) with as much of the original's memory as the exchanges are about, and
//! the two secondaries, each linked to the primary. The primary reads the text and compares; the
//! secondaries do what it tells them, one deed at a time.

mod conductor;
mod deed;
mod registers;
mod servant;

pub use conductor::main as primary;

use crate::layout::{LINK_AB, LINK_AC};

/// The program of the first secondary.
pub fn secondary() {
    servant::serve(LINK_AB);
}

/// The program of the second secondary.
pub fn secondary2() {
    servant::serve(LINK_AC);
}
