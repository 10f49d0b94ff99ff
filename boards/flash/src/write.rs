//! Writes a card onto a medium, and reads it back.
//!
//! Cards fail silently, and some claim a size that they do not have. So every byte is read again, from
//! the medium and not from the kernel's memory, before the tool says that the card is done.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::OFlags;

use crate::card::{Card, Piece};
use crate::permission::Size;

/// Bytes that are written or read at once: large enough for speed, small enough to show progress.
const CHUNK: usize = 1 << 20;

/// What is done with a card, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes are written.
    Write(Piece),
    /// Everything reaches the medium.
    Settle,
    /// These bytes are read back and compared.
    Verify(Piece),
}

/// All steps for a card.
pub fn steps(card: &Card) -> Vec<Step> {
    let pieces = || card.pieces.iter().cloned();
    pieces().map(Step::Write).chain([Step::Settle]).chain(pieces().map(Step::Verify)).collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |f: &mut fmt::Formatter<'_>, verb, piece: &Piece| {
            let Piece { name, range } = piece;
            let size = Size(range.end - range.start);
            write!(f, "{verb} {size} at byte {:#x}: {name}", range.start)
        };
        match self {
            Self::Write(piece) => told(f, "write", piece),
            Self::Settle => write!(f, "wait until the medium has all of it"),
            Self::Verify(piece) => told(f, "read back and compare", piece),
        }
    }
}

/// What a card can be written to.
pub trait Medium {
    /// Writes all bytes at this offset.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills the buffer from this offset.
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// What was written is on the medium when this returns, and what is read from then on comes from
    /// there.
    fn settle(&mut self) -> io::Result<()>;
}

/// Takes all steps. `progress` hears of each step how many of its bytes are done.
pub fn write(
    card: &Card,
    medium: &mut dyn Medium,
    progress: &mut dyn FnMut(&Step, u64),
) -> Result<()> {
    for step in steps(card) {
        progress(&step, 0);
        match &step {
            Step::Write(Piece { range, .. }) => {
                let mut at = range.start;
                for bytes in card.bytes[range.start as usize..range.end as usize].chunks(CHUNK) {
                    medium.write_at(at, bytes).with_context(|| {
                        format!("the medium takes no bytes at {at:#x}: it may be worn out, or gone")
                    })?;
                    at += bytes.len() as u64;
                    progress(&step, at - range.start);
                }
            }
            Step::Settle => medium.settle().context("the medium did not take all bytes")?,
            Step::Verify(Piece { range, .. }) => {
                let mut at = range.start;
                let mut buffer = vec![0; CHUNK];
                for bytes in card.bytes[range.start as usize..range.end as usize].chunks(CHUNK) {
                    let buffer = &mut buffer[..bytes.len()];
                    medium
                        .read_at(at, buffer)
                        .with_context(|| format!("the medium cannot be read at {at:#x}"))?;
                    if let Some(wrong) = buffer.iter().zip(bytes).position(|(a, b)| a != b) {
                        bail!(
                            "byte {:#x} was not kept: the medium is broken, or smaller than it \
                             says; take another one",
                            at + wrong as u64
                        );
                    }
                    at += bytes.len() as u64;
                    progress(&step, at - range.start);
                }
            }
        }
    }
    Ok(())
}

/// A block device that nobody else uses while it is open.
#[derive(Debug)]
pub struct OpenDevice(File);

impl OpenDevice {
    /// Opens a device. The kernel itself refuses if it is mounted or a part of something: for a block
    /// device O_EXCL means that (open(2)), so nothing can have changed since it was looked at.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = (OFlags::EXCL | OFlags::CLOEXEC).bits() as i32;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = opened.map_err(|error| explain(path, &error))?;
        if !file.metadata()?.file_type().is_block_device() {
            bail!("{} is no block device", path.display());
        }
        Ok(Self(file))
    }
}

/// What to do about a device that cannot be opened.
fn explain(path: &Path, error: &io::Error) -> anyhow::Error {
    let path: PathBuf = path.to_owned();
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!(
            "you may not write {path}; as root you may: `sudo env \"PATH=$PATH\" cargo run -- flash \
             ...`. Or write the card into a file (`image --card-image card.img`) and copy that: \
             `sudo dd if=card.img of={path} bs=4M conv=fsync`"
        ),
        ErrorKind::ResourceBusy => anyhow!(
            "{path} is in use: another program has it open, or it has been mounted just now; \
             unmount it and try again"
        ),
        ErrorKind::NotFound => anyhow!("{path} is gone"),
        _ => anyhow!("{path} cannot be opened: {error}"),
    }
}

impl Medium for OpenDevice {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, at)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.0.sync_all()?;
        forget(&self.0)
    }
}

/// Lets the kernel give up its own copies, which are clean.
#[cfg(target_os = "linux")]
fn forget(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};

    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Devices are only known on Linux.
#[cfg(not(target_os = "linux"))]
fn forget(_file: &File) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::{Blob, File as CardFile, card};

    /// A medium in memory, with the faults that cards have.
    struct Card32 {
        bytes: Vec<u8>,
        settled: bool,
        /// A bit that does not change.
        stuck: Option<usize>,
        /// Where writing fails.
        end: u64,
    }

    impl Card32 {
        fn of(bytes: usize) -> Self {
            Self { bytes: vec![0xee; bytes], settled: false, stuck: None, end: bytes as u64 }
        }
    }

    impl Medium for Card32 {
        fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
            if at + bytes.len() as u64 > self.end {
                return Err(io::Error::from(ErrorKind::WriteZero));
            }
            self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
            if let Some(stuck) = self.stuck {
                self.bytes[stuck] |= 0x10;
            }
            Ok(())
        }

        fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
            assert!(self.settled, "what is read may come from the kernel's memory");
            bytes.copy_from_slice(&self.bytes[at as usize..][..bytes.len()]);
            Ok(())
        }

        fn settle(&mut self) -> io::Result<()> {
            self.settled = true;
            Ok(())
        }
    }

    fn a_card() -> Card {
        let blob = Blob { name: "flash.bin".into(), at: 32 << 10, bytes: vec![7; 5000] };
        card(8 << 20, &[blob], &[CardFile { path: "a".into(), bytes: vec![1; 9000] }]).unwrap()
    }

    #[test]
    fn a_medium_has_all_pieces_afterwards_and_keeps_the_rest() {
        let card = a_card();
        let mut medium = Card32::of(card.bytes.len() + 512);
        write(&card, &mut medium, &mut |_, _| {}).unwrap();
        for Piece { range, .. } in &card.pieces {
            let range = range.start as usize..range.end as usize;
            assert_eq!(medium.bytes[range.clone()], card.bytes[range]);
        }
        assert_eq!(medium.bytes[512..32 << 10], [0xee; (32 << 10) - 512]);
        assert_eq!(medium.bytes[card.bytes.len()..], [0xee; 512]);
    }

    #[test]
    fn progress_ends_with_the_last_byte_of_each_piece() {
        let card = a_card();
        let mut told = Vec::new();
        let mut watch = |step: &Step, done| told.push((step.clone(), done));
        write(&card, &mut Card32::of(card.bytes.len()), &mut watch).unwrap();
        for step in steps(&card) {
            let of_step: Vec<_> = told.iter().filter(|(s, _)| *s == step).map(|t| t.1).collect();
            assert!(of_step.is_sorted(), "{of_step:?}");
            if let Step::Write(piece) | Step::Verify(piece) = step {
                assert_eq!(of_step.last(), Some(&(piece.range.end - piece.range.start)));
            }
        }
    }

    #[test]
    fn a_byte_that_is_not_kept_is_found() {
        let card = a_card();
        let mut medium = Card32::of(card.bytes.len());
        medium.stuck = Some((9 << 20) + 5);
        let error = write(&card, &mut medium, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.starts_with("byte 0x900005 was not kept"), "{error}");
    }

    #[test]
    fn a_medium_that_ends_early_is_told() {
        let card = a_card();
        let mut medium = Card32::of(card.bytes.len());
        medium.end = 20 << 20;
        let error = write(&card, &mut medium, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("takes no bytes at 0x1400000"), "{error}");
    }

    #[test]
    fn a_dry_run_can_be_read() {
        let told: Vec<_> = steps(&a_card()).iter().map(Step::to_string).collect();
        assert_eq!(
            told,
            [
                "write 5 kB at byte 0x8000: flash.bin",
                "write 67.1 MB at byte 0x800000: FAT32 partition with 1 file",
                "write 512 bytes at byte 0x0: partition table",
                "wait until the medium has all of it",
                "read back and compare 5 kB at byte 0x8000: flash.bin",
                "read back and compare 67.1 MB at byte 0x800000: FAT32 partition with 1 file",
                "read back and compare 512 bytes at byte 0x0: partition table",
            ]
        );
    }

    #[test]
    fn a_file_is_not_written_as_a_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = OpenDevice::open(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("is no block device"), "{error}");
        let error = OpenDevice::open(Path::new("/nonexistent/sdx")).unwrap_err().to_string();
        assert_eq!(error, "/nonexistent/sdx is gone");
    }

    #[test]
    fn an_error_says_what_to_do() {
        let told = |kind: ErrorKind| explain(Path::new("/dev/sdx"), &kind.into()).to_string();
        assert!(told(ErrorKind::PermissionDenied).contains("sudo dd if=card.img of=/dev/sdx"));
        assert!(told(ErrorKind::ResourceBusy).contains("unmount it"));
    }
}
