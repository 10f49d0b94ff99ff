//! The project's own tool: finds or installs what a build needs, builds image and guests, runs them
//! under QEMU, decodes their log and judges the run.
//!
//! ```text
//! doctor    compiler target and QEMU: found or installed
//! build     cargo, for the target           elf      program -> raw bytes
//! scenario  which VMs, which machine        image    hypervisor + package
//! sources   the programs that a manifest names
//! machine   what QEMU is asked to model
//! firmware  the device tree that EL2 finds
//! launch    one QEMU process: never left behind, never waited for without end
//! log       defmt frames -> lines           print    lines -> terminal
//! serial    a board's UART              monitor  its bytes -> lines
//! verdict   was that a pass?                symbols  addresses -> functions
//! typing    what is typed at the machine   keyboard  the user's, key by key
//! peers     what other hypervisors cost
//! mutation  mistakes for the tests of `rm` to find
//! map       who has which memory: records -> tables, picture
//! verb      what a user types: one file each
//! ```
//!
//! The scenarios of `cargo test`, the demo and the benchmark are [`scenario::Scenario`] tables and go
//! through the same path, so whatever a test sees can be watched with `cargo run -- run <name>`.

pub mod build;
pub mod doctor;
pub mod elf;
pub mod firmware;
pub mod image;
pub mod keyboard;
pub mod launch;
pub mod log;
pub mod machine;
pub mod map;
pub mod monitor;
pub mod mutation;
pub mod peers;
pub mod print;
pub mod scenario;
pub mod serial;
pub mod sources;
pub mod symbols;
pub mod typing;
pub mod verb;
pub mod verdict;
