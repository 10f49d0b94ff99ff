//! The benchmark: one VM on one CPU whose clock counts instructions.
use super::{Machine, Scenario};

/// What `cargo bench` runs.
pub const BENCH: Scenario = Scenario {
    name: "bench",
    about: "counts the instructions of calls and whole share cycles",
    machine: Machine::BENCH,
    ..Scenario::USUAL
};
