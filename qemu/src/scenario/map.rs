//! What `cargo run -- map` draws: three VMs that share, lend and donate, and one that looks at them.

use guests::layout::{LINK_AB, LINK_AC, LINK_AD, VMID_A, VMID_B, VMID_C, VMID_D};
use package::{Roles, Vm};

use super::{Guest, Scenario, guest, link};

/// The scenario.
pub const MAP: Scenario = Scenario {
    name: "map",
    about: "three VMs share, lend and donate memory; a fourth sees all of it (`map` draws it)",
    guests: &[
        Guest { program: "map_party", vm: guest("camera", VMID_A) },
        Guest { program: "map_party", vm: Vm { cpus: [1, 0], ..guest("display", VMID_B) } },
        Guest { program: "map_party", vm: guest("analysis", VMID_C) },
        Guest {
            program: "inspector",
            vm: Vm { cpus: [1, 0], roles: Roles::INSPECT, ..guest("inspector", VMID_D) },
        },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC), link(0, 3, LINK_AD)],
    log: &[
        "MAP end",
        "I was looked at",
        "I was looked at",
        "I was looked at",
        "conservation holds",
    ],
    ..Scenario::USUAL
};
