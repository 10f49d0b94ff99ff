//! Programs that run inside EL2, in place of a board's main function.
//!
//! Some look at EL2 itself. Others build a resource manager over the real hardware and compare what
//! the hardware does with what the manager believes, which the host's tests cannot: there both sides
//! are ours.
//!
//! [`world`] is the manager with three VMs, [`calls`] the calls they make, [`view`] the hardware's
//! translation of an address, [`guest`] a guest of a few instructions.
#![no_std]

pub mod calls;
pub mod guest;
pub mod random;
pub mod tables;
pub mod view;
pub mod world;
