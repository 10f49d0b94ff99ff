//! Programs in the hypervisor's place: what EL2 itself promises, without a VM that runs.

use super::{Machine, Program, Scenario};
use crate::verdict::Expect;

const USUAL: Scenario = Scenario::USUAL;

/// A scenario on the UART alone, as on a board without a debugger.
const WITHOUT_SEMIHOSTING: Scenario = Scenario { semihosting: false, ..USUAL };

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "el2-own-map",
        about: "EL2 writes no code and reaches nothing that it need not",
        program: Program::El2("own-map"),
        ..USUAL
    },
    Scenario {
        name: "el2-own-map-a53",
        about: "the same on Cortex-A53",
        program: Program::El2("own-map"),
        machine: Machine { cpu: "cortex-a53", ..Machine::TESTS },
        ..USUAL
    },
    Scenario {
        name: "el2-own-map-max",
        about: "the same on a CPU with all extensions",
        program: Program::El2("own-map"),
        machine: Machine { cpu: "max", ..Machine::TESTS },
        ..USUAL
    },
    Scenario {
        name: "el2-memory",
        about: "RAM is dealt out once, zeroed and aligned",
        program: Program::El2("memory"),
        ..USUAL
    },
    Scenario {
        name: "el2-data-fetch",
        about: "data is never executed",
        program: Program::El2("data-fetch"),
        expect: Expect::Exception("data_fetch::main"),
        log: &["instruction abort: address not executable"],
        ..USUAL
    },
    Scenario {
        name: "el2-stack-overflow",
        about: "a stack that overflows is reported",
        program: Program::El2("stack-overflow"),
        expect: Expect::Exception("stack_overflow::recursion"),
        ..USUAL
    },
    Scenario {
        name: "el2-panic",
        about: "a panic on the second CPU names the functions it came from",
        program: Program::El2("panic"),
        expect: Expect::Panic("panic::deep_inside"),
        log: &["the answer is 42"],
        ..USUAL
    },
    Scenario {
        name: "el2-panic-uart",
        about: "the same without semihosting",
        program: Program::El2("panic"),
        expect: Expect::Panic("panic::deep_inside"),
        log: &["the answer is 42"],
        ..WITHOUT_SEMIHOSTING
    },
    Scenario {
        name: "el2-log",
        about: "two CPUs log more than fits",
        program: Program::El2("log-flood"),
        log: &["message 0 of CPU", "both CPUs are done"],
        ..USUAL
    },
    Scenario {
        name: "el2-log-uart",
        about: "the same without semihosting",
        program: Program::El2("log-flood"),
        log: &["message 0 of CPU", "both CPUs are done"],
        ..WITHOUT_SEMIHOSTING
    },
    Scenario {
        name: "el2-tables",
        about: "the hardware translates every page as the manager says, after random calls",
        program: Program::El2("tables"),
        seconds: 180,
        ..USUAL
    },
    Scenario {
        name: "el2-tables-max",
        about: "the same where stage 2 decides the memory type alone",
        program: Program::El2("tables"),
        machine: Machine { cpu: "max", ..Machine::TESTS },
        seconds: 180,
        ..USUAL
    },
    Scenario {
        name: "el2-stale",
        about: "a translation that is gone dies on a CPU that never leaves its guest",
        program: Program::El2("stale"),
        log: &[
            "a page that is gone faults on a CPU that never left its guest",
            "without the invalidation the stale translation serves",
            "and the invalidation alone ends it",
        ],
        ..USUAL
    },
];
