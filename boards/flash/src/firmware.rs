//! What each board's firmware wants, as a table.

use package::Board;

use crate::{rpi4, uboot};

const MIB: u64 = 1 << 20;

/// A board's firmware.
#[derive(Clone, Copy, Debug)]
pub struct Firmware {
    /// The board.
    pub board: Board,
    /// The image's name on the card.
    pub image: &'static str,
    /// Where the firmware loads the image. A multiple of 2 MiB, as the arm64 boot protocol asks for.
    pub load: u64,
    /// The first address behind it that is something else's.
    pub end: u64,
    /// What lies there.
    pub behind: &'static str,
    /// How the image is started.
    pub start: Start,
    /// What the board's maker has to add.
    pub foreign: &'static [Foreign],
    /// Where the maker's files are found.
    pub source: &'static str,
    /// Where a card's partition begins.
    pub partition: u64,
    /// How the board is set up and its UART connected, line by line.
    pub wiring: &'static [&'static str],
}

/// Who starts the image.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// An emulator, told on its command line.
    Emulator,
    /// Nobody knows; the image is all there is.
    Unknown,
    /// The Raspberry Pi's own firmware, told by `config.txt`.
    RaspberryPi,
    /// U-Boot, told by a script.
    UBoot(uboot::Device),
}

/// A file that is not ours.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Its name, in the folder of firmware and on the card.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Whether the board does not start without it. If not, the board may have it elsewhere.
    pub needed: bool,
    /// Where it goes on the card, counted from the card's first byte; none: it is a file.
    pub at: Option<u64>,
}

impl Firmware {
    /// Those of the boards that are described.
    pub const ALL: [Self; 4] = [QEMU_VIRT, RPI4, IMX8MP_EVK, ZCU102];

    /// That of a board. A board starts to exist without a word here: then only its image is written.
    pub fn of(board: Board) -> Self {
        let known = Self::ALL.into_iter().find(|firmware| firmware.board == board);
        known.unwrap_or_else(|| Self::unknown(board))
    }

    /// Of a board whose firmware nobody has described yet.
    pub(crate) const fn unknown(board: Board) -> Self {
        Self { board, start: Start::Unknown, load: 0, end: 1 << 30, ..QEMU_VIRT }
    }

    /// The board's configuration: a file's name and its text.
    pub fn configuration(&self) -> Option<(&'static str, String)> {
        match self.start {
            Start::Emulator | Start::Unknown => None,
            Start::RaspberryPi => Some(("config.txt", rpi4::config(self))),
            Start::UBoot(device) => Some(("boot.cmd", uboot::script(self, device))),
        }
    }
}

const QEMU_VIRT: Firmware = Firmware {
    board: Board::QEMU_VIRT,
    image: "hypervisor.img",
    // QEMU 10.0, hw/arm/boot.c: `-kernel` with an image whose text_offset is 0 goes to RAM + 2 MiB.
    load: 0x4020_0000,
    // RAM of `-m 1G`.
    end: 0x8000_0000,
    behind: "the end of its memory",
    start: Start::Emulator,
    foreign: &[],
    source: "",
    partition: 4 * MIB,
    wiring: &[],
};

const RPI4: Firmware = Firmware {
    board: Board::RPI4,
    image: "kernel8.img",
    load: 0x20_0000,
    // The firmware puts the device tree below 0x2f00_0000 if there is room, and the GPU's memory at the
    // top of the first GiB.
    end: 0x2e00_0000,
    behind: "the firmware's device tree",
    start: Start::RaspberryPi,
    foreign: &[
        Foreign { name: "start4.elf", what: "firmware of the GPU", needed: true, at: None },
        Foreign { name: "fixup4.dat", what: "its companion", needed: true, at: None },
        Foreign {
            name: "bcm2711-rpi-4-b.dtb",
            what: "the board's device tree",
            needed: true,
            at: None,
        },
        Foreign {
            name: "overlays/disable-bt.dtbo",
            what: "puts the UART on the header's pins",
            needed: true,
            at: None,
        },
    ],
    source: "folder `boot` of https://github.com/raspberrypi/firmware, or the boot partition of any \
             Raspberry Pi OS card",
    partition: 4 * MIB,
    // Raspberry Pi documentation, "Configuring UARTs": GPIO 14 transmits, GPIO 15 receives, 3.3 V.
    wiring: &[
        "Connect a USB serial adapter of 3.3 V (5 V destroys the board): its ground to pin 6, its",
        "RX to pin 8 (GPIO 14), its TX to pin 10 (GPIO 15). It is then /dev/ttyUSB0 or /dev/ttyACM0.",
    ],
};

const IMX8MP_EVK: Firmware = Firmware {
    board: Board::IMX8MP_EVK,
    image: "hypervisor.img",
    // RAM from 0x4000_0000; U-Boot itself was loaded at 0x4020_0000 and has moved away. Its own
    // kernel_addr_r, 0x4048_0000, is no multiple of 2 MiB.
    load: 0x4040_0000,
    // bootm_size=0x10000000 (U-Boot, include/configs/imx8mp_evk.h): U-Boot puts the device tree at the
    // end of the first 256 MiB.
    end: 0x4f00_0000,
    behind: "the device tree, which U-Boot puts at the end of the first 256 MiB",
    // mmc 1 is the SD card, mmc 2 the eMMC.
    start: Start::UBoot(uboot::Device { number: "1", script_at: 0x5000_0000 }),
    foreign: &[Foreign {
        name: "flash.bin",
        what: "U-Boot with TF-A and the DDR firmware",
        needed: false,
        // U-Boot, doc/board/nxp/imx8mp_evk.rst: "at offset 32KB".
        at: Some(32 << 10),
    }],
    source: "build it as U-Boot's doc/board/nxp/imx8mp_evk.rst says, or take imx-boot of NXP's image",
    // U-Boot and its environment lie before it.
    partition: 8 * MIB,
    wiring: &[
        "Set the boot switch SW4 to the SD card if the card holds U-Boot, else to where U-Boot is.",
        "Connect the debug USB port; the console is the third of its four ports: /dev/ttyUSB2.",
    ],
};

const ZCU102: Firmware = Firmware {
    board: Board::ZCU102,
    image: "hypervisor.img",
    // RAM from 0; TF-A of some builds keeps the first 512 KiB.
    load: 0x20_0000,
    // fdt_high=10000000 (U-Boot, include/configs/xilinx_zynqmp.h of some versions).
    end: 0x0f00_0000,
    behind: "the device tree, which U-Boot puts at the end of the first 256 MiB",
    start: Start::UBoot(uboot::Device { number: "0", script_at: 0x2000_0000 }),
    foreign: &[Foreign {
        name: "BOOT.BIN",
        what: "FSBL, PMU firmware, TF-A and U-Boot",
        needed: false,
        at: None,
    }],
    source: "AMD's ZCU102 image (PetaLinux BSP), or make it with bootgen as UG1283 says",
    partition: 4 * MIB,
    wiring: &[
        "Set the mode switch SW6 to SD boot (UG1182) if the card holds BOOT.BIN.",
        "Connect the USB UART J83; the console is the first of its four ports: /dev/ttyUSB0.",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_loads_at_a_multiple_of_2_mib_with_room() {
        for firmware in Firmware::ALL {
            let name = firmware.board.name();
            assert!(firmware.load.is_multiple_of(2 * MIB), "{name}");
            assert!(firmware.end - firmware.load >= 200 * MIB, "{name}");
        }
    }

    #[test]
    fn files_at_fixed_places_end_before_the_partition() {
        for firmware in Firmware::ALL {
            let places = firmware.foreign.iter().filter_map(|file| file.at);
            assert!(places.max().unwrap_or(0) < firmware.partition);
        }
    }
}
