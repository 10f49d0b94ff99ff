//! What the manager tells unasked about a parcel.
//!
//! ```text
//! MEM_SHARED             0: u32 handle    4: u8 memory kind, u8 transfer, u8 bit 0 = zeroed, u8 0
//!                        8: u16 owner, u16 0    12: u32 label    16: u32 tag
//!                        20: access list, sizes (u64 each), attribute list
//! MEM_RELEASED, _ACCEPTED  0: u32 handle    4: u16 borrower, u16 0    8: u32 tag
//! MEM_RECALL             0: u32 handle    4: u32 tag
//! ```
//! The tag is 0 for a parcel whose owner never set one.

use super::{MemoryKind, Transfer};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::list::{AclEntry, AttributeEntry, Entry, List, end};
use crate::names::{Handle, Vmid};

/// The size of one physically contiguous run of a parcel. Its address is not the borrower's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SizeEntry(pub u64);

impl Entry for SizeEntry {
    const SIZE: usize = 8;
    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self(bytes.u64_at(at))
    }
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.0);
    }
}

/// A parcel was offered to the receiver: what MEM_SHARED says before its lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Offer {
    /// Which parcel.
    pub handle: Handle,
    /// RAM or registers.
    pub memory: MemoryKind,
    /// How it was made.
    pub transfer: Transfer,
    /// Whether it was zeroed when it was made.
    pub sanitized: bool,
    /// Who made it.
    pub owner: Vmid,
    /// Its label.
    pub label: u32,
    /// The owner's tag.
    pub tag: u32,
}

/// The lists of MEM_SHARED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferLists {
    /// Who may accept the parcel.
    pub acl: List<AclEntry>,
    /// Its physically contiguous runs.
    pub sizes: List<SizeEntry>,
    /// Memory types other than the default.
    pub attributes: List<AttributeEntry>,
}

/// Offset of the lists of MEM_SHARED.
const LISTS: usize = 20;

impl Offer {
    /// Writes the payload of MEM_SHARED, and returns its length.
    pub fn encode(
        &self,
        acl: &[AclEntry],
        sizes: &[SizeEntry],
        attributes: &[AttributeEntry],
        into: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u8(self.memory.0).u8(self.transfer as u8);
        writer.u8(self.sanitized.into()).u8(0).u16(self.owner.0).u16(0);
        writer.u32(self.label).u32(self.tag);
        writer.list(acl, 0).list(sizes, 0).list(attributes, 0);
        writer.finish()
    }

    /// Reads a payload of MEM_SHARED, or nothing if it is malformed.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<(Self, OfferLists)> {
        if payload.len() < LISTS {
            return None;
        }
        let offer = Self {
            handle: Handle(payload.u32_at(0)),
            memory: MemoryKind(payload.u8_at(4)),
            transfer: Transfer::from_wire(payload.u8_at(5))?,
            sanitized: payload.u8_at(6) & 1 != 0,
            owner: Vmid(payload.u16_at(8)),
            label: payload.u32_at(12),
            tag: payload.u32_at(16),
        };
        let mut at = LISTS;
        let lists = OfferLists {
            acl: List::decode(payload, &mut at).ok()?,
            sizes: List::decode(payload, &mut at).ok()?,
            attributes: List::decode(payload, &mut at).ok()?,
        };
        end(payload, at).ok()?;
        Some((offer, lists))
    }
}

/// A borrower accepted or released a parcel: the payload of MEM_ACCEPTED and MEM_RELEASED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BorrowerNews {
    /// Which parcel.
    pub handle: Handle,
    /// Which borrower.
    pub borrower: Vmid,
    /// The owner's tag.
    pub tag: u32,
}

impl BorrowerNews {
    /// Bytes of the payload.
    pub const SIZE: usize = 12;

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u16(self.borrower.0).u16(0).u32(self.tag).finish()
    }

    /// Reads a payload, or nothing if its length is wrong.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<Self> {
        (payload.len() == Self::SIZE).then(|| Self {
            handle: Handle(payload.u32_at(0)),
            borrower: Vmid(payload.u16_at(4)),
            tag: payload.u32_at(8),
        })
    }
}

/// The owner of a parcel wants it back: the payload of MEM_RECALL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Recall {
    /// Which parcel.
    pub handle: Handle,
    /// The owner's tag.
    pub tag: u32,
}

impl Recall {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.tag).finish()
    }

    /// Reads a payload, or nothing if its length is wrong.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<Self> {
        (payload.len() == Self::SIZE)
            .then(|| Self { handle: Handle(payload.u32_at(0)), tag: payload.u32_at(4) })
    }
}
