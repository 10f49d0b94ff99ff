//! NXP i.MX 8M Plus EVK: four Cortex-A53, GIC-500 (a GICv3).
//!
//! Addresses: Linux, `arch/arm64/boot/dts/freescale/imx8mp-evk.dts` and `imx8mp.dtsi`.

use hyp::board::{Board, Gic, Power, Region, Uart, UartKind};
use rm::address::Pa;

/// Started by U-Boot, with TF-A below.
pub const IMX8MP_EVK: Board = Board {
    id: package::Board::IMX8MP_EVK,
    // `memory@40000000`: 3 GiB here, of which the first surely exists, and 3 GiB above 4 GiB.
    ram: &[Region::new(0x4000_0000, 0x4000_0000)],
    more_ram: &[Region::new(0x8000_0000, 0x8000_0000), Region::new(0x1_0000_0000, 0xc000_0000)],
    // Where the vendor's boot images put OP-TEE (imx-mkimage, TEE_LOAD_ADDR): access is an abort.
    reserved: &[Region::new(0x5600_0000, 0x0200_0000)],
    devices: &[
        // UART 2 (`serial@30890000`).
        Region::new(0x3089_0000, 0x1000),
        // `interrupt-controller@38800000`: distributor, redistributors of four CPUs.
        Region::new(0x3880_0000, 0x1_0000),
        Region::new(0x3888_0000, 4 * 0x2_0000),
    ],
    uart: Uart {
        kind: UartKind::Imx,
        base: Pa(0x3089_0000),
        // SPI 27.
        intid: 59,
    },
    gics: &[Gic::V3 { distributor: Pa(0x3880_0000), redistributors: Pa(0x3888_0000) }],
    power: Power::Psci,
    cpus: &[0, 1, 2, 3],
};
