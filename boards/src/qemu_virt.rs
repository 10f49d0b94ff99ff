//! QEMU's `virt` machine with GICv3 or GICv2.
//!
//! Addresses: QEMU 10.0, `hw/arm/virt.c`, `base_memmap` and `a15irqmap`.

use hyp::board::{Board, Gic, Power, Region, Uart, UartKind};
use rm::address::Pa;

/// `-M virt,virtualization=on,gic-version=3` (or 2), with at least 1 GiB and up to four CPUs.
pub const QEMU_VIRT: Board = Board {
    id: package::Board::QEMU_VIRT,
    ram: &[Region::new(0x4000_0000, 0x4000_0000)],
    // QEMU's own device tree says how much of it there is.
    more_ram: &[Region::new(0x8000_0000, 0x3f_8000_0000)],
    reserved: &[],
    devices: &[
        // The distributor, and a GICv2's CPU interface.
        Region::new(0x0800_0000, 0x2_0000),
        // A GICv2's virtual interface control.
        Region::new(0x0803_0000, 0x1000),
        // GICv3 redistributors of four CPUs.
        Region::new(0x080a_0000, 4 * 0x2_0000),
        // UART 0.
        Region::new(0x0900_0000, 0x1000),
    ],
    uart: Uart {
        kind: UartKind::Pl011 { clock: 24_000_000, baud: 115_200 },
        base: Pa(0x0900_0000),
        intid: 33,
    },
    gics: &[
        Gic::V3 { distributor: Pa(0x0800_0000), redistributors: Pa(0x080a_0000) },
        Gic::V2 {
            distributor: Pa(0x0800_0000),
            cpu_interface: Pa(0x0801_0000),
            control: Pa(0x0803_0000),
            virtual_interface: Pa(0x0804_0000),
        },
    ],
    power: Power::Psci,
    cpus: &[0, 1, 2, 3],
};
