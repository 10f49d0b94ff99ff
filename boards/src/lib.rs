//! Boards: addresses and their sources, one constant each.
#![no_std]

mod qemu_virt;

pub use qemu_virt::QEMU_VIRT;
