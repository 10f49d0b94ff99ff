//! The boot script of boards with U-Boot.
//!
//! TF-A starts U-Boot at EL2, and `booti` enters the image at the level that U-Boot itself runs at, with
//! MMU and caches off and the device tree's address in x0 (U-Boot, `doc/usage/cmd/booti.rst` and
//! `arch/arm/lib/bootm.c`; a U-Boot built with ARMV8_SWITCH_TO_EL1 would not do). The script leaves
//! an image at a multiple of 2 MiB where it is.

use crate::firmware::Firmware;

/// Where the card is found if U-Boot does not say.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its number among U-Boot's `mmc` devices.
    pub number: &'static str,
    /// Where a user may load the script to by hand: behind the image.
    pub script_at: u64,
}

/// The script's text, which is `boot.cmd`.
pub(crate) fn script(firmware: &Firmware, device: Device) -> String {
    let (load, image, number) = (firmware.load, firmware.image, device.number);
    format!(
        "\
# What U-Boot does with this card. boot.scr is this text behind a header with checksums.

# Where this script was found; U-Boot's own boot commands set these, a user at its prompt does not.
if test -z \"${{devtype}}\"; then setenv devtype mmc; fi
if test -z \"${{devnum}}\"; then setenv devnum {number}; fi
if test -z \"${{distro_bootpart}}\"; then setenv distro_bootpart 1; fi

# The image asks for a multiple of 2 MiB. U-Boot runs at EL2, and booti enters the image there; its own
# device tree tells the image how much memory there is.
if load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {load:#x} ${{prefix}}{image}; then
    booti {load:#x} - ${{fdtcontroladdr}}
else
    echo \"{image} is not on ${{devtype}} ${{devnum}}:${{distro_bootpart}}\"
fi
"
    )
}

#[cfg(test)]
mod tests {
    use package::Board;

    use super::*;

    #[test]
    fn the_image_is_loaded_and_started_at_the_boards_address() {
        for (board, load) in [(Board::IMX8MP_EVK, "0x40400000"), (Board::ZCU102, "0x200000")] {
            let (name, text) = Firmware::of(board).configuration().unwrap();
            assert_eq!(name, "boot.cmd");
            assert!(text.contains(&format!("{load} ${{prefix}}hypervisor.img; then\n")), "{text}");
            assert!(text.contains(&format!("booti {load} - ${{fdtcontroladdr}}\n")), "{text}");
        }
    }

    #[test]
    fn every_if_has_its_end() {
        let text = script(&Firmware::of(Board::ZCU102), Device { number: "0", script_at: 0 });
        let count = |word| text.split_whitespace().filter(|other| *other == word).count();
        assert_eq!(count("if"), count("fi"));
        assert!(text.is_ascii() && text.ends_with('\n'));
    }
}
