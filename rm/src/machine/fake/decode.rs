//! Stage-2 descriptors as the Arm ARM defines them (DDI 0487, "VMSAv8-64 stage 2 descriptor
//! formats", 4 KiB granule, without FEAT_LPA2).
//!
//! Written independently of the manager's encoder, so that the two check each other. Bits that the
//! manager has no business with must be 0.

use super::cache::Path;
use crate::address::Pa;
use crate::machine::Features;

/// Bits that the hardware ignores in a leaf: left to software.
const SOFTWARE: u64 = 0xf << 55;
/// The output address.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Bits of a leaf that the manager may use: bits 1:0, MemAttr, S2AP, SH, AF, address, XN, software.
const LEAF_BITS: u64 = 0x7ff | ADDRESS | 1 << 54 | SOFTWARE;

/// What the walker makes of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Invalid,
    Table(Pa),
    Leaf(Translation),
}

/// A block or page, as the TLB keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Translation {
    pub(super) pa: Pa,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) execute: bool,
    /// MemAttr and SH.
    pub(super) memory: u64,
}

impl Translation {
    /// Whether this grants a right that `other` does not.
    pub(super) const fn exceeds(&self, other: &Self) -> bool {
        self.read & !other.read | self.write & !other.write | self.execute & !other.execute
    }

    /// How an access goes whose stage 1 says `stage_1`: the stricter stage wins, unless stage 2 forces
    /// write-back (FEAT_S2FWB).
    pub(super) const fn path(&self, stage_1: Path) -> Path {
        match self.memory & 0xf {
            0b1111 => stage_1,
            0b0110 => Path::Cached,
            _ => Path::Uncached,
        }
    }

    /// Whether pages are write-back as far as stage 2 is concerned.
    pub(super) const fn is_write_back(&self) -> bool {
        matches!(self.path(Path::Cached), Path::Cached)
    }
}

/// Pages that an entry of a table of `level` spans.
pub(super) const fn size(level: u32) -> u64 {
    match level {
        1 => 512 * 512,
        2 => 512,
        _ => 1,
    }
}

/// Whether the hardware could tell the two descriptors apart.
pub(super) const fn differ(old: u64, new: u64) -> bool {
    (old | new) & 1 != 0 && (old ^ new) & !SOFTWARE != 0
}

/// Whether a table walk goes on with an entry.
pub(super) const fn is_valid(entry: u64) -> bool {
    entry & 1 != 0
}

/// What the hardware makes use of.
pub(super) const fn hardware(entry: u64) -> u64 {
    entry & !SOFTWARE
}

/// The leaf that says of the next pages what a leaf of a table of `level` says of its own.
pub(super) fn next_of(entry: u64, level: u32) -> Option<u64> {
    let is_leaf = entry & 3 == if level == 3 { 3 } else { 1 };
    // An address that overflows changes other bits.
    is_leaf.then(|| hardware(entry) + size(level) * 4096)
}

/// Decodes an entry of a table of `level`.
pub(super) fn decode(features: Features, entry: u64, level: u32) -> Entry {
    match (entry & 3, level) {
        (0 | 2, _) => Entry::Invalid,
        (3, 1 | 2) => {
            assert!(entry & !(ADDRESS | 3) == 0, "table descriptor {entry:#x} has stray bits");
            Entry::Table(Pa(entry & ADDRESS))
        }
        (1, 1 | 2) | (3, 3) => Entry::Leaf(leaf(features, entry, level)),
        _ => panic!("descriptor {entry:#x} is reserved at level {level}"),
    }
}

fn leaf(features: Features, entry: u64, level: u32) -> Translation {
    assert!(entry & !LEAF_BITS == 0, "leaf {entry:#x} has stray bits");
    assert!(entry & 1 << 10 != 0, "leaf {entry:#x} has no access flag");
    let pa = Pa(entry & ADDRESS);
    assert!(pa.is_aligned(size(level) * 4096), "leaf {entry:#x} is not aligned");
    let write_back = if features.forced_write_back { 0b0110 } else { 0b1111 };
    let attributes = entry >> 2 & 0xf;
    let shareability = entry >> 8 & 3;
    assert!(
        [write_back, 0b0101, 0b0001].contains(&attributes),
        "leaf {entry:#x} has an unexpected memory type"
    );
    assert!(
        shareability == if attributes == write_back { 3 } else { 0 },
        "leaf {entry:#x} has an unexpected shareability"
    );
    let read = entry & 1 << 6 != 0;
    Translation {
        pa,
        read,
        write: entry & 1 << 7 != 0,
        // An instruction fetch needs the right to read as well.
        execute: entry & 1 << 54 == 0 && read,
        memory: attributes | shareability << 4,
    }
}
