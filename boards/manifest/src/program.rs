//! What a VM starts with: an ELF file, raw bytes, or an arm64 Linux image.

use std::fmt;

use object::Endianness;
use object::elf::{EM_AARCH64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// The largest program: a size that is wrong shows here, not as a full disk.
const LARGEST: u64 = 512 << 20;
/// "ARM\x64" here marks a Linux image (Linux, Documentation/arch/arm64/booting.rst).
const IMAGE_MAGIC: usize = 56;

/// How the program says where it wants to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An ELF file: at this address, entered at that one.
    Fixed {
        /// The first byte's address.
        load: u64,
        /// Where execution starts.
        entry: u64,
    },
    /// A Linux image: so far behind the start of memory, entered at its first byte.
    Offset(u64),
    /// Raw bytes: anywhere.
    Anywhere,
}

/// A program, ready to be placed in memory.
#[derive(Clone, Debug)]
pub struct Program {
    /// What is copied.
    pub bytes: Vec<u8>,
    /// How much memory it takes from its first byte on, which is more if it ends in zeros.
    pub room: u64,
    /// Where.
    pub place: Place,
}

/// Why a file is no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAProgram {
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub advice: Option<&'static str>,
}

impl NotAProgram {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: None }
    }

    fn advise(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }
}

impl fmt::Display for NotAProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for NotAProgram {}

impl Program {
    /// Finds out what the bytes are.
    ///
    /// # Errors
    ///
    /// An ELF file or Linux image that cannot run here, or something that certainly is neither.
    pub fn read(file: Vec<u8>) -> Result<Self, NotAProgram> {
        if file.is_empty() {
            return Err(NotAProgram::new("the file is empty"));
        }
        if file.starts_with(b"\x7fELF") {
            return elf(&file);
        }
        if file.starts_with(&[0x1f, 0x8b]) {
            let advice = "unpack it first: `gunzip -k Image.gz`";
            return Err(NotAProgram::new("the file is compressed by gzip").advise(advice));
        }
        if file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg") {
            let advice = "take arch/arm64/boot/Image of the same build instead";
            return Err(NotAProgram::new("the file is a compressed EFI image").advise(advice));
        }
        if file.get(IMAGE_MAGIC..IMAGE_MAGIC + 4) == Some(b"ARM\x64") {
            return image(file);
        }
        Ok(Self { room: file.len() as u64, bytes: file, place: Place::Anywhere })
    }

    /// Whether it is a Linux image.
    pub fn is_kernel(&self) -> bool {
        matches!(self.place, Place::Offset(_))
    }
}

/// A Linux image says how far from a 2 MiB boundary it lies and how much memory it takes.
fn image(bytes: Vec<u8>) -> Result<Program, NotAProgram> {
    let word = |at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let (offset, size, flags) = (word(8), word(16), word(24));
    if flags & 1 != 0 {
        return Err(NotAProgram::new("the kernel is big-endian"));
    }
    // Before Linux 3.17 the size was 0 and the offset not to be trusted.
    let (offset, size) = if size == 0 { (0x8_0000, 0) } else { (offset, size) };
    if offset >= 2 << 20 || !offset.is_multiple_of(4096) {
        return Err(NotAProgram::new(format!("the kernel's text_offset is {offset:#x}")));
    }
    let room = size.max(bytes.len() as u64);
    if room > LARGEST {
        return Err(NotAProgram::new(format!("the kernel takes {room:#x} bytes")));
    }
    Ok(Program { bytes, room, place: Place::Offset(offset) })
}

/// Lays the segments of an ELF file out as memory would hold them.
fn elf(file: &[u8]) -> Result<Program, NotAProgram> {
    let broken =
        |error: object::Error| NotAProgram::new(format!("the ELF file is broken: {error}"));
    let wrong = NotAProgram::new("the ELF file is not for 64-bit Arm");
    let header = FileHeader64::<Endianness>::parse(file).map_err(|_| wrong.clone())?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != EM_AARCH64 || endian != Endianness::Little {
        return Err(wrong);
    }
    let segments = header.program_headers(endian, file).map_err(broken)?;
    let loaded: Vec<_> = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0)
        .collect();
    let nothing = || NotAProgram::new("nothing in the ELF file is to be loaded");
    let base = loaded.iter().map(|segment| segment.p_paddr(endian)).min().ok_or_else(nothing)?;
    let mut length = 0;
    for segment in &loaded {
        let end = (segment.p_paddr(endian) - base).checked_add(segment.p_memsz(endian));
        length = length.max(end.unwrap_or(u64::MAX));
    }
    if length > LARGEST {
        return Err(NotAProgram::new(format!("the ELF file spans {length:#x} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    for segment in loaded {
        let cut = NotAProgram::new("a segment of the ELF file is cut short");
        let data = segment.data(endian, file).map_err(|()| cut.clone())?;
        let offset = (segment.p_paddr(endian) - base) as usize;
        // More bytes in the file than in memory: the format does not allow it.
        let into = bytes.get_mut(offset..offset + data.len()).ok_or(cut)?;
        into.copy_from_slice(data);
    }
    let place = Place::Fixed { load: base, entry: header.e_entry(endian) };
    Ok(Program { bytes, room: length, place })
}

#[cfg(test)]
mod tests;
