//! ELF programs as the raw bytes that a machine loads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};

/// No program of this project is larger: a wrong linker script shows here, not as a full disk.
const LARGEST: u64 = 64 << 20;

/// A program, ready to be placed in memory.
#[derive(Clone, Debug)]
pub struct Flat {
    /// The first byte's link address.
    pub base: u64,
    /// Where execution starts.
    pub entry: u64,
    /// All bytes up to the end of .bss, which is zero-filled.
    pub bytes: Vec<u8>,
}

/// Reads a program and lays its segments out as memory would hold them.
pub fn flatten(path: &Path) -> Result<Flat> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    flatten_bytes(&file).with_context(|| format!("cannot load {}", path.display()))
}

fn flatten_bytes(file: &[u8]) -> Result<Flat> {
    let header = FileHeader64::<Endianness>::parse(file)?;
    let endian = header.endian()?;
    let loaded: Vec<_> = header
        .program_headers(endian, file)?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0)
        .collect();
    let start = |segment: &&_| ProgramHeader::p_paddr(*segment, endian);
    let end = |segment: &&_| start(segment) + ProgramHeader::p_memsz(*segment, endian);
    let base = loaded.iter().map(start).min().context("nothing in it is to be loaded")?;
    let length = loaded.iter().map(end).max().unwrap_or(base) - base;
    ensure!(length <= LARGEST, "it spans {length:#x} bytes");
    let mut bytes = vec![0; length as usize];
    for segment in loaded {
        let data = segment.data(endian, file).ok().context("a segment is cut short")?;
        let offset = (start(&segment) - base) as usize;
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }
    Ok(Flat { base, entry: header.e_entry(endian), bytes })
}

/// The address of a symbol.
pub fn symbol(path: &Path, name: &str) -> Result<u64> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::<Endianness>::parse(&*file)?;
    let found = elf.symbols().find(|symbol| symbol.name() == Ok(name));
    Ok(found.with_context(|| format!("{} has no symbol {name}", path.display()))?.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(flatten_bytes(b"").is_err());
        assert!(flatten_bytes(&[0x7f; 256]).is_err());
    }

    #[test]
    fn segments_stand_at_their_distances_and_bss_is_zero() {
        // Two segments: 4 bytes at 0x1000 and 2 bytes at 0x1008 that take 8 in memory.
        let flat = flatten_bytes(&two_segments()).unwrap();
        assert_eq!((flat.base, flat.entry), (0x1000, 0x1004));
        assert_eq!(flat.bytes, [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0]);
    }

    /// An ELF file made by hand: header, two program headers, six bytes.
    fn two_segments() -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2u16, 183].map(u16::to_le_bytes).concat());
        file.extend(1u32.to_le_bytes());
        file.extend([0x1004u64, 64, 0].map(u64::to_le_bytes).concat());
        file.extend(0u32.to_le_bytes());
        file.extend([64u16, 56, 2, 64, 0, 0].map(u16::to_le_bytes).concat());
        for (offset, at, in_file, in_memory) in
            [(176u64, 0x1000u64, 4u64, 4u64), (180, 0x1008, 2, 8)]
        {
            file.extend([1u32, 5].map(u32::to_le_bytes).concat());
            file.extend([offset, at, at, in_file, in_memory, 4].map(u64::to_le_bytes).concat());
        }
        file.extend([1, 2, 3, 4, 5, 6]);
        file
    }
}
