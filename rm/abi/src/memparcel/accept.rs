//! MEM_ACCEPT: mapping a parcel.
//!
//! ```text
//! 0: u32 handle    4: u8 memory kind, u8 transfer, u8 flags, u8 0    8: u32 label
//! 12: access list, range list (with the VMID to map for beside its count), attribute list
//! ```
//! A request that names ranges gets a reply without data. One that names none gets the ranges that the
//! manager chose:
//! ```text
//! 0: u16 count    2: u8 bit 0 = more are left    3: u8 0    4: ranges
//! ```

use super::{AcceptFlags, MemoryKind, Transfer};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::header::Header;
use crate::list::{AclEntry, AttributeEntry, Entry, List, SglEntry, end};
use crate::names::{Handle, Vmid};
use crate::reply;

/// Shortest payload.
const MINIMUM: usize = 24;
/// The flag of a reply that does not name all ranges yet.
const INCOMPLETE: u8 = 1;

/// A received request to map a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AcceptRequest {
    /// Which parcel.
    pub handle: Handle,
    /// What the caller takes it for.
    pub memory: MemoryKind,
    /// What the caller takes it for; `None` is a number that stands for no transfer.
    pub transfer: Option<Transfer>,
    /// As sent, unknown bits included.
    pub flags: AcceptFlags,
    /// The label that the caller expects, if the flags say so.
    pub label: u32,
    /// The access list that the caller expects, if the flags say so.
    pub acl: List<AclEntry>,
    /// Where to map; none lets the manager choose.
    pub sgl: List<SglEntry>,
    /// The attribute list that the caller expects, if the flags say so.
    pub attributes: List<AttributeEntry>,
}

impl AcceptRequest {
    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        let mut at = 12;
        let request = Self {
            handle: Handle(payload.u32_at(0)),
            memory: MemoryKind(payload.u8_at(4)),
            transfer: Transfer::from_wire(payload.u8_at(5)),
            flags: AcceptFlags(payload.u8_at(6)),
            label: payload.u32_at(8),
            acl: List::decode(payload, &mut at)?,
            sgl: List::decode(payload, &mut at)?,
            attributes: List::decode(payload, &mut at)?,
        };
        end(payload, at)?;
        Ok(request)
    }

    /// The VM to map for on its behalf; 0 is the caller.
    pub fn map_for(&self) -> Vmid {
        Vmid(self.sgl.auxiliary)
    }
}

/// A request to map a parcel, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accept<'a> {
    /// Which parcel.
    pub handle: Handle,
    /// What it is made of.
    pub memory: MemoryKind,
    /// How it was made.
    pub transfer: Transfer,
    /// How to map it, and what to check before.
    pub flags: AcceptFlags,
    /// The label to expect with [`AcceptFlags::VALIDATE_LABEL`].
    pub label: u32,
    /// The access list to expect with [`AcceptFlags::VALIDATE_ACL_ATTR`].
    pub acl: &'a [AclEntry],
    /// Where to map; none lets the manager choose.
    pub sgl: &'a [SglEntry],
    /// The attribute list to expect with [`AcceptFlags::VALIDATE_ACL_ATTR`].
    pub attributes: &'a [AttributeEntry],
}

impl Accept<'_> {
    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u8(self.memory.0).u8(self.transfer as u8).u8(self.flags.0).u8(0);
        writer.u32(self.label);
        writer.list(self.acl, 0).list(self.sgl, 0).list(self.attributes, 0);
        writer.finish()
    }
}

/// Bytes of a reply, header included, before the ranges that the manager chose.
pub const REPLY_HEAD: usize = reply::SIZE + 4;

/// Bytes of the reply, header included, that names `ranges` ranges.
pub const fn reply_size(ranges: usize) -> usize {
    REPLY_HEAD + ranges * SglEntry::SIZE
}

/// The reply to `request`, up to its ranges, of which there are `count`.
pub fn reply_head(request: &Header, count: u16, incomplete: bool) -> [u8; REPLY_HEAD] {
    let mut bytes = [0; REPLY_HEAD];
    bytes[..reply::SIZE].copy_from_slice(&reply::status(request, Ok(())));
    bytes[reply::SIZE..reply::SIZE + 2].copy_from_slice(&count.to_le_bytes());
    bytes[reply::SIZE + 2] = if incomplete { INCOMPLETE } else { 0 };
    bytes
}

/// The data of a reply that names ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Where the parcel is mapped.
    pub sgl: List<SglEntry>,
    /// Whether ranges are left to be named.
    pub incomplete: bool,
}

impl Accepted {
    /// Reads what follows the error word, or nothing if it is malformed.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        let mut at = 0;
        let sgl: List<SglEntry> = List::decode(data, &mut at).ok()?;
        (at == data.len() && !data.is_empty())
            .then_some(Self { sgl, incomplete: sgl.auxiliary & u16::from(INCOMPLETE) != 0 })
    }
}
