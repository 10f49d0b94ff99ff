//! Raspberry Pi 4 Model B: BCM2711, four Cortex-A72, GIC-400.
//!
//! Addresses: Linux, `arch/arm64/boot/dts/broadcom/bcm2711-rpi-4-b.dts` and what it includes
//! (`bcm2711.dtsi`, `bcm283x.dtsi`), through the ranges of the node `soc`.

use hyp::board::{Board, Gic, Power, Region, Uart, UartKind};
use rm::address::Pa;

/// With 1 GiB or more, started by the firmware's armstub with `enable_gic=1` and the PL011 on the header
/// (`dtoverlay=disable-bt`).
pub const RPI4: Board = Board {
    id: package::Board::RPI4,
    // The first GiB but for what the GPU has of it at most by default (76 MiB, `gpu_mem`).
    ram: &[Region::new(0x8_0000, 0x3b40_0000 - 0x8_0000)],
    // On boards with more, up to the devices below 4 GiB and from there on.
    more_ram: &[
        Region::new(0x4000_0000, 0xfc00_0000 - 0x4000_0000),
        Region::new(0x1_0000_0000, 0x1_0000_0000),
    ],
    reserved: &[],
    devices: &[
        // armstub8.S: the table by which it releases the CPUs. RAM, written past the caches.
        Region::new(0, 0x1000),
        // Power management and its watchdog (`watchdog@7e100000`).
        Region::new(0xfe10_0000, 0x1000),
        // PL011 (`serial@7e201000`).
        Region::new(0xfe20_1000, 0x1000),
        // GIC-400 (`interrupt-controller@40041000`): distributor, CPU interface, virtual interface control.
        Region::new(0xff84_1000, 0x1000),
        Region::new(0xff84_2000, 0x2000),
        Region::new(0xff84_4000, 0x1000),
    ],
    uart: Uart {
        // The firmware's `init_uart_clock`.
        kind: UartKind::Pl011 { clock: 48_000_000, baud: 115_200 },
        base: Pa(0xfe20_1000),
        // SPI 121.
        intid: 153,
    },
    gics: &[Gic::V2 {
        distributor: Pa(0xff84_1000),
        cpu_interface: Pa(0xff84_2000),
        control: Pa(0xff84_4000),
        virtual_interface: Pa(0xff84_6000),
    }],
    power: Power::SpinTable {
        // `cpu-release-addr` of each CPU.
        release: &[Pa(0xd8), Pa(0xe0), Pa(0xe8), Pa(0xf0)],
        watchdog: Pa(0xfe10_0000),
    },
    cpus: &[0, 1, 2, 3],
};
