//! The programs that the demo and the scenarios run as VMs, and the runtime under them.
//!
//! A program is one function in a module here and a file in `bin/` that names it. The runtime gives it
//! a stack, zeroed memory, its MMU and a console; `probe` lets it try what it is not allowed to do;
//! `channel` lets it talk to its peers. A program that sees something wrong panics, which ends its VM
//! with a failure, and with that the run.
//!
//! On the host there are only [`layout`], the numbers that the boot configuration and the programs must
//! agree on, and [`questions`], in which tests look whether a call was forgotten.
#![cfg_attr(target_os = "none", no_std)]

pub mod layout;
pub mod questions;

#[cfg(target_os = "none")]
mod target;
#[cfg(target_os = "none")]
pub use target::*;

/// Makes a binary of a program: `program!(first)` for one vCPU, `program!(first, second)` for two.
/// On the host the binary does nothing, so that everything builds there too.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! program {
    ($first:path) => {
        $crate::program!($first, $crate::cpu::park);
    };
    ($first:path, $second:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(vcpu: u64) -> ! {
            $crate::start::run(vcpu, $first, $second)
        }
    };
}

/// Makes a binary of a program: on the host one that does nothing.
#[cfg(not(target_os = "none"))]
#[macro_export]
macro_rules! program {
    ($($function:path),*) => {
        fn main() {}
    };
}
