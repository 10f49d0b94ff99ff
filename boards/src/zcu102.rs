//! AMD Zynq UltraScale+ ZCU102: four Cortex-A53, GIC-400.
//!
//! Addresses: Linux, `arch/arm64/boot/dts/xilinx/zynqmp.dtsi` and `zynqmp-zcu102-revA.dts`.
//!
//! The GIC-400's pages of 4 KiB are repeated sixteen times each, so its second pages lie 64 KiB behind
//! the first ones (UG1085, chapter "Interrupts"; Linux, `drivers/irqchip/irq-gic.c`,
//! `gic_check_eoimode`). The last copy of a first page and the first copy of a second one are neighbours.

use hyp::board::{Board, Gic, Power, Region, Uart, UartKind};
use rm::address::Pa;

/// Started by U-Boot, with TF-A below.
pub const ZCU102: Board = Board {
    id: package::Board::ZCU102,
    // Above what a TF-A built for DDR keeps (`platform_def.h`: up to 0x80000), below where OP-TEE may be.
    ram: &[Region::new(0x0010_0000, 0x6000_0000 - 0x0010_0000)],
    // `memory@0`: the rest of 2 GiB here, and 2 GiB from 32 GiB on.
    more_ram: &[Region::new(0x6000_0000, 0x2000_0000), Region::new(0x8_0000_0000, 0x8000_0000)],
    // OP-TEE's usual memory, and the last MiB, which boards of the family keep for the PMU's firmware.
    reserved: &[Region::new(0x6000_0000, 0x1000_0000), Region::new(0x7ff0_0000, 0x10_0000)],
    devices: &[
        // `interrupt-controller@f9010000`: distributor, CPU interface, virtual interface control.
        Region::new(0xf901_0000, 0x1000),
        Region::new(0xf902_f000, 0x2000),
        Region::new(0xf904_0000, 0x1000),
        // UART 0 (`serial@ff000000`).
        Region::new(0xff00_0000, 0x1000),
    ],
    uart: Uart {
        kind: UartKind::Cadence,
        base: Pa(0xff00_0000),
        // SPI 21.
        intid: 53,
    },
    gics: &[Gic::V2 {
        distributor: Pa(0xf901_0000),
        cpu_interface: Pa(0xf902_f000),
        control: Pa(0xf904_0000),
        virtual_interface: Pa(0xf906_f000),
    }],
    power: Power::Psci,
    cpus: &[0, 1, 2, 3],
};
