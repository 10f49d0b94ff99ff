//! Scenarios on the image that ships: `tests/qemu.rs` runs every table of `qemu::scenario` as a test.
//!
//! `guests/` holds the programs that the VMs run, `el2/` programs that take the hypervisor's place.
