//! Policy of a memory-sharing resource manager: who owns, lends, borrows and maps which page.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod address;
pub mod frame_pool;
pub mod lock;
pub mod machine;
pub mod operation;
pub mod stage2;
