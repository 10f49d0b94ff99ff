//! The scenarios of a VM's message queues and doorbells.

use guests::layout::{LINK_AB, VMID_A, VMID_B};
use package::Vm;

use super::{Guest, Machine, Scenario, guest, link};

/// All of them.
pub const ALL: &[Scenario] = &[REGISTERS, BUFFERS, INTERRUPTS, DOORBELLS, DOORBELLS_SMP];

const REGISTERS: Scenario = Scenario {
    name: "mailbox-registers",
    about: "every call on message queues, in every form, changes its results and nothing else",
    guests: &[Guest { program: "mailbox_registers", vm: guest("A", VMID_A) }],
    log: &["each call wrote its results"],
    ..Scenario::USUAL
};

const BUFFERS: Scenario = Scenario {
    name: "mailbox-buffers",
    about: "message buffers straddle pages, are not the VM's, may not be written, change meanwhile",
    guests: &[Guest {
        program: "mailbox_buffers",
        vm: Vm { vcpus: 2, cpus: [0, 1], ..guest("A", VMID_A) },
    }],
    log: &["a buffer that changed was read once"],
    ..Scenario::USUAL
};

const DOORBELLS: Scenario = Scenario {
    name: "doorbells",
    about: "two VMs on one CPU ring each other awake",
    guests: &[
        Guest { program: "doorbells", vm: guest("A", VMID_A) },
        Guest { program: "doorbells", vm: guest("B", VMID_B) },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["rounds of ping and pong", "rounds of ping and pong"],
    ..Scenario::USUAL
};

const DOORBELLS_SMP: Scenario = Scenario {
    name: "doorbells-smp",
    about: "two VMs on two CPUs ring each other awake",
    guests: &[
        Guest { program: "doorbells", vm: guest("A", VMID_A) },
        Guest { program: "doorbells", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    ..DOORBELLS
};

const INTERRUPTS: Scenario = Scenario {
    name: "mailbox-interrupts",
    about: "message queues interrupt once for each edge, and wake whoever sleeps on them",
    guests: &[
        Guest { program: "mailbox_interrupts", vm: guest("A", VMID_A) },
        Guest { program: "mailbox_waker", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["a client that sleeps on 0", "notices of a VM on another CPU woke me"],
    machine: Machine { cpus: 2, ..Machine::BENCH },
    ..Scenario::USUAL
};
