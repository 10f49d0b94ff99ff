//! The scenarios of a VM's message queues and doorbells.

use guests::layout::VMID_A;

use super::{Guest, Scenario, guest};

/// All of them.
pub const ALL: &[Scenario] = &[REGISTERS];

const REGISTERS: Scenario = Scenario {
    name: "mailbox-registers",
    about: "every call on message queues, in every form, changes its results and nothing else",
    guests: &[Guest { program: "mailbox_registers", vm: guest("A", VMID_A) }],
    log: &["each call wrote its results"],
    ..Scenario::USUAL
};
