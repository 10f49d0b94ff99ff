//! A manifest and the files that it names, all made by hand.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod boot;

use std::io;
use std::path::Path;

use manifest::{Manifest, NoGuest, Report, Sources, parse};

/// A manifest that uses nearly every key.
pub(crate) const FULL: &str = include_str!("full.toml");

/// Files that are made when they are asked for.
pub(crate) struct Made;

impl Sources for Made {
    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        match path {
            "Image" => Ok(kernel()),
            "initrd" => Ok(vec![7; 5000]),
            "service.elf" => Ok(elf(0x4008_0000, 0x4008_0004)),
            "far.elf" => Ok(elf(0x9000_0000, 0x9000_0000)),
            "raw.bin" => Ok(vec![1; 64]),
            "empty" => Ok(Vec::new()),
            "Image.gz" => Ok(vec![0x1f, 0x8b, 8]),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn guest(&self, name: &str) -> Result<Vec<u8>, NoGuest> {
        let known = ["example_blocking", "example_partner"];
        if known.contains(&name) {
            return Ok(elf(0x4008_0000, 0x4008_0000));
        }
        Err(NoGuest::Unknown(known.map(str::to_owned).to_vec()))
    }
}

/// Reads a manifest whose files are made by hand.
pub(crate) fn read(text: &str) -> Result<Manifest, Report> {
    parse(Path::new("a.toml"), text, &Made)
}

/// An arm64 Linux image that takes 4 MiB.
pub(crate) fn kernel() -> Vec<u8> {
    let mut file = vec![0x5a; 4096];
    file[8..16].fill(0);
    file[16..24].copy_from_slice(&(4u64 << 20).to_le_bytes());
    file[24..56].fill(0);
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

/// An ELF file with one segment of 16 bytes.
pub(crate) fn elf(load: u64, entry: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 183].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    file.extend([120u64, load, load, 16, 4096, 4].map(u64::to_le_bytes).concat());
    file.extend([0x1f; 16]);
    file
}
