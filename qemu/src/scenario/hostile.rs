//! The scenarios in which VMs do their worst.

use guests::layout::{LINK_AB, LINK_AC, VMID_A, VMID_B, VMID_C};
use package::{EndOfLife, OnFault, Roles, Vm};

use super::{Guest, Machine, Scenario, guest, link};

/// All of them.
pub const ALL: &[Scenario] = &[HOSTILE, HOSTILE_RANDOM];

const HOSTILE: Scenario = Scenario {
    name: "hostile",
    about: "VMs send every malformed call and touch what is not theirs; EL2 does not mind",
    guests: &[
        Guest { program: "hostile", vm: guest("A", VMID_A) },
        Guest { program: "hostile", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    // Semihosting would serve a guest as well: it could end the machine.
    semihosting: false,
    log: &[" malformed calls were refused, each with its code"],
    ..Scenario::USUAL
};

/// B shares its CPU with one of the vCPUs of the VM that never rests.
const HOSTILE_RANDOM: Scenario = Scenario {
    name: "hostile-random",
    about: "a VM does anything at random on two vCPUs; two others share memory and notice nothing",
    guests: &[
        Guest {
            program: "steady",
            vm: Vm { roles: Roles::INSPECT, end_of_life: EndOfLife::Reset, ..guest("A", VMID_A) },
        },
        Guest {
            program: "steady",
            vm: Vm { cpus: [1, 0], end_of_life: EndOfLife::Reset, ..guest("B", VMID_B) },
        },
        Guest {
            program: "wild",
            vm: Vm {
                vcpus: 2,
                cpus: [1, 2],
                end_of_life: EndOfLife::Reset,
                on_fault: OnFault::Inject,
                ..guest("C", VMID_C)
            },
        },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    machine: Machine { cpus: 3, ..Machine::TESTS },
    semihosting: false,
    log: &[
        "the seed is",
        "I go, with what I have",
        "C: ended with code 0",
        "the third left nothing behind",
        "conservation holds: AuditReport { owned: 6144, shared: 0, lent: 0, borrowed: 0",
    ],
    ..Scenario::USUAL
};
