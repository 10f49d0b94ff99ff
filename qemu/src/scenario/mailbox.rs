//! The scenarios of a VM's message queues and doorbells.

use guests::layout::VMID_A;
use package::Vm;

use super::{Guest, Scenario, guest};

/// All of them.
pub const ALL: &[Scenario] = &[REGISTERS, BUFFERS];

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
