//! A manifest for people: what would be built, as tables and as a picture of the memory.

mod picture;
mod tables;

use crate::Manifest;

impl Manifest {
    /// What would be built: VMs, devices, interrupts, channels, heaps and sizes.
    pub fn tables(&self) -> String {
        tables::all(self)
    }

    /// The machine's addresses, and those of each VM.
    pub fn picture(&self) -> String {
        picture::all(self)
    }
}
