//! ELF programs as the raw bytes that a machine loads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use manifest::program::{Place, Program};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol};

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
    flatten_bytes(file).with_context(|| format!("cannot load {}", path.display()))
}

fn flatten_bytes(file: Vec<u8>) -> Result<Flat> {
    let program = Program::read(file)?;
    let Place::Fixed { load: base, entry } = program.place else { bail!("it is no ELF file") };
    Ok(Flat { base, entry, bytes: program.bytes })
}

/// The address of a symbol.
pub fn symbol(path: &Path, name: &str) -> Result<u64> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::<Endianness>::parse(&*file)?;
    let found = elf.symbols().find(|symbol| symbol.name() == Ok(name));
    Ok(found.with_context(|| format!("{} has no symbol {name}", path.display()))?.address())
}

/// What a hypervisor says of its build when it starts: the first bytes of its linker's digest.
pub fn build(path: &Path) -> Result<Option<String>> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::<Endianness>::parse(&*file)?;
    let digits = |id: &[u8]| id.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(elf.build_id()?.map(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(flatten_bytes(Vec::new()).is_err());
        assert!(flatten_bytes(vec![0x7f; 256]).is_err());
    }
}
