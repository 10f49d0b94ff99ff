//! The scenarios of `cargo test` beside the demo, one QEMU each.

use guests::layout::{
    self, LINK_AB, LINK_AC, LINK_AD, REPLAY_MEMORY, VMID_A, VMID_B, VMID_C, VMID_D,
};
use package::{Device, EndOfLife, Heap, Interrupt, Name, OnFault, Roles, Sanitize, Vm};

use super::demo::DEMO;
use super::{Guest, Machine, Scenario, guest, link};

/// All of them.
pub const ALL: &[Scenario] = &[
    GRANT_BUFFERS,
    VECTORS,
    FORGE,
    SMP,
    STRESS,
    PREEMPT,
    INTERRUPTS,
    KICKS,
    REVOKE,
    TRIM,
    REVOKE_TWO,
    ASK,
    SECRETS,
    CANARIES,
    CACHE_POLICY,
    CACHE_POLICY_MAX,
    LIVES,
    LIVES_FEW,
    LIVES_BESIDE,
    OWNER_DIES,
    FAULT_RESTARTS,
    CLOCK,
    FP,
    REGISTERS,
    UART_ONLY,
    ON_A53,
    ON_A57,
    ON_MAX,
];

const VECTORS: Scenario = Scenario {
    name: "vectors-replay",
    about: "VMs hold the conversations captured from the original, and are told the same",
    guests: &[
        Guest {
            program: "replay_primary",
            vm: Vm { memory: REPLAY_MEMORY, ..guest("primary", 3) },
        },
        Guest { program: "replay_secondary", vm: Vm { cpus: [1, 0], ..guest("secondary", 0x80) } },
        Guest {
            program: "replay_secondary2",
            vm: Vm { cpus: [1, 0], ..guest("secondary2", 0x81) },
        },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    log: &["exchanges went as with the original"],
    ..Scenario::USUAL
};

const FORGE: Scenario = Scenario {
    name: "forge",
    about: "a VM ends QEMU with code 0 and prints a verdict; nobody believes it (always fails)",
    guests: &[Guest { program: "forge", vm: guest("A", VMID_A) }],
    ..Scenario::USUAL
};

const SMP: Scenario = Scenario {
    name: "smp",
    about: "one vCPU reads a block while the other gives away and takes back single pages of it",
    guests: &[Guest { program: "smp", vm: Vm { vcpus: 2, cpus: [0, 1], ..guest("A", VMID_A) } }],
    log: &["both vCPUs made"],
    ..Scenario::USUAL
};

/// What each VM does is in the program's seed; who comes first is the machine's.
const STRESS: Scenario = Scenario {
    name: "stress",
    about: "VMs on four CPUs share, lend, use and take back at random, while one dies and lives again",
    guests: &[
        Guest { program: "stress", vm: guest("A", VMID_A) },
        Guest {
            program: "stress",
            vm: Vm { vcpus: 2, cpus: [1, 2], end_of_life: EndOfLife::Reset, ..guest("B", VMID_B) },
        },
        Guest {
            program: "stress",
            vm: Vm { cpus: [2, 0], end_of_life: EndOfLife::Reset, ..guest("C", VMID_C) },
        },
        Guest {
            program: "stress",
            vm: Vm {
                vcpus: 2,
                cpus: [3, 0],
                end_of_life: EndOfLife::Restart,
                ..guest("D", VMID_D)
            },
        },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC), link(0, 3, LINK_AD)],
    machine: Machine { cpus: 4, ..Machine::TESTS },
    log: &["the seed is", "I die for the 1. time", "I die for the 2. time", "conservation holds"],
    ..Scenario::USUAL
};

pub(super) const PREEMPT: Scenario = Scenario {
    name: "preempt",
    about: "two VMs that never wait share one CPU",
    guests: &[
        Guest { program: "preempt", vm: guest("A", VMID_A) },
        Guest { program: "preempt", vm: guest("B", VMID_B) },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["turns beside my endless loop"],
    ..Scenario::USUAL
};

pub(super) const INTERRUPTS: Scenario = Scenario {
    name: "interrupts",
    about: "the virtual interrupt controller and timer behave as the real ones",
    guests: &[Guest { program: "interrupts", vm: guest("A", VMID_A) }],
    log: &["200 timer interrupts came"],
    ..Scenario::USUAL
};

pub(super) const KICKS: Scenario = Scenario {
    name: "kicks",
    about: "two vCPUs interrupt each other, asleep and awake",
    guests: &[Guest { program: "kicks", vm: Vm { vcpus: 2, cpus: [0, 1], ..guest("A", VMID_A) } }],
    log: &["100 interrupts went where they are routed"],
    ..Scenario::USUAL
};

pub(super) const REVOKE: Scenario = Scenario {
    name: "revoke",
    about: "an owner takes memory back from a VM that keeps writing to it on another CPU",
    guests: &[
        Guest { program: "revoke", vm: guest("A", VMID_A) },
        Guest { program: "revoke", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["as zeros, without being asked to"],
    ..Scenario::USUAL
};

const REVOKE_TWO: Scenario = Scenario {
    name: "revoke-from-two-cpus",
    about: "an owner takes memory back from a VM that writes to it on two CPUs",
    guests: &[
        Guest { program: "revoke", vm: guest("A", VMID_A) },
        Guest { program: "revoke_two", vm: Vm { vcpus: 2, cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["as zeros, without being asked to"],
    ..Scenario::USUAL
};

/// A heap of one block that only the third VM may use.
const fn for_third(name: &str) -> Heap {
    Heap { name: Name::new(name), size: 2 << 20, guaranteed: 0, limit: 2 << 20, vms: 0b100 }
}

const SECRETS: Scenario = Scenario {
    name: "secrets",
    about: "what is not a VM's business is refused as what is not there: same bytes, same time",
    guests: &[
        Guest { program: "secrets", vm: guest("A", VMID_A) },
        Guest { program: "secrets", vm: guest("B", VMID_B) },
        Guest { program: "secrets", vm: guest("C", VMID_C) },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    heaps: &[for_third("first"), for_third("second"), for_third("third")],
    // Its clock counts instructions.
    machine: Machine::BENCH,
    log: &[
        "questions with 12 handles, 7 VMs and 6 heaps",
        "answers differ by ",
        "B learned nothing of 6 parcels",
        "conservation holds",
    ],
    ..Scenario::USUAL
};

const ASK: Scenario = Scenario {
    name: "ask",
    about: "VMs ask what they are offered and who keeps what they want back; one inspects all",
    guests: &[
        Guest { program: "ask", vm: guest("A", VMID_A) },
        Guest { program: "ask", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
        Guest { program: "ask", vm: Vm { roles: Roles::INSPECT, ..guest("C", VMID_C) } },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    log: &[
        "\"camera frames\" is not mine to reclaim: VM 0x11 has all 5 pages mapped",
        "\"camera frames\" of VM 0x10: 5 pages, 1 holders",
        "VM 0x10 uses 7 of ",
        "VM 0x11 uses 6 of ",
    ],
    ..Scenario::USUAL
};

const TRIM: Scenario = Scenario {
    name: "trim",
    about: "a page leaves a block that two VMs have mapped, and both keep what is around it",
    guests: &[
        Guest { program: "trim", vm: guest("A", VMID_A) },
        Guest { program: "trim", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["and came home before the others"],
    ..Scenario::USUAL
};

/// What memory holds in the end is in a file, and `tests` searches it.
const CANARIES: Scenario = Scenario {
    name: "canaries",
    about: "pages change hands in every way, and the host searches all memory for what was in them",
    guests: &[
        Guest { program: "canary_owner", vm: guest("A", VMID_A) },
        Guest {
            program: "canary_borrower",
            vm: Vm { cpus: [1, 0], end_of_life: EndOfLife::Reset, ..guest("B", VMID_B) },
        },
        Guest {
            program: "canary_cautious",
            vm: Vm { cpus: [1, 0], sanitize: Sanitize::Always, ..guest("C", VMID_C) },
        },
    ],
    channels: &[link(0, 1, LINK_AB), link(0, 2, LINK_AC)],
    keeps_memory: true,
    log: &["I end with what I filled", "fields are mine again"],
    ..Scenario::USUAL
};

/// What is left when the second VM is dead and the first has ended: the same after any number of lives.
const LIFELESS: &str = "{ owned: 4096, shared: 0, lent: 0, borrowed: 0, heaps: 0, of_devices: 0, frames: 10, tables: 10";

/// B ends in every way, and A, which manages it, buries it and starts it again.
const LIVES: Scenario = Scenario {
    name: "lives",
    about: "a VM dies 200 times in the middle of sharing, and leaves nothing behind",
    guests: &[
        Guest { program: "lives", vm: Vm { roles: Roles::MANAGE, ..guest("A", VMID_A) } },
        Guest { program: "lives", vm: MORTAL },
    ],
    log: &["B has lived 200 times, and all is home", LIFELESS],
    ..Scenario::USUAL
};

pub(super) const LIVES_FEW: Scenario = Scenario {
    name: "lives-few",
    about: "as lives, with four of them: what is left is the same",
    guests: &[
        Guest { program: "lives_few", vm: Vm { roles: Roles::MANAGE, ..guest("A", VMID_A) } },
        Guest { program: "lives_few", vm: MORTAL },
    ],
    log: &["B has lived 4 times, and all is home", LIFELESS],
    ..Scenario::USUAL
};

const LIVES_BESIDE: Scenario = Scenario {
    name: "lives-beside-a-spinner",
    about: "a VM dies on a CPU that another one never leaves, and all is home within five time slices",
    guests: &[
        Guest { program: "lives_beside", vm: Vm { roles: Roles::MANAGE, ..guest("A", VMID_A) } },
        Guest { program: "lives_few", vm: Vm { cpus: [0, 0], ..MORTAL } },
        Guest { program: "spinner", vm: guest("C", VMID_C) },
    ],
    machine: Machine { cpus: 1, counted: true, ..Machine::TESTS },
    log: &["B has lived 4 times, and all is home", "the longest reset took", "C: was stopped"],
    ..Scenario::USUAL
};

const OWNER_DIES: Scenario = Scenario {
    name: "owner-dies",
    about: "an owner dies with what it lent, and starts again by itself; the borrower lives on",
    guests: &[
        Guest {
            program: "life_owner",
            vm: Vm { end_of_life: EndOfLife::Restart, ..guest("A", VMID_A) },
        },
        Guest { program: "life_heir", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["I die with", "starts again", "I die with", "starts again", "B gave back what I lent"],
    ..Scenario::USUAL
};

const FAULT_RESTARTS: Scenario = Scenario {
    name: "fault-restarts",
    about: "a borrower is restarted for touching what was revoked, as its configuration says",
    guests: &[
        Guest { program: "life_taker", vm: guest("A", VMID_A) },
        Guest {
            program: "life_clinging",
            vm: Vm { cpus: [1, 0], on_fault: OnFault::Restart, ..guest("B", VMID_B) },
        },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["B: stopped after a fault", "B: starts again", "I live again, and give back"],
    ..Scenario::USUAL
};

const MORTAL: Vm = Vm { cpus: [1, 0], on_fault: OnFault::Stop, ..guest("B", VMID_B) };

const CACHE_POLICY: Scenario = Scenario {
    name: "cache-policy",
    about: "a parcel's cache policy holds for all that have it, and may change while nobody borrows it",
    guests: &[
        Guest { program: "cache_policy", vm: Vm { roles: Roles::INSPECT, ..guest("A", VMID_A) } },
        Guest { program: "cache_policy", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["write-back is advisory", "nothing that was written was lost"],
    ..Scenario::USUAL
};

const CACHE_POLICY_MAX: Scenario = Scenario {
    name: "cache-policy-max",
    about: "the same where stage 2 decides the memory type alone, and invalidations are made twice",
    machine: Machine { cpu: "max", ..Machine::TESTS },
    log: &[
        "invalidations are made twice",
        "write-back is forced",
        "nothing that was written was lost",
    ],
    ..CACHE_POLICY
};

pub(super) const CLOCK: Scenario = Scenario {
    name: "clock",
    about: "a VM drives a clock itself, asleep until it interrupts; another VM does not find it",
    guests: &[
        Guest { program: "rtc", vm: Vm { cpus: [1, 0], ..guest("A", VMID_A) } },
        Guest { program: "rtc_stranger", vm: guest("B", VMID_B) },
    ],
    // QEMU 10.0, `hw/arm/virt.c`: VIRT_RTC, whose SPI is number 2.
    devices: &[Device { vm: 0, pa: 0x0901_0000, ipa: layout::CLOCK, pages: 1 }],
    interrupts: &[Interrupt {
        vm: 0,
        physical: 34,
        virtual_: layout::CLOCK_INTERRUPT,
        edge: false,
    }],
    log: &["alarm 1 rang while I slept", "a masked alarm waited"],
    ..Scenario::USUAL
};

const GRANT_BUFFERS: Scenario = Scenario {
    name: "grant-buffers",
    about: "a buffer becomes grants and grants a buffer, with limits, and nobody waits for who has them",
    guests: &[
        Guest { program: "grant_buffer_owner", vm: guest("A", VMID_A) },
        Guest { program: "grant_buffer_user", vm: Vm { cpus: [1, 0], ..guest("B", VMID_B) } },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &[
        "my limit, which is set first",
        "my peer has every page still",
        "I waited 3 ms for the buffer to be closed, in vain",
        "each page came home as soon as my peer had released it",
        "conservation holds",
    ],
    ..Scenario::USUAL
};

const FP: Scenario = Scenario {
    name: "fp",
    about: "FP and SIMD registers stay a vCPU's own",
    guests: &[
        Guest { program: "fp", vm: guest("A", VMID_A) },
        Guest { program: "fp", vm: guest("B", VMID_B) },
    ],
    channels: &[link(0, 1, LINK_AB)],
    log: &["my FP registers outlived"],
    ..Scenario::USUAL
};

const REGISTERS: Scenario = Scenario {
    name: "registers",
    about: "registers start as zero, and stay a VM's own beside another VM and through every call",
    guests: &[
        Guest { program: "registers", vm: guest("A", VMID_A) },
        Guest { program: "registers", vm: guest("B", VMID_B) },
    ],
    channels: &[link(0, 1, LINK_AB)],
    // The same switches in every run.
    machine: Machine::BENCH,
    log: &["my registers outlived", "and 10 kinds of calls"],
    ..Scenario::USUAL
};

const UART_ONLY: Scenario = Scenario {
    name: "uart-only",
    about: "the demo as on a board: log and verdict by the UART, power off by firmware",
    semihosting: false,
    ..DEMO
};

const ON_A53: Scenario = Scenario {
    name: "on-cortex-a53",
    about: "the demo on Cortex-A53",
    machine: Machine { cpu: "cortex-a53", ..Machine::TESTS },
    ..DEMO
};

const ON_A57: Scenario = Scenario {
    name: "on-cortex-a57",
    about: "the demo on Cortex-A57",
    machine: Machine { cpu: "cortex-a57", ..Machine::TESTS },
    ..DEMO
};

const ON_MAX: Scenario = Scenario {
    name: "on-max",
    about: "the demo on a CPU with every extension that QEMU models",
    machine: Machine { cpu: "max", ..Machine::TESTS },
    ..DEMO
};
