//! The boards: the very images that are flashed, under QEMU's models.
//!
//! Sharing, revoking and dying are the scenarios of `qemu-virt`, on each board's CPUs, interrupt controller
//! and UART. QEMU's model of the i.MX 8M Plus EVK does not connect the virtual interrupt lines of its GIC to
//! the CPUs (QEMU 10.0, `hw/arm/fsl-imx8mp.c`, `fsl_imx8mp_realize`), so no VM is ever interrupted there:
//! its VMs poll. Images that are damaged or for something else are refused in plain text.

use package::{Board, Vm};

use super::checks::{CLOCK, INTERRUPTS, KICKS, LIVES_FEW, PREEMPT, REVOKE};
use super::demo::DEMO;
use super::examples::POLLING;
use super::{Damage, Guest, Machine, Program, Scenario, guest};
use crate::verdict::Expect;

/// An image's distance from the start of RAM, unlike QEMU's own choice.
const ELSEWHERE: u64 = 0x0640_0000;

/// All of them.
pub const ALL: &[Scenario] = &[
    gicv2("gicv2-demo", DEMO),
    gicv2("gicv2-interrupts", INTERRUPTS),
    gicv2("gicv2-kicks", KICKS),
    gicv2("gicv2-preempt", PREEMPT),
    gicv2("gicv2-clock", CLOCK),
    gicv2("gicv2-revoke", REVOKE),
    gicv2("gicv2-lives-few", LIVES_FEW),
    elsewhere("elsewhere-demo", Board::QEMU_VIRT),
    on(Board::QEMU_VIRT, "qemu-virt-four-cpus", FOUR_CPUS),
    on(Board::RPI4, "rpi4-demo", DEMO),
    on(Board::RPI4, "rpi4-interrupts", INTERRUPTS),
    on(Board::RPI4, "rpi4-kicks", KICKS),
    on(Board::RPI4, "rpi4-revoke", REVOKE),
    on(Board::RPI4, "rpi4-lives-few", LIVES_FEW),
    on(Board::RPI4, "rpi4-el2-tables", TABLES),
    on(Board::RPI4, "rpi4-uart-only", uart_only(DEMO)),
    elsewhere("rpi4-elsewhere", Board::RPI4),
    told("rpi4-firmware-tree", Board::RPI4, &RPI4_TOLD),
    on(Board::RPI4, "rpi4-four-cpus", FOUR_CPUS),
    on(Board::IMX8MP_EVK, "imx8mp-evk-share", POLLING),
    on(Board::IMX8MP_EVK, "imx8mp-evk-revoke", REVOKE),
    on(Board::IMX8MP_EVK, "imx8mp-evk-lives-few", LIVES_FEW),
    on(Board::IMX8MP_EVK, "imx8mp-evk-el2-tables", TABLES),
    on(Board::IMX8MP_EVK, "imx8mp-evk-uart-only", uart_only(POLLING)),
    elsewhere("imx8mp-evk-elsewhere", Board::IMX8MP_EVK),
    told("imx8mp-evk-firmware-tree", Board::IMX8MP_EVK, &IMX8MP_EVK_TOLD),
    on(Board::IMX8MP_EVK, "imx8mp-evk-four-cpus", FOUR_CPUS),
    on(Board::ZCU102, "zcu102-demo", DEMO),
    on(Board::ZCU102, "zcu102-interrupts", INTERRUPTS),
    on(Board::ZCU102, "zcu102-kicks", KICKS),
    on(Board::ZCU102, "zcu102-revoke", REVOKE),
    on(Board::ZCU102, "zcu102-lives-few", LIVES_FEW),
    on(Board::ZCU102, "zcu102-el2-tables", TABLES),
    on(Board::ZCU102, "zcu102-uart-only", uart_only(DEMO)),
    elsewhere("zcu102-elsewhere", Board::ZCU102),
    told("zcu102-firmware-tree", Board::ZCU102, &ZCU102_TOLD),
    on(Board::ZCU102, "zcu102-four-cpus", FOUR_CPUS),
    refused("image-cut", Damage::Cut, "cut short"),
    refused("image-changed", Damage::Changed, "section 1 does not fit its digest"),
    refused("image-mixed", Damage::OtherBuild, "another build of the hypervisor"),
    refused("image-other-board", Damage::OtherBoard, "for the board zcu102"),
    refused("image-other-gic", Damage::OtherGic, "for a GICv2, which this machine lacks"),
];

/// A VM on each CPU.
const FOUR_CPUS: Scenario = Scenario {
    about: "every CPU of the board is started and runs a VM",
    guests: &[
        on_cpu("A", 0x10, 0),
        on_cpu("B", 0x11, 1),
        on_cpu("C", 0x12, 2),
        on_cpu("D", 0x13, 3),
    ],
    machine: Machine { cpus: 4, ..Machine::TESTS },
    log: &["CPU 1 runs", "CPU 2 runs", "CPU 3 runs", "conservation holds"],
    ..Scenario::USUAL
};

const fn on_cpu(name: &str, vmid: u16, cpu: u8) -> Guest {
    Guest { program: "rtc_stranger", vm: Vm { cpus: [cpu, 0], ..guest(name, vmid) } }
}

const TABLES: Scenario = Scenario {
    about: "the hardware translates every page as the manager says, after random calls",
    program: Program::El2("tables"),
    seconds: 180,
    ..Scenario::USUAL
};

/// A scenario with nothing but the board's UART for log and verdict.
const fn uart_only(scenario: Scenario) -> Scenario {
    Scenario { semihosting: false, ..scenario }
}

/// How VMs share on a board.
const fn sharing(board: Board) -> Scenario {
    if board.id() == Board::IMX8MP_EVK.id() { POLLING } else { DEMO }
}

/// A scenario on a board's model.
const fn on(board: Board, name: &'static str, scenario: Scenario) -> Scenario {
    let machine = Machine { cpus: scenario.machine.cpus, ..Machine::of(board) };
    Scenario { name, machine, ..scenario }
}

/// A scenario on `qemu-virt` with a GICv2.
const fn gicv2(name: &'static str, scenario: Scenario) -> Scenario {
    Scenario { name, machine: Machine { gic: 2, ..scenario.machine }, ..scenario }
}

/// VMs that share, in an image that is loaded elsewhere.
const fn elsewhere(name: &'static str, board: Board) -> Scenario {
    let about = "VMs share, in an image that is loaded at another address";
    Scenario { about, load_at: ELSEWHERE, ..on(board, name, sharing(board)) }
}

/// What EL2 makes of [`firmware::tree`](crate::firmware::tree) of each board: RAM up to what is kept, in
/// whole pages, and from there on. How much there is, QEMU writes into the tree.
const RPI4_TOLD: [&str; 4] = told_of("RAM 0x80000 to 0x3000000", "RAM 0x3101000 to 0x3b400000");
const IMX8MP_EVK_TOLD: [&str; 4] =
    told_of("RAM 0x40000000 to 0x43000000", "RAM 0x43101000 to 0x56000000");
const ZCU102_TOLD: [&str; 4] = told_of("RAM 0x100000 to 0x3000000", "RAM 0x3101000 to 0x60000000");

const fn told_of(before: &'static str, behind: &'static str) -> [&'static str; 4] {
    ["from firmware's device tree", before, behind, "conservation holds"]
}

/// VMs that share beside memory that firmware says it keeps.
const fn told(name: &'static str, board: Board, log: &'static [&'static str]) -> Scenario {
    Scenario {
        about: "VMs share beside memory that firmware's device tree reserves",
        firmware_tree: true,
        log,
        ..on(board, name, sharing(board))
    }
}

/// An image that EL2 does not run.
const fn refused(name: &'static str, damage: Damage, why: &'static str) -> Scenario {
    Scenario {
        name,
        about: "EL2 names in plain text what is wrong with an image",
        damage,
        semihosting: false,
        expect: Expect::Refused(why),
        log: &[],
        ..DEMO
    }
}
