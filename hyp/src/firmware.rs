//! What firmware tells about the memory, in the device tree whose address it leaves in X0.
//!
//! The board says where RAM can be and what is never EL2's; the tree says how much there is on this very
//! board and what else is kept. Without a readable tree EL2 uses what every board of the kind has.

use core::fmt;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use heapless::Vec;
use rm::address::{PAGE_SIZE, Pa};

use crate::board::{Board, Region};

/// Most banks of RAM, and most ranges that are kept.
pub const MAX_REGIONS: usize = 32;
/// A list of ranges.
pub type Regions = Vec<Region, MAX_REGIONS>;
/// Most bytes of a tree (Linux, `Documentation/arch/arm64/booting.rst`).
pub const MAX_TREE: usize = 2 << 20;
/// The first bytes of a tree, and how many tell its length (Devicetree specification 0.4, 5.2).
const MAGIC: u32 = 0xd00d_feed;
/// How many bytes [`length`] looks at.
pub const HEAD: usize = 8;

/// Why a tree is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It does not start as a tree, or is too long.
    NotATree,
    /// It is damaged.
    Damaged,
    /// It names no RAM.
    NoRam,
    /// It has more than [`MAX_REGIONS`] banks, or keeps more ranges.
    TooMany,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotATree => "it is none",
            Self::Damaged => "it is damaged",
            Self::NoRam => "it names no RAM",
            Self::TooMany => "it names too many ranges",
        })
    }
}

/// What a tree says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whole pages of RAM.
    pub ram: Regions,
    /// Pages that somebody else uses a part of.
    pub kept: Regions,
}

/// Length of the tree that begins with these bytes.
pub fn length(head: [u8; HEAD]) -> Result<usize, Error> {
    let [magic, length] = [0, 4].map(|at| u32::from_be_bytes([0, 1, 2, 3].map(|n| head[at + n])));
    let length = length as usize;
    if magic == MAGIC && length <= MAX_TREE { Ok(length) } else { Err(Error::NotATree) }
}

/// Reads a tree.
pub fn read(tree: &[u8]) -> Result<Memory, Error> {
    let tree = Fdt::new(tree).map_err(|_| Error::Damaged)?;
    let mut memory = Memory::default();
    for reservation in tree.memory_reservations() {
        push(&mut memory.kept, outwards(reservation.address(), reservation.size()))?;
    }
    for node in tree.root().children() {
        if is_memory(&node) {
            ranges(&node, |start, size| push(&mut memory.ram, inwards(start, size)))?;
        } else if node.name() == "reserved-memory" {
            for kept in node.children() {
                ranges(&kept, |start, size| push(&mut memory.kept, outwards(start, size)))?;
            }
        }
    }
    if memory.ram.is_empty() { Err(Error::NoRam) } else { Ok(memory) }
}

/// Whether a node describes RAM that is there (Devicetree specification 0.4, 3.4).
fn is_memory(node: &FdtNode<'_>) -> bool {
    let is = |name: &str, value: &str| {
        node.property(name).is_some_and(|property| property.value_as::<&str>() == Ok(value))
    };
    let on = node.property("status").is_none() || is("status", "okay") || is("status", "ok");
    on && is("device_type", "memory")
}

/// Tells of the ranges in a node's property `reg`.
fn ranges(
    node: &FdtNode<'_>,
    mut each: impl FnMut(u64, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(all) = node.reg().map_err(|_| Error::Damaged)? else { return Ok(()) };
    for range in all {
        let start = range.address::<u64>().map_err(|_| Error::Damaged)?;
        each(start, range.size::<u64>().map_err(|_| Error::Damaged)?)?;
    }
    Ok(())
}

/// The whole pages of a range.
fn inwards(start: u64, size: u64) -> Region {
    let end = start.saturating_add(size) / PAGE_SIZE * PAGE_SIZE;
    let first = start.checked_next_multiple_of(PAGE_SIZE).unwrap_or(end);
    Region::new(first.min(end), end.saturating_sub(first))
}

/// All pages that a range touches.
fn outwards(start: u64, size: u64) -> Region {
    const LAST: u64 = u64::MAX / PAGE_SIZE * PAGE_SIZE;
    let end = start.saturating_add(size).checked_next_multiple_of(PAGE_SIZE).unwrap_or(LAST);
    let first = start / PAGE_SIZE * PAGE_SIZE;
    if size == 0 { Region::new(first, 0) } else { Region::new(first, end - first) }
}

/// RAM that is EL2's, in ascending order: what the board and the tree both call RAM, without what either
/// keeps.
pub fn layout(board: &Board, tree: Option<&Memory>) -> Result<Regions, Error> {
    let mut all = Regions::new();
    match tree {
        None => all.extend_from_slice(board.ram).map_err(|_| Error::TooMany)?,
        Some(memory) => {
            for window in windows(board)? {
                for bank in &memory.ram {
                    push(&mut all, window.common(bank))?;
                }
            }
        }
    }
    let kept = tree.into_iter().flat_map(|memory| &memory.kept);
    for kept in board.reserved.iter().chain(kept) {
        for region in core::mem::take(&mut all) {
            for part in region.without(kept) {
                push(&mut all, part)?;
            }
        }
    }
    let all = disjoint(all);
    if all.is_empty() { Err(Error::NoRam) } else { Ok(all) }
}

/// The same RAM in ascending order, each page once: a tree may name some twice.
fn disjoint(mut all: Regions) -> Regions {
    all.sort_unstable_by_key(|region| region.start.0);
    let mut end = 0;
    for region in &mut all {
        let start = region.start.0.max(end).min(region.end().0);
        *region = Region::new(start, region.end().0 - start);
        end = end.max(region.end().0);
    }
    all.retain(|region| region.size > 0);
    all
}

/// Where the board can have RAM; windows that touch are one.
fn windows(board: &Board) -> Result<Regions, Error> {
    let mut all = Regions::new();
    for window in board.ram.iter().chain(board.more_ram) {
        match all.iter_mut().find(|other| other.end() == window.start) {
            Some(before) => before.size += window.size,
            None => push(&mut all, *window)?,
        }
    }
    Ok(all)
}

fn push(regions: &mut Regions, region: Region) -> Result<(), Error> {
    if region.size == 0 { Ok(()) } else { regions.push(region).map_err(|_| Error::TooMany) }
}

/// Whether the board can have RAM there.
pub fn may_be_ram(board: &Board, at: Pa) -> bool {
    board.ram.iter().chain(board.more_ram).any(|window| window.contains(at))
}
