//! The benchmark: two VMs take turns on one CPU whose clock counts instructions.

use guests::layout::{BENCH_MEMORY, LINK_AB, VMID_A, VMID_B};
use package::Vm;

use super::{Guest, Machine, Scenario, guest, link};

/// What `cargo bench` runs.
pub const BENCH: Scenario = Scenario {
    name: "bench",
    about: "counts the instructions of calls and of whole share cycles",
    guests: &[
        Guest { program: "bench_a", vm: Vm { memory: BENCH_MEMORY, ..guest("A", VMID_A) } },
        Guest { program: "bench_b", vm: Vm { memory: BENCH_MEMORY, ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    machine: Machine::BENCH,
    seconds: 600,
    ..Scenario::USUAL
};
