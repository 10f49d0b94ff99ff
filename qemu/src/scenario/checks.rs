//! The scenarios of `cargo test`, one QEMU each.
use super::Scenario;

/// All of them.
pub const ALL: &[Scenario] = &[];
