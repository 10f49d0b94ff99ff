//! INFO, LIST, HOLDERS, SET_NAME: what a VM can ask and say about parcels.

use bitflags::bitflags;

use super::{Policies, Stream, check_length};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::memparcel::{MemoryKind, Rights, Transfer};
use crate::names::{Handle, Vmid};

/// Bytes of a parcel's name.
pub const MAX_NAME: usize = 32;

/// What an owner calls a parcel, for people: UTF-8, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Name(pub [u8; MAX_NAME]);

impl Name {
    /// No name.
    pub const NONE: Self = Self([0; MAX_NAME]);

    /// A name, cut after the last character that ends within [`MAX_NAME`] bytes.
    pub const fn new(name: &str) -> Self {
        let (from, mut bytes, mut end) = (name.as_bytes(), [0; MAX_NAME], name.len());
        if end > MAX_NAME {
            end = MAX_NAME;
            while !name.is_char_boundary(end) {
                end -= 1;
            }
        }
        let mut index = 0;
        while index < end {
            bytes[index] = from[index];
            index += 1;
        }
        Self(bytes)
    }

    /// The name as text, or nothing if it is none: the manager takes no such name.
    pub fn as_str(&self) -> Option<&str> {
        let (name, padding) = self.0.split_at(self.bytes().len());
        let is_padded = padding.iter().all(|&byte| byte == 0);
        core::str::from_utf8(name).ok().filter(|_| is_padded)
    }

    /// The bytes before the padding.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_NAME);
        &self.0[..end]
    }

    fn decode<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Self {
        Self(core::array::from_fn(|index| bytes.u8_at(at + index)))
    }
}

/// Where a parcel is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum ParcelPhase {
    /// Its owner may append, and nobody else knows of it.
    Initial = 1,
    /// The VMs of its access list may accept it.
    Offered = 2,
    /// It was revoked: only its owner has to do with it.
    Closing = 3,
    /// The call that makes or ends it is at work.
    Changing = 4,
}

impl ParcelPhase {
    /// The phase that a number stands for, if it is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Initial,
            2 => Self::Offered,
            3 => Self::Closing,
            4 => Self::Changing,
            _ => return None,
        })
    }
}

/// What else there is to say about a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParcelFlags(pub u16);

bitflags! {
    impl ParcelFlags: u16 {
        /// Its pages were zeroed when it was made.
        const SANITIZED = 1;
        /// Its pages will be zeroed when it is reclaimed.
        const SANITIZE = 2;
        /// Somebody holds it. Told to the owner and to who inspects.
        const HELD = 4;
        /// The caller holds it.
        const MINE = 8;
        /// Its owner wants it back: nobody may begin to use it.
        const RECALLED = 16;
        /// A page of it cannot be vouched for: it stays.
        const POISONED = 32;
        /// A device is attached: told to the owner and to who inspects, of their own devices to all.
        const ATTACHED = 64;
        const _ = !0;
    }
}

/// A request about one parcel: INFO, HOLDERS.
///
/// ```text
/// 0: u32 handle    4: u32 flags, all zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParcelRequest {
    /// Which.
    pub handle: Handle,
}

impl ParcelRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A flag is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        if payload.u32_at(4) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { handle: Handle(payload.u32_at(0)) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(0).finish()
    }
}

/// The data of a reply to INFO.
///
/// ```text
/// 0: u32 handle    4: u16 owner, u8 transfer, u8 memory kind    8: u32 label    12: u32 tag
/// 16: u16 flags, u8 phase, u8 the caller's rights    20: u16 policy, u16 1 if it is forced
/// 24: u64 pages    32: u32 extents, u16 VMs in the access list, u16 0
/// 40: u64 where the caller has it, if it is mapped at one address, else 0    48: name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParcelInfo {
    /// Which parcel.
    pub handle: Handle,
    /// Who made it.
    pub owner: Vmid,
    /// How it was made.
    pub transfer: Transfer,
    /// RAM or registers.
    pub memory: MemoryKind,
    /// Its label.
    pub label: u32,
    /// What its owner calls it in notices; 0 if nothing.
    pub tag: u32,
    /// More about it.
    pub flags: ParcelFlags,
    /// Where it is in its life.
    pub phase: ParcelPhase,
    /// What the access list grants the caller.
    pub rights: Rights,
    /// The one cache policy of all its mappings.
    pub policy: Policies,
    /// The policy holds whatever a VM's own tables say; otherwise the VMs must agree to it.
    pub is_forced: bool,
    /// How long it is, with what was trimmed from it.
    pub pages: u64,
    /// Physically contiguous runs.
    pub extents: u32,
    /// How many VMs the access list names.
    pub acl: u16,
    /// Where the caller has it, if at one address.
    pub address: u64,
    /// Its name.
    pub name: Name,
}

impl ParcelInfo {
    /// Bytes of the data.
    pub const SIZE: usize = 48 + MAX_NAME;

    /// Writes the data, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u16(self.owner.0).u8(self.transfer as u8).u8(self.memory.0);
        writer.u32(self.label).u32(self.tag);
        writer.u16(self.flags.0).u8(self.phase as u8).u8(self.rights.0);
        writer.u16(self.policy.0).u16(self.is_forced.into());
        writer.u64(self.pages).u32(self.extents).u16(self.acl).u16(0);
        writer.u64(self.address).bytes(&self.name.0).finish()
    }

    /// Reads the data of a reply, or nothing if it is too short or tells of something unknown.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        if data.len() < Self::SIZE {
            return None;
        }
        Some(Self {
            handle: Handle(data.u32_at(0)),
            owner: Vmid(data.u16_at(4)),
            transfer: Transfer::from_wire(data.u8_at(6))?,
            memory: MemoryKind(data.u8_at(7)),
            label: data.u32_at(8),
            tag: data.u32_at(12),
            flags: ParcelFlags(data.u16_at(16)),
            phase: ParcelPhase::from_wire(data.u8_at(18))?,
            rights: Rights(data.u8_at(19)),
            policy: Policies(data.u16_at(20)),
            is_forced: data.u16_at(22) != 0,
            pages: data.u64_at(24),
            extents: data.u32_at(32),
            acl: data.u16_at(36),
            address: data.u64_at(40),
            name: Name::decode(data, 48),
        })
    }
}

/// Which parcels a list is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ListFlags(pub u16);

bitflags! {
    impl ListFlags: u16 {
        /// Those of all VMs, instead of those that the caller has to do with.
        const ALL = 1;
    }
}

/// A request for a part of a list of parcels.
///
/// ```text
/// 0: u32 cursor    4: u16 most entries    6: u16 flags
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ListRequest {
    /// 0, or what the reply before said.
    pub cursor: u32,
    /// Most entries of the reply, at least one.
    pub most: u16,
    /// Which parcels.
    pub flags: ListFlags,
}

impl ListRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A bit without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = ListFlags::from_bits(payload.u16_at(6)).ok_or(ErrorCode::ArgumentInvalid)?;
        let most = payload.u16_at(4);
        if most == 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { cursor: payload.u32_at(0), most, flags })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.cursor).u16(self.most).u16(self.flags.0).finish()
    }
}

/// One parcel of a list.
///
/// ```text
/// 0: u32 handle    4: u16 owner, u8 transfer, u8 phase    8: u64 pages    16: u32 label
/// 20: u16 VMs that hold it, u16 flags    24: name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParcelEntry {
    /// Which parcel.
    pub handle: Handle,
    /// Who made it.
    pub owner: Vmid,
    /// How it was made.
    pub transfer: Transfer,
    /// Where it is in its life.
    pub phase: ParcelPhase,
    /// How long it is, with what was trimmed from it.
    pub pages: u64,
    /// Its label.
    pub label: u32,
    /// How many VMs hold it: told to the owner and to who inspects, else 0.
    pub holders: u16,
    /// More about it.
    pub flags: ParcelFlags,
    /// Its name.
    pub name: Name,
}

impl ParcelEntry {
    /// Bytes of an entry.
    pub const SIZE: usize = 24 + MAX_NAME;
    /// Bytes of a reply's data before its entries: u32 cursor of the next part, 0 at the end; u16
    /// entries, u16 0.
    pub const HEAD: usize = 8;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u16(self.owner.0).u8(self.transfer as u8).u8(self.phase as u8);
        writer.u64(self.pages).u32(self.label).u16(self.holders).u16(self.flags.0);
        writer.bytes(&self.name.0).finish()
    }

    /// Reads an entry, or nothing if it is cut off or tells of something unknown.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        if data.len() < at + Self::SIZE {
            return None;
        }
        Some(Self {
            handle: Handle(data.u32_at(at)),
            owner: Vmid(data.u16_at(at + 4)),
            transfer: Transfer::from_wire(data.u8_at(at + 6))?,
            phase: ParcelPhase::from_wire(data.u8_at(at + 7))?,
            pages: data.u64_at(at + 8),
            label: data.u32_at(at + 16),
            holders: data.u16_at(at + 20),
            flags: ParcelFlags(data.u16_at(at + 22)),
            name: Name::decode(data, at + 24),
        })
    }
}

/// A request to name a parcel of the caller's.
///
/// ```text
/// 0: u32 handle    4: u32 flags, all zero    8: name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NameRequest {
    /// Which.
    pub handle: Handle,
    /// Its name from now on.
    pub name: Name,
}

impl NameRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8 + MAX_NAME;

    /// Reads a payload. A flag is a wish that cannot be granted, and so is a name that is no text: whoever
    /// lists parcels would print it.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let name = Name::decode(payload, 8);
        if payload.u32_at(4) != 0 || name.as_str().is_none() {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { handle: Handle(payload.u32_at(0)), name })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(0).bytes(&self.name.0).finish()
    }
}

/// What a VM has of a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum HolderStage {
    /// Addresses, and nothing mapped.
    Assigned = 1,
    /// All of it mapped.
    Mapped = 2,
    /// A call of its own is at work on it.
    Changing = 3,
    /// It is being taken away.
    Revoking = 4,
    /// A device of it is attached, and reaches nothing or not yet all.
    Attached = 5,
    /// A device of it is attached and has all that its VM has of it.
    DeviceMapped = 6,
}

impl HolderStage {
    /// The stage that a number stands for, if it is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Assigned,
            2 => Self::Mapped,
            3 => Self::Changing,
            4 => Self::Revoking,
            5 => Self::Attached,
            6 => Self::DeviceMapped,
            _ => return None,
        })
    }
}

/// A VM that holds a parcel, or a device of one that is attached to it. The reply's data is a u32 count,
/// and so many of these.
///
/// ```text
/// 0: u16 VMID, u8 stage, u8 rights    4: u32 stream of a device, else 0    8: u64 pages
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Holder {
    /// Who.
    pub vmid: Vmid,
    /// How.
    pub stage: HolderStage,
    /// With what rights; a device that has nothing mapped has none.
    pub rights: Rights,
    /// Which device, where the stage is one of a device.
    pub stream: Stream,
    /// How many pages.
    pub pages: u64,
}

impl Holder {
    /// Bytes of an entry.
    pub const SIZE: usize = 16;
    /// Bytes of a reply's data before its entries.
    pub const HEAD: usize = 4;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u16(self.vmid.0).u8(self.stage as u8).u8(self.rights.0).u32(self.stream.0);
        writer.u64(self.pages).finish()
    }

    /// Reads an entry, or nothing if it is cut off or tells of something unknown.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        if data.len() < at + Self::SIZE {
            return None;
        }
        Some(Self {
            vmid: Vmid(data.u16_at(at)),
            stage: HolderStage::from_wire(data.u8_at(at + 2))?,
            rights: Rights(data.u8_at(at + 3)),
            stream: Stream(data.u32_at(at + 4)),
            pages: data.u64_at(at + 8),
        })
    }

    /// Whether it is a device of the VM that is attached, and not the VM's own mapping.
    pub const fn is_device(&self) -> bool {
        matches!(self.stage, HolderStage::Attached | HolderStage::DeviceMapped)
    }
}
