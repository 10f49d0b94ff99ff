//! An SD card as a file: a partition table, firmware at a fixed place where a board wants that, and
//! one FAT32 partition.
//!
//! ```text
//! 0          partition table (MBR)
//! 32 KiB     only where the board's boot ROM looks there: the boot loader
//! 4, 8 MiB   FAT32 partition, to the end
//! ```
//!
//! What lies between those is not ours: [`Card::pieces`] leaves it out, so that flashing a card keeps
//! a boot loader that somebody has put there before.

use std::io::{Cursor, Write};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use fatfs::{
    Date, DateTime, Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider,
    format_volume,
};

/// Bytes of a sector, of cards and of the partition table's numbers.
pub const SECTOR: u64 = 512;

const MIB: u64 = 1 << 20;
/// FAT32 means at least 65,525 clusters (Microsoft, "FAT32 File System Specification" 1.03, "FAT type
/// determination"); of 512 bytes each they and their tables need about 33 MiB. One more doubling
/// leaves room for a user's own files.
const SMALLEST_PARTITION: u64 = 64 * MIB;
/// Partition type "FAT32, addressed by sector number".
const TYPE_FAT32: u8 = 0x0c;
/// "Boot from this partition": U-Boot looks for scripts on such ones first.
const ACTIVE: u8 = 0x80;
/// Cylinder, head and sector of whatever lies beyond their range.
const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];

/// A file for the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the partition, with `/` between folders.
    pub path: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// Bytes at a fixed place outside any partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What it is.
    pub name: String,
    /// Where, counted from the card's first byte.
    pub at: u64,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A part of the card that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is, for people.
    pub name: String,
    /// Where.
    pub range: Range<u64>,
}

/// A card, complete.
#[derive(Clone, Debug)]
pub struct Card {
    /// From the first byte to the end of the partition.
    pub bytes: Vec<u8>,
    /// The parts of it that matter. The partition table comes last: a card that was cut off while it
    /// was written does not look finished.
    pub pieces: Vec<Piece>,
}

/// Lays a card out. `start` is where the partition begins.
pub fn card(start: u64, blobs: &[Blob], files: &[File]) -> Result<Card> {
    ensure!(start.is_multiple_of(SECTOR) && start > 0, "a partition starts on a sector");
    for blob in blobs {
        let end = blob.at + blob.bytes.len() as u64;
        ensure!(
            blob.at >= SECTOR && end <= start,
            "{} needs the card's bytes {:#x} to {end:#x}, but the partition starts at {start:#x}",
            blob.name,
            blob.at
        );
    }
    let size = partition_size(files);
    let mut bytes = vec![0; (start + size) as usize];
    for blob in blobs {
        bytes[blob.at as usize..][..blob.bytes.len()].copy_from_slice(&blob.bytes);
    }
    let identity = identity(files);
    fill(&mut bytes[start as usize..], start, identity, files)?;
    bytes[..SECTOR as usize].copy_from_slice(&partition_table(start, size, identity));
    let count = match files.len() {
        1 => "1 file".into(),
        many => format!("{many} files"),
    };
    let mut pieces: Vec<Piece> = blobs
        .iter()
        .map(|blob| Piece {
            name: blob.name.clone(),
            range: blob.at..(blob.at + blob.bytes.len() as u64).next_multiple_of(SECTOR),
        })
        .collect();
    pieces
        .push(Piece { name: format!("FAT32 partition with {count}"), range: start..start + size });
    pieces.push(Piece { name: "partition table".into(), range: 0..SECTOR });
    Ok(Card { bytes, pieces })
}

/// A number by which a computer tells this card from others: the same for the same files.
fn identity(files: &[File]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    files.iter().for_each(|file| hasher.update(&file.bytes));
    hasher.finalize()
}

/// Room for the files, a quarter more for tables and clusters, in whole MiB.
fn partition_size(files: &[File]) -> u64 {
    let contents: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
    (contents + contents / 4).next_multiple_of(MIB).max(SMALLEST_PARTITION)
}

/// The first sector: one active FAT32 partition.
fn partition_table(start: u64, size: u64, identity: u32) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[440..444].copy_from_slice(&identity.to_le_bytes());
    let entry = &mut sector[446..462];
    entry[0] = ACTIVE;
    entry[1..4].copy_from_slice(&NO_GEOMETRY);
    entry[4] = TYPE_FAT32;
    entry[5..8].copy_from_slice(&NO_GEOMETRY);
    entry[8..12].copy_from_slice(&((start / SECTOR) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((size / SECTOR) as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Makes the file system and puts the files into it.
fn fill(partition: &mut [u8], start: u64, identity: u32, files: &[File]) -> Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .volume_label(*b"RM BOOT    ")
        .volume_id(identity);
    format_volume(Cursor::new(&mut *partition), options).context("the FAT file system")?;
    // "Hidden sectors": how many lie before the partition. In the boot sector and its copy
    // (FAT32 File System Specification 1.03, BPB_HiddSec and BPB_BkBootSec).
    for sector in [0, 6] {
        let at = sector * SECTOR as usize + 28;
        partition[at..at + 4].copy_from_slice(&((start / SECTOR) as u32).to_le_bytes());
    }
    let options = FsOptions::new().time_provider(&NO_CLOCK);
    let disk = FileSystem::new(Cursor::new(partition), options)?;
    for file in files {
        put(disk.root_dir(), file).with_context(|| format!("{} on the card", file.path))?;
    }
    disk.unmount().context("the FAT file system")
}

/// Files are as old as the file system: the same files give the same card.
#[derive(Debug)]
struct NoClock;

static NO_CLOCK: NoClock = NoClock;

impl TimeProvider for NoClock {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: self.get_current_date(),
            time: Time { hour: 0, min: 0, sec: 0, millis: 0 },
        }
    }
}

/// Writes a file, and makes the folders on the way to it.
fn put<'a, T: fatfs::ReadWriteSeek + 'a>(root: Dir<'a, T>, file: &File) -> Result<()> {
    let mut folder = root;
    let mut parts = file.path.split('/').peekable();
    while let Some(part) = parts.next() {
        ensure!(!part.is_empty() && part != "..", "that is no path inside a card");
        if parts.peek().is_some() {
            folder = folder.create_dir(part)?;
        } else {
            let mut target = folder.create_file(part)?;
            target.truncate()?;
            target.write_all(&file.bytes)?;
            target.flush()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const START: u64 = 8 << 20;

    fn file(path: &str, bytes: &[u8]) -> File {
        File { path: path.into(), bytes: bytes.into() }
    }

    fn read(card: &Card, path: &str) -> Vec<u8> {
        let partition = card.bytes[START as usize..].to_vec();
        let disk = FileSystem::new(Cursor::new(partition), FsOptions::new()).unwrap();
        let mut bytes = Vec::new();
        disk.root_dir().open_file(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn number(bytes: &[u8], at: usize) -> u64 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
    }

    #[test]
    fn what_was_put_on_the_card_is_read_from_it() {
        let big: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let files = [file("kernel8.img", &big), file("overlays/disable-bt.dtbo", b"overlay")];
        let card = card(START, &[], &files).unwrap();
        assert_eq!(read(&card, "kernel8.img"), big);
        assert_eq!(read(&card, "overlays/disable-bt.dtbo"), b"overlay");
    }

    #[test]
    fn the_file_system_is_fat32_and_knows_where_it_lies() {
        let card = card(START, &[], &[file("a", b"a")]).unwrap();
        let partition = card.bytes[START as usize..].to_vec();
        assert_eq!(number(&partition, 28) * SECTOR, START);
        assert_eq!(number(&partition, 6 * 512 + 28) * SECTOR, START);
        let disk = FileSystem::new(Cursor::new(partition), FsOptions::new()).unwrap();
        assert_eq!(disk.fat_type(), FatType::Fat32);
    }

    #[test]
    fn the_partition_table_names_one_active_partition_to_the_end() {
        let card = card(START, &[], &[file("a", b"a")]).unwrap();
        assert_eq!(card.bytes[510..512], [0x55, 0xaa]);
        let entry = &card.bytes[446..462];
        assert_eq!((entry[0], entry[4]), (0x80, 0x0c));
        assert_eq!(number(entry, 8) * SECTOR, START);
        assert_eq!(START + number(entry, 12) * SECTOR, card.bytes.len() as u64);
        assert_eq!(card.bytes[462..510], [0; 48], "no other partition");
    }

    #[test]
    fn the_same_files_give_the_same_card() {
        let make = || card(START, &[], &[file("a", b"a"), file("folder/b", b"b")]).unwrap().bytes;
        assert!(make() == make());
    }

    #[test]
    fn a_partition_grows_with_its_files() {
        let small = card(START, &[], &[file("a", b"a")]).unwrap();
        let large = card(START, &[], &[file("a", &vec![1; 80 << 20])]).unwrap();
        assert_eq!(small.bytes.len() as u64, START + SMALLEST_PARTITION);
        assert_eq!(large.bytes.len() as u64, START + (100 << 20));
        assert_eq!(read(&large, "a").len(), 80 << 20);
    }

    #[test]
    fn firmware_lies_at_its_place_and_the_gap_is_not_ours() {
        let blob = Blob { name: "flash.bin".into(), at: 32 << 10, bytes: vec![7; 1000] };
        let card = card(START, &[blob], &[file("a", b"a")]).unwrap();
        assert_eq!(card.bytes[32 << 10..][..1000], [7; 1000]);
        let ranges: Vec<_> = card.pieces.iter().map(|piece| piece.range.clone()).collect();
        let end = card.bytes.len() as u64;
        assert_eq!(ranges, [32 << 10..(32 << 10) + 1024, START..end, 0..512]);
    }

    #[test]
    fn firmware_that_reaches_into_the_partition_is_refused() {
        let blob = Blob { name: "flash.bin".into(), at: 32 << 10, bytes: vec![7; 8 << 20] };
        let error = card(START, &[blob], &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("flash.bin needs the card's bytes 0x8000 to 0x808000"),
            "{error}"
        );
    }

    #[test]
    fn a_path_that_leaves_the_card_is_refused() {
        assert!(card(START, &[], &[file("../a", b"a")]).is_err());
        assert!(card(START, &[], &[file("/a", b"a")]).is_err());
    }
}
