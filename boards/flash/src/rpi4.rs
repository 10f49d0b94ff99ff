//! `config.txt` of the Raspberry Pi 4.
//!
//! Keys and defaults: Raspberry Pi documentation, "config.txt" (`boot`, `memory`) and "Legacy
//! config.txt options" (`boot`); the UARTs: "Configuring UARTs".

use crate::firmware::Firmware;

/// Each key with its value and the reason for it.
const KEYS: &[(&str, &str, &str)] = &[
    ("arm_64bit", "1", "Start the cores in 64-bit state; older firmware does not by itself."),
    ("kernel", "{image}", "The image: hypervisor, VMs and their device trees in one file."),
    (
        "kernel_address",
        "{load}",
        "A multiple of 2 MiB, which the image's header asks for. Firmware before 2020 would take \
         0x80000.",
    ),
    (
        "enable_gic",
        "1",
        "Interrupts go through the GIC-400, which EL2 drives, not the legacy controller.",
    ),
    ("enable_uart", "1", "Set up the UART on GPIO 14 and 15 (pins 8 and 10)."),
    (
        "dtoverlay",
        "disable-bt",
        "On those pins the PL011, which EL2 drives; without this line it belongs to Bluetooth, and \
         the pins to the mini UART.",
    ),
    ("init_uart_clock", "48000000", "The PL011's clock in Hz, from which EL2 makes the baud rate."),
    ("init_uart_baud", "115200", "The firmware's own messages at EL2's rate."),
    (
        "gpu_mem",
        "64",
        "MiB for the GPU, taken from the end of the first GiB. EL2 counts on 76 or less.",
    ),
    ("disable_splash", "1", "No picture on a screen that nobody looks at."),
];

/// The file's text.
pub(crate) fn config(firmware: &Firmware) -> String {
    let mut text = String::from("# What the Raspberry Pi 4's firmware is told.\n");
    for (key, value, reason) in KEYS {
        let value = value
            .replace("{image}", firmware.image)
            .replace("{load}", &format!("{:#x}", firmware.load));
        text.push_str(&format!("\n# {reason}\n{key}={value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use package::Board;

    use super::*;

    #[test]
    fn every_line_has_a_reason_and_is_one_that_the_firmware_reads() {
        let text = config(&Firmware::of(Board::RPI4));
        let mut reason = false;
        for line in text.lines().filter(|line| !line.is_empty()) {
            // The firmware ignores what stands behind 98 characters; comments may be longer.
            assert!(line.len() <= 98 || line.starts_with('#'), "{line}");
            if !line.starts_with('#') {
                assert!(reason, "no reason for {line}");
                let (key, value) = line.split_once('=').unwrap();
                assert!(!format!("{key}{value}").contains(' '), "{line}");
            }
            reason = line.starts_with('#');
        }
    }

    #[test]
    fn the_firmware_is_told_what_the_image_needs() {
        let text = config(&Firmware::of(Board::RPI4));
        for line in
            ["arm_64bit=1", "kernel=kernel8.img", "kernel_address=0x200000", "enable_uart=1"]
        {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }
}
