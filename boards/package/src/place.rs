//! What a boot configuration names beside the VMs: memory between them, devices, heaps.

use crate::vm::Name;

/// Pages that two VMs share read-write from boot on, as a parcel of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Index of the VM whose memory it is.
    pub owner: u16,
    /// Index of the VM that borrows it.
    pub peer: u16,
    /// Label of the parcel.
    pub label: u32,
    /// Where it lies in the owner's memory, page aligned.
    pub owner_ipa: u64,
    /// Where the peer finds it, page aligned and outside of the peer's memory.
    pub peer_ipa: u64,
    /// Length in pages.
    pub pages: u64,
}

/// Registers of a device that a VM drives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Index of the VM.
    pub vm: u16,
    /// Machine address of the registers, page aligned.
    pub pa: u64,
    /// Where the VM finds them, page aligned.
    pub ipa: u64,
    /// Length in pages.
    pub pages: u32,
}

/// An interrupt of a device that a VM drives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Index of the VM.
    pub vm: u16,
    /// INTID at the machine's interrupt controller: a shared one.
    pub physical: u32,
    /// INTID as the VM sees it ([`crate::DEVICE_INTERRUPTS`]).
    pub virtual_: u32,
    /// Whether the device signals by an edge rather than by a level.
    pub edge: bool,
}

/// Memory that is set aside for VMs to allocate from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Its name, unlike any other heap's.
    pub name: Name,
    /// Bytes, a multiple of [`crate::MEMORY_GRANULE`].
    pub size: u64,
    /// Bytes of it that each VM can have whatever the others do, a multiple of 4096.
    pub guaranteed: u64,
    /// The most bytes of it that each VM may have, a multiple of 4096.
    pub limit: u64,
    /// Which VMs may use it, a bit for each index.
    pub vms: u32,
}
