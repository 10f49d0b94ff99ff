//! Where a program can panic.
//!
//! Whatever panics (an index, a sum that is checked, an `expect`) hands over the place in the sources where
//! it stands. The places are constants of the program, and what the optimiser has proved away has left none.
//! So the constants of an image that is linked as a whole are a list of all that is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, SectionKind};

/// A place in the sources, as the compiler writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From the workspace's root.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
}

/// The places in files whose path begins with `prefix`.
pub fn places(program: &Path, prefix: &str) -> Result<BTreeSet<Place>> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = ElfFile64::<Endianness>::parse(&*data).context("the program is no ELF file")?;
    let mut constants = Vec::new();
    for section in file.sections() {
        // The linker script's section of constants has that of texts in it.
        let kind = section.kind();
        if matches!(
            kind,
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString | SectionKind::Data
        ) {
            constants.push((section.address(), section.data()?));
        }
    }
    let all = constants.iter().flat_map(|(_, bytes)| bytes.windows(SIZE).step_by(ALIGNMENT));
    let places = all.filter_map(|bytes| place(bytes, &constants));
    Ok(places.filter(|place| place.file.starts_with(prefix)).collect())
}

/// Address and length of the file's name, line, column.
const SIZE: usize = 24;
const ALIGNMENT: usize = 8;

fn place(bytes: &[u8], constants: &[(u64, &[u8])]) -> Option<Place> {
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (at, length) = (long(0)?, usize::try_from(long(8)?).ok()?);
    let name = constants.iter().find_map(|(start, bytes)| {
        let from = usize::try_from(at.checked_sub(*start)?).ok()?;
        bytes.get(from..from.checked_add(length)?)
    })?;
    let file = str::from_utf8(name).ok().filter(|name| name.ends_with(".rs"))?.to_owned();
    let (line, column) = (short(16)? as usize, short(20)? as usize);
    (line > 0 && column > 0).then_some(Place { file, line, column })
}

impl Place {
    /// What stands there, to the end of the line; of a macro, the line behind its head too.
    pub fn text(&self, source: &str) -> Option<String> {
        let mut lines = source.lines().skip(self.line - 1);
        let line = lines.next()?.get(self.column - 1..)?.trim();
        let head = line.ends_with("!(");
        let behind = lines.next().filter(|_| head).map_or("", str::trim);
        Some(format!("{line}{behind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_where_its_name_lies() {
        let name = b"..rm/src/a.rs";
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&0x1002_u64.to_le_bytes());
        bytes[8..16].copy_from_slice(&11_u64.to_le_bytes());
        bytes[16..20].copy_from_slice(&2_u32.to_le_bytes());
        bytes[20..].copy_from_slice(&3_u32.to_le_bytes());
        let found = place(&bytes, &[(0x1000, name)]).unwrap();
        assert_eq!(found, Place { file: "rm/src/a.rs".into(), line: 2, column: 3 });
        assert_eq!(found.text("a\n  b[i];\n"), Some("b[i];".into()));
        assert_eq!(found.text("a\n  assert!(\n    x,\n"), Some("assert!(x,".into()));
        assert_eq!(place(&bytes, &[(0x2000, name)]), None);
        bytes[8] = 12;
        assert_eq!(place(&bytes, &[(0x1000, name)]), None, "the name is longer than what is there");
    }
}
