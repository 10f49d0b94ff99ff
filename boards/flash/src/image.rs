//! The finished image, checked once more before it leaves this computer.
//!
//! EL2 checks its package as well, but says so on a UART that a user has yet to find. What is wrong
//! here is said here.

use anyhow::{Result, bail, ensure};
use package::{Board, Digest, MAGIC, Package};

/// Bytes of the arm64 header (Linux, `Documentation/arch/arm64/booting.rst`).
const HEADER: usize = 64;
const PAGE: usize = 4096;
/// Little endian, 4 KiB pages, anywhere in memory: without the last one U-Boot would move the image.
const FLAGS: u64 = 0xa;

/// An image that fits its board.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// The package in it.
    pub package: Package<'a>,
}

impl<'a> Image<'a> {
    /// Checks header and package. The board is the one that the image is wanted for.
    pub fn check(bytes: &'a [u8], board: Board) -> Result<Self> {
        ensure!(
            bytes.len() >= HEADER && &bytes[56..60] == b"ARM\x64",
            "this is no image: the arm64 header is missing at its start"
        );
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let (text_offset, size, flags) = (field(8), field(16), field(24));
        ensure!(
            text_offset == 0,
            "the image wants to lie {text_offset:#x} behind a multiple of 2 MiB; it must be 0"
        );
        ensure!(flags == FLAGS, "the image's header has flags {flags:#x}, not {FLAGS:#x}");
        let length = bytes.len() as u64;
        ensure!(size <= length, "the image is cut short: {length} bytes of {size}");
        ensure!(
            size == length,
            "the image's header counts {size} of {length} bytes: a boot loader would put something \
             else over the rest"
        );
        let (at, package) = find_package(bytes)?;
        ensure!(
            package.is_for(board),
            "the image is for {}, not for {}",
            package.board_name().as_str(),
            board.name()
        );
        if let Some((digest, covered)) = package.hypervisor() {
            ensure!(
                covered <= at - HEADER && Digest::of(&bytes[HEADER..HEADER + covered]) == digest,
                "the package was made for another build of the hypervisor, or that is damaged"
            );
        }
        ensure!(
            board == Board::QEMU_VIRT || !package.hlt_allowed(),
            "the image is for an emulator: it would use semihosting, which {} does not have",
            board.name()
        );
        Ok(Self { bytes, package })
    }
}

/// The package lies on a page boundary behind the hypervisor.
fn find_package(bytes: &[u8]) -> Result<(usize, Package<'_>)> {
    let mut reason = None;
    for at in (PAGE..bytes.len()).step_by(PAGE) {
        if !bytes[at..].starts_with(&MAGIC) {
            continue;
        }
        match Package::parse(&bytes[at..]) {
            Ok(package) => return Ok((at, package)),
            Err(error) => reason = Some(error),
        }
    }
    match reason {
        Some(error) => bail!("the image cannot be used: {error}"),
        None => bail!("there is no package behind the hypervisor"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use package::Writer;

    use super::*;
    use crate::firmware::Firmware;

    /// An image of no VMs for a board, with a hypervisor of two pages.
    pub(crate) fn image_for(board: Board) -> Vec<u8> {
        image_with(board, |_| ())
    }

    fn image_with(board: Board, change: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut bytes = vec![0x55; 2 * PAGE];
        let digest = Digest::of(&bytes[HEADER..]);
        let mut writer = Writer::new(board, 1, [7; 16]);
        writer.hypervisor = Some((digest, (bytes.len() - HEADER) as u32));
        change(&mut writer);
        bytes.extend(writer.write().unwrap());
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        bytes[..HEADER].fill(0);
        let size = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&size.to_le_bytes());
        bytes[24..32].copy_from_slice(&FLAGS.to_le_bytes());
        bytes[56..60].copy_from_slice(b"ARM\x64");
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        Image::check(bytes, Board::RPI4).unwrap_err().to_string()
    }

    #[test]
    fn an_image_for_each_board_is_accepted_for_it_alone() {
        for Firmware { board: made_for, .. } in Firmware::ALL {
            let bytes = image_for(made_for);
            for Firmware { board, .. } in Firmware::ALL {
                assert_eq!(Image::check(&bytes, board).is_ok(), board == made_for);
            }
        }
        let told = refused(&image_for(Board::ZCU102));
        assert_eq!(told, "the image is for zcu102, not for rpi4");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(refused(b"").contains("no image"));
        assert!(refused(&[0; 8192]).contains("no image"));
        let elf = [b"\x7fELF".as_slice(), &[0; 8192]].concat();
        assert!(refused(&elf).contains("no image"));
    }

    #[test]
    fn a_header_that_would_mislead_a_boot_loader_is_refused() {
        let with = |at: usize, value: u64| {
            let mut bytes = image_for(Board::RPI4);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            refused(&bytes)
        };
        assert!(with(8, 0x8_0000).contains("0x80000 behind a multiple of 2 MiB"));
        assert!(with(16, 0).contains("counts 0 of"));
        assert!(with(16, 1 << 40).contains("cut short"));
        assert!(with(24, 0x2).contains("flags 0x2"));
    }

    #[test]
    fn a_cut_image_is_refused_wherever_it_is_cut() {
        let bytes = image_for(Board::RPI4);
        for length in (0..bytes.len()).step_by(997) {
            assert!(Image::check(&bytes[..length], Board::RPI4).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_package_for_another_build_or_with_a_changed_byte_is_refused() {
        let mut bytes = image_for(Board::RPI4);
        bytes[5000] ^= 1;
        assert!(refused(&bytes).contains("another build of the hypervisor"));
        let mut bytes = image_for(Board::RPI4);
        let last_section = bytes.iter().rposition(|&byte| byte == b'p').unwrap() - 16;
        bytes[last_section] ^= 1;
        assert!(refused(&bytes).starts_with("the image cannot be used: "));
        let mut bytes = image_for(Board::RPI4);
        bytes[2 * PAGE] ^= 1;
        assert_eq!(refused(&bytes), "there is no package behind the hypervisor");
    }

    #[test]
    fn an_image_for_the_emulator_is_not_put_on_a_board() {
        let told = refused(&image_with(Board::RPI4, |writer| writer.hlt_allowed = true));
        assert!(told.contains("semihosting"), "{told}");
        let emulated = image_with(Board::QEMU_VIRT, |writer| writer.hlt_allowed = true);
        assert!(Image::check(&emulated, Board::QEMU_VIRT).is_ok());
    }
}
