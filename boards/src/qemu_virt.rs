//! QEMU's `virt` machine with GICv3 and 1 GiB of RAM.
//!
//! Addresses: QEMU 10.0, `hw/arm/virt.c`, `base_memmap` and `a15irqmap`.

use hyp::board::{Board, Gic, Region, Uart};
use rm::address::Pa;

/// `-M virt,virtualization=on,gic-version=3 -m 1G`, with up to four CPUs.
pub const QEMU_VIRT: Board = Board {
    name: "qemu-virt",
    id: package::Board::QemuVirt,
    ram: &[Region::new(0x4000_0000, 0x4000_0000)],
    devices: &[
        // GIC distributor.
        Region::new(0x0800_0000, 0x1_0000),
        // GIC redistributors of four CPUs.
        Region::new(0x080a_0000, 4 * 0x2_0000),
        // UART 0.
        Region::new(0x0900_0000, 0x1000),
    ],
    uart: Uart { base: Pa(0x0900_0000), clock: 24_000_000, baud: 115_200, intid: 33 },
    gic: Gic { distributor: Pa(0x0800_0000), redistributors: Pa(0x080a_0000) },
    cpus: &[0, 1, 2, 3],
};
