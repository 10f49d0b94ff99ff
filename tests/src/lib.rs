//! Scenarios on the image that ships: `tests/qemu.rs` runs every table of `qemu::scenario` as a test.
//!
//! Behind one of them [`canary`] searches the machine's memory, behind those that draw a map [`exposure`]
//! searches the VMs' tables for EL2's.
//!
//! [`machine_code`] looks at what the compiler has made of the sources, for what no scenario can show.
//!
//! [`panics`] finds where a program can panic, [`proof`] looks whether tests exist that a document names.
//!
//! `guests/` holds the programs that the VMs run, `el2/` programs that take the hypervisor's place.

pub mod canary;
pub mod exposure;
pub mod machine_code;
pub mod panics;
pub mod proof;
