//! A boot script in the wrapping that U-Boot's `source` command checks.
//!
//! The "legacy" image format (U-Boot, `include/image.h`, `struct legacy_img_hdr`): a header of 64
//! bytes, all numbers big endian, with a CRC-32 of the data and one of the header itself. The data of
//! a script is a list of lengths that ends with 0, here one length, and then the text
//! (`boot/image.c`, "multi-file and script images"). It is what `mkimage -A arm64 -T script` writes.

/// Marks the format (`IH_MAGIC`).
pub const MAGIC: u32 = 0x2705_1956;
/// Bytes of the header.
pub const HEADER: usize = 64;

/// `IH_OS_LINUX`: what `mkimage` writes unless it is told otherwise.
const OS_LINUX: u8 = 5;
/// `IH_ARCH_ARM64`.
const ARCH_ARM64: u8 = 22;
/// `IH_TYPE_SCRIPT`.
const TYPE_SCRIPT: u8 = 6;
/// `IH_COMP_NONE`.
const UNCOMPRESSED: u8 = 0;
/// Longest name (`IH_NMLEN`), with zeros behind it.
const NAME: usize = 32;

/// Wraps a script. The time of its making stays 0, so that the same script gives the same bytes.
pub fn wrap(name: &str, text: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(8 + text.len());
    data.extend((text.len() as u32).to_be_bytes());
    data.extend(0u32.to_be_bytes());
    data.extend(text.as_bytes());
    let mut header = header(name, &data, 0);
    // The header's CRC is computed with its own field at 0.
    let crc = crc32fast::hash(&header);
    header[4..8].copy_from_slice(&crc.to_be_bytes());
    header.extend(data);
    header
}

fn header(name: &str, data: &[u8], header_crc: u32) -> Vec<u8> {
    const TIME: u32 = 0;
    const LOAD: u32 = 0;
    const ENTRY: u32 = 0;
    let (size, data_crc) = (data.len() as u32, crc32fast::hash(data));
    let numbers = [MAGIC, header_crc, TIME, size, LOAD, ENTRY, data_crc];
    let mut header: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
    header.extend([OS_LINUX, ARCH_ARM64, TYPE_SCRIPT, UNCOMPRESSED]);
    let name = &name.as_bytes()[..name.len().min(NAME)];
    header.extend(name);
    header.resize(HEADER, 0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "echo hello\nbooti 0x200000 - ${fdtcontroladdr}\n";

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// CRC-32 as the format's documentation has it, bit by bit: polynomial 0xedb88320, from all ones.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }

    #[test]
    fn every_field_lies_where_u_boot_reads_it() {
        let script = wrap("a board", TEXT);
        assert_eq!(number(&script, 0), 0x2705_1956);
        assert_eq!(number(&script, 12) as usize, script.len() - 64, "size of the data");
        assert_eq!((number(&script, 16), number(&script, 20)), (0, 0), "load and entry address");
        assert_eq!(script[28..32], [5, 22, 6, 0], "Linux, arm64, script, uncompressed");
        assert_eq!(&script[32..40], b"a board\0");
        assert_eq!(number(&script, 64) as usize, TEXT.len());
        assert_eq!(number(&script, 68), 0, "the end of the list of lengths");
        assert_eq!(&script[72..], TEXT.as_bytes());
    }

    #[test]
    fn both_checksums_are_right() {
        let mut script = wrap("a board", TEXT);
        assert_eq!(number(&script, 24), crc(&script[64..]));
        let stored = number(&script, 4);
        script[4..8].fill(0);
        assert_eq!(stored, crc(&script[..64]));
    }

    #[test]
    fn the_same_script_gives_the_same_bytes() {
        assert_eq!(wrap("a", TEXT), wrap("a", TEXT));
        assert_ne!(wrap("a", TEXT), wrap("a", "echo other\n"));
    }

    #[test]
    fn a_long_name_is_cut() {
        let script = wrap(&"x".repeat(99), TEXT);
        assert_eq!(script[32..64], [b'x'; 32]);
        assert_eq!(script.len(), 64 + 8 + TEXT.len());
    }

    /// What `mkimage -A arm64 -T script -C none -n test -d script script.scr` of U-Boot 2023.01 wrote
    /// with `SOURCE_DATE_EPOCH=0` for the text "echo hello\n".
    #[test]
    fn mkimage_writes_the_same() {
        let theirs = include_bytes!("../tests/mkimage.scr");
        assert_eq!(wrap("test", "echo hello\n"), theirs);
    }
}
