//! Policy of a memory-sharing resource manager: who owns, lends, borrows and maps which page.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod lock;
pub mod machine;
