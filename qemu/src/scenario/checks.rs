//! The scenarios of `cargo test` beside the demo, one QEMU each.

use guests::layout::{LINK_AB, VMID_A, VMID_B};
use package::Vm;

use super::demo::DEMO;
use super::{Guest, Machine, Program, Scenario, guest, link};
use crate::verdict::Expect;

/// All of them.
pub const ALL: &[Scenario] = &[
    HOSTILE,
    FORGE,
    SMP,
    PREEMPT,
    INTERRUPTS,
    FP,
    UART_ONLY,
    ON_A53,
    ON_A57,
    ON_MAX,
    TABLES,
    STALE,
    OWN_MAP,
    MEMORY,
    LOG_FLOOD,
    PANIC,
    DATA_FETCH,
    STACK_OVERFLOW,
];

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
    ..Scenario::USUAL
};

const PREEMPT: Scenario = Scenario {
    name: "preempt",
    about: "two VMs that never wait share one CPU",
    guests: &[
        Guest { program: "preempt", vm: guest("A", VMID_A) },
        Guest { program: "preempt", vm: guest("B", VMID_B) },
    ],
    channels: &[link(0, 1, LINK_AB)],
    ..Scenario::USUAL
};

const INTERRUPTS: Scenario = Scenario {
    name: "interrupts",
    about: "the virtual interrupt controller and timer behave as the real ones",
    guests: &[Guest { program: "interrupts", vm: guest("A", VMID_A) }],
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
    ..Scenario::USUAL
};

const UART_ONLY: Scenario = Scenario {
    name: "uart_only",
    about: "the demo as on a board: log and verdict by the UART, power off by firmware",
    semihosting: false,
    ..DEMO
};

const ON_A53: Scenario = Scenario {
    name: "on_cortex_a53",
    about: "the demo on Cortex-A53",
    machine: Machine { cpu: "cortex-a53", ..Machine::TESTS },
    ..DEMO
};

const ON_A57: Scenario = Scenario {
    name: "on_cortex_a57",
    about: "the demo on Cortex-A57",
    machine: Machine { cpu: "cortex-a57", ..Machine::TESTS },
    ..DEMO
};

const ON_MAX: Scenario = Scenario {
    name: "on_max",
    about: "the demo on a CPU with every extension that QEMU models",
    machine: Machine { cpu: "max", ..Machine::TESTS },
    ..DEMO
};

const TABLES: Scenario = Scenario {
    name: "tables",
    about: "the hardware's walk agrees with ours after random calls",
    program: Program::El2("tables"),
    ..Scenario::USUAL
};

const STALE: Scenario = Scenario {
    name: "stale",
    about: "a stale translation dies on a CPU that never leaves its guest",
    program: Program::El2("stale"),
    ..Scenario::USUAL
};

const OWN_MAP: Scenario = Scenario {
    name: "own_map",
    about: "EL2's own map has no writable code, and guard pages",
    program: Program::El2("own-map"),
    ..Scenario::USUAL
};

const MEMORY: Scenario = Scenario {
    name: "memory",
    about: "EL2 deals its RAM out once, zeroed and aligned",
    program: Program::El2("memory"),
    ..Scenario::USUAL
};

const LOG_FLOOD: Scenario = Scenario {
    name: "log_flood",
    about: "two CPUs log more than fits; every message arrives whole or is counted",
    program: Program::El2("log-flood"),
    ..Scenario::USUAL
};

const PANIC: Scenario = Scenario {
    name: "panic",
    about: "EL2 panics: message, trace with function names, exit code 101",
    program: Program::El2("panic"),
    expect: Expect::Panic("deep_inside"),
    log: &["the answer is 42"],
    ..Scenario::USUAL
};

const DATA_FETCH: Scenario = Scenario {
    name: "data_fetch",
    about: "EL2 jumps into data: cause in words, registers, trace, exit code 3",
    program: Program::El2("data-fetch"),
    expect: Expect::Exception("hyp::boot::"),
    log: &["exception in EL2 on CPU 0"],
    ..Scenario::USUAL
};

const STACK_OVERFLOW: Scenario = Scenario {
    name: "stack_overflow",
    about: "EL2's stack grows into its guard page and is reported as that",
    program: Program::El2("stack-overflow"),
    expect: Expect::Exception("recursion"),
    log: &["exception in EL2 on CPU 0"],
    ..Scenario::USUAL
};
