//! The bits of a stage-2 descriptor, and what they say of a page.
//!
//! 4 KiB granule, 39-bit guest addresses: the root is one level-1 table of 512 x 1 GiB (Arm DDI 0487,
//! "VMSAv8-64 descriptor formats"). Bits `[58:55]` of a leaf are left to software and all bits of an
//! invalid descriptor but bit 0 are, so both carry the [`State`]: there is no second place where
//! ownership is written down. A zero descriptor is [`State::Absent`], hence a table that maps nothing
//! is all zero.

use rm_abi::Rights;

use crate::address::Pa;
use crate::machine::Features;
use crate::stage2::Access;

/// Bit 0: the hardware looks at the rest.
pub(super) const VALID: u64 = 1;
/// Bit 1 of a valid descriptor: a page at level 3, a table at levels 1 and 2.
pub(super) const PAGE_OR_TABLE: u64 = 1 << 1;
/// The output address: of the next table, of a valid leaf, and kept by software in an invalid one.
pub(super) const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// S2AP: reading and writing.
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
/// SH, inner shareable. Other memory types than write-back are outer shareable whatever SH says.
const INNER_SHAREABLE: u64 = 3 << 8;
/// The access flag; set from the start, since nobody ages pages here.
const ACCESSED: u64 = 1 << 10;
/// XN. Bit 53 stays 0, so the bit means the same with FEAT_XNX: no execution at EL1 and EL0.
const EXECUTE_NEVER: u64 = 1 << 54;
const STATE_SHIFT: u32 = 55;
const STATE: u64 = 0xf << STATE_SHIFT;
const MEMORY_SHIFT: u32 = 2;
const MEMORY: u64 = 0xf << MEMORY_SHIFT;
/// MemAttr of the three types. Only write-back is spelled differently with FEAT_S2FWB, where bit 4 of
/// the descriptor set means "stage 2 decides" (DDI 0487, "Stage 2 memory type and Cacheability
/// attributes when FEAT_S2FWB is enabled").
const WRITE_BACK: u64 = 0b1111 << MEMORY_SHIFT;
const FORCED_WRITE_BACK: u64 = 0b0110 << MEMORY_SHIFT;
const NON_CACHEABLE: u64 = 0b0101 << MEMORY_SHIFT;
/// Device-nGnRE.
const DEVICE: u64 = 0b0001 << MEMORY_SHIFT;
/// The parcel of a lent page: thirteen bits, eleven below the address and two above.
const PARCEL_LOW_SHIFT: u32 = 1;
const PARCEL_LOW_BITS: u32 = 11;
const PARCEL_HIGH_SHIFT: u32 = 48;
const PARCEL_MAX: u16 = (1 << 13) - 1;

/// The level of a table: 1 is the root, 3 holds pages.
pub(super) type Level = u32;
pub(super) const ROOT_LEVEL: Level = 1;
pub(super) const PAGE_LEVEL: Level = 3;

/// What a page is to a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum State {
    /// Nothing is here.
    Absent = 0,
    /// The VM's own, with all rights and write-back.
    Owned = 1,
    /// As `Owned`, while a call of the VM prepares.
    Claimed = 2,
    /// The VM's own, and in a parcel that others may map.
    Shared = 3,
    /// Another VM's, mapped from a parcel.
    Borrowed = 4,
    /// Registers: passed through, or, if the leaf is invalid, emulated.
    Device = 5,
    /// The VM's own, out of its reach until it is reclaimed. Invalid.
    Lent = 6,
    /// About to be filled by an accept of this VM; keeps the tables that the accept needs. Invalid.
    Held = 7,
}

impl State {
    const ALL: [Self; 8] = [
        Self::Absent,
        Self::Owned,
        Self::Claimed,
        Self::Shared,
        Self::Borrowed,
        Self::Device,
        Self::Lent,
        Self::Held,
    ];

    const fn bits(self) -> u64 {
        (self as u64) << STATE_SHIFT
    }

    /// The state in a leaf.
    #[inline]
    pub(super) fn of(entry: u64) -> Self {
        // Only this file writes the field, and only with the eight states.
        Self::ALL[(entry >> STATE_SHIFT) as usize & 7]
    }
}

/// How a page is cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MemoryType {
    /// Normal, write-back: what RAM is.
    WriteBack,
    /// Normal, not cacheable.
    NonCacheable,
    /// Device-nGnRE.
    Device,
}

/// All bits of a leaf but the address, for one machine.
#[derive(Clone, Copy)]
pub(super) struct Encoder {
    write_back: u64,
}

impl Encoder {
    pub(super) const fn new(features: Features) -> Self {
        let write_back = if features.forced_write_back { FORCED_WRITE_BACK } else { WRITE_BACK };
        Self { write_back }
    }

    /// A valid leaf of `level`.
    pub(super) fn leaf(
        self,
        level: Level,
        state: State,
        rights: Rights,
        memory: MemoryType,
    ) -> u64 {
        let mut bits = VALID | ACCESSED | state.bits();
        bits |= match memory {
            MemoryType::WriteBack => self.write_back | INNER_SHAREABLE,
            MemoryType::NonCacheable => NON_CACHEABLE,
            MemoryType::Device => DEVICE,
        };
        if level == PAGE_LEVEL {
            bits |= PAGE_OR_TABLE;
        }
        if rights.contains(Rights::R) {
            bits |= READ;
        }
        if rights.contains(Rights::W) {
            bits |= WRITE;
        }
        if !rights.contains(Rights::X) {
            bits |= EXECUTE_NEVER;
        }
        bits
    }

    /// A plain OWNED leaf: all rights, write-back.
    #[inline]
    pub(super) const fn owned(self, level: Level) -> u64 {
        let page = if level == PAGE_LEVEL { PAGE_OR_TABLE } else { 0 };
        VALID
            | ACCESSED
            | State::Owned.bits()
            | self.write_back
            | INNER_SHAREABLE
            | READ
            | WRITE
            | page
    }
}

/// All bits of an invalid leaf but the address.
pub(super) const fn invalid(state: State) -> u64 {
    state.bits()
}

/// All bits of a LENT leaf but the address.
pub(super) fn lent(parcel: u16) -> u64 {
    assert!(parcel <= PARCEL_MAX, "G2: a lent page names its parcel");
    let parcel = u64::from(parcel);
    State::Lent.bits()
        | (parcel << PARCEL_LOW_SHIFT) & 0xffe
        | (parcel >> PARCEL_LOW_BITS) << PARCEL_HIGH_SHIFT
}

/// `entry` in another state, the hardware's bits unchanged.
pub(super) const fn retag(entry: u64, state: State) -> u64 {
    entry & !STATE | state.bits()
}

/// What an entry of `level` says of the first part of the leaf `entry` of the level above.
pub(super) const fn lowered(entry: u64, level: Level) -> u64 {
    // Invalid leaves are alike at all levels.
    let page = if level == PAGE_LEVEL && is_valid(entry) { PAGE_OR_TABLE } else { 0 };
    entry | page
}

/// What the hardware looks at.
pub(super) const fn hardware(entry: u64) -> u64 {
    if is_valid(entry) { entry & !STATE } else { 0 }
}

/// A descriptor that leads to the table at `pa`.
pub(super) const fn table(pa: Pa) -> u64 {
    pa.0 | PAGE_OR_TABLE | VALID
}

/// Whether an entry of `level` leads to a table.
#[inline]
pub(super) const fn is_table(entry: u64, level: Level) -> bool {
    level != PAGE_LEVEL && entry & (PAGE_OR_TABLE | VALID) == PAGE_OR_TABLE | VALID
}

#[inline]
pub(super) const fn is_valid(entry: u64) -> bool {
    entry & VALID != 0
}

/// The address in any descriptor.
#[inline]
pub(super) const fn address(entry: u64) -> Pa {
    Pa(entry & ADDRESS)
}

/// What the hardware lets the VM do through a leaf.
pub(super) fn rights(entry: u64) -> Rights {
    let mut rights = Rights::empty();
    if !is_valid(entry) {
        return rights;
    }
    if entry & READ != 0 {
        rights |= Rights::R;
    }
    if entry & WRITE != 0 {
        rights |= Rights::W;
    }
    if entry & EXECUTE_NEVER == 0 {
        rights |= Rights::X;
    }
    rights
}

/// Whether an entry is a leaf of RAM through which the hardware lets this access go. On the way of
/// every copy from or to a guest, so it looks at bits only.
#[inline]
pub(super) const fn lets(entry: u64, access: Access) -> bool {
    let granted = match access {
        Access::Read => entry & READ != 0,
        Access::Write => entry & WRITE != 0,
        Access::Execute => entry & EXECUTE_NEVER == 0,
    };
    is_valid(entry) && granted && entry & STATE != State::Device.bits()
}

/// The memory type of a leaf; write-back, the type of RAM, of an invalid one.
pub(super) const fn memory(entry: u64) -> MemoryType {
    if !is_valid(entry) {
        return MemoryType::WriteBack;
    }
    match entry & MEMORY {
        NON_CACHEABLE => MemoryType::NonCacheable,
        DEVICE => MemoryType::Device,
        _ => MemoryType::WriteBack,
    }
}

/// The parcel of a LENT leaf.
pub(super) const fn parcel(entry: u64) -> u16 {
    let low = entry >> PARCEL_LOW_SHIFT & 0x7ff;
    let high = entry >> PARCEL_HIGH_SHIFT & 3;
    (low | high << PARCEL_LOW_BITS) as u16
}

/// Whether going from one valid leaf to another of the same address takes a right away.
pub(super) const fn restricts(old: u64, new: u64) -> bool {
    (old & !new & (READ | WRITE)) | (new & !old & EXECUTE_NEVER) != 0
}

/// Whether going from one valid leaf to another of the same address and size needs
/// break-before-make: the memory type or shareability differs.
pub(super) const fn retypes(old: u64, new: u64) -> bool {
    is_valid(old) && is_valid(new) && (old ^ new) & (MEMORY | INNER_SHAREABLE) != 0
}

/// Pages that an entry of `level` spans.
#[inline]
pub(super) const fn pages_of(level: Level) -> u64 {
    1 << (9 * (PAGE_LEVEL - level))
}

/// The entry of a table of `level` that translates `page`.
#[inline]
pub(super) const fn index_of(page: u64, level: Level) -> usize {
    (page >> (9 * (PAGE_LEVEL - level))) as usize & 511
}
