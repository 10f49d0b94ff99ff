//! The demo: three VMs on two CPUs share, lend and take back memory.
//!
//! A owns the pages, B borrows them, and C tries to get at them without being asked. A and B tell each
//! other by notices, asleep until their message queues interrupt. A and C take turns on CPU 0, so the
//! story also crosses CPUs and time slices.

use guests::layout::{LINK_AB, LINK_AC, VMID_A, VMID_B, VMID_C};
use package::Vm;

use super::{Guest, Scenario, guest, link};

/// What `cargo run` boots.
pub const DEMO: Scenario = Scenario {
    name: "demo",
    about: "three VMs share, lend and take back memory",
    guests: &[
        Guest { program: "demo_a", vm: guest("A", VMID_A) },
        Guest { program: "demo_b", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
        Guest { program: "demo_c", vm: guest("C", VMID_C) },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    log: &["a message interrupts me", "all my pages are home", "conservation holds"],
    ..Scenario::USUAL
};
