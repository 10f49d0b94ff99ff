//! VMS, MAP, COUNTERS, LEAF: what a VM with the role `inspect` can ask of all VMs.

use bitflags::bitflags;

use super::{Policy, check_length};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::memparcel::Rights;
use crate::names::{Handle, Vmid};
use crate::vm::VmState;

/// Bytes of a VM's name.
const VM_NAME: usize = 16;

/// What a VM may do beyond its own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmRoles(pub u32);

bitflags! {
    impl VmRoles: u32 {
        /// Ask for lists, maps and counters of other VMs.
        const INSPECT = 1;
        /// Stop, start and reset other VMs.
        const MANAGE = 2;
        /// Have devices that nothing confines: what they may do, the machine allows, not the manager.
        const TRUSTED_DMA = 4;
        const _ = !0;
    }
}

/// A request for a part of the list of VMs.
///
/// ```text
/// 0: u32 cursor    4: u16 most entries    6: u16 flags, all zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmsRequest {
    /// 0, or what the reply before said.
    pub cursor: u32,
    /// Most entries of the reply, at least one.
    pub most: u16,
}

impl VmsRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A flag is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let most = payload.u16_at(4);
        if most == 0 || payload.u16_at(6) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { cursor: payload.u32_at(0), most })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.cursor).u16(self.most).u16(0).finish()
    }
}

/// One VM of the list.
///
/// ```text
/// 0: u16 VMID, u8 state, u8 0    4: u32 roles    8: u32 frames, u32 0    16: name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmEntry {
    /// Its name in calls.
    pub vmid: Vmid,
    /// Where it is in its life.
    pub state: VmState,
    /// What it may do.
    pub roles: VmRoles,
    /// Frames of the manager that count as used by it.
    pub frames: u32,
    /// Its name for people, padded with zeros.
    pub name: [u8; VM_NAME],
}

impl VmEntry {
    /// Bytes of an entry.
    pub const SIZE: usize = 16 + VM_NAME;
    /// Bytes of a reply's data before its entries: u32 cursor of the next part, 0 at the end; u16
    /// entries, u16 0.
    pub const HEAD: usize = 8;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u16(self.vmid.0).u8(self.state as u8).u8(0).u32(self.roles.0);
        writer.u32(self.frames).u32(0).bytes(&self.name).finish()
    }

    /// Reads an entry, or nothing if it is cut off or in an unknown state.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        if data.len() < at + Self::SIZE {
            return None;
        }
        Some(Self {
            vmid: Vmid(data.u16_at(at)),
            state: VmState::from_wire(data.u8_at(at + 2))?,
            roles: VmRoles(data.u32_at(at + 4)),
            frames: data.u32_at(at + 8),
            name: core::array::from_fn(|index| data.u8_at(at + 16 + index)),
        })
    }

    /// The name before its padding.
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(VM_NAME);
        &self.name[..end]
    }
}

/// A request for a part of a VM's map.
///
/// ```text
/// 0: u16 VMID    2: u16 most entries    4: u32 handle    8: u64 cursor
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MapRequest {
    /// Whose; 0 is the caller.
    pub vmid: Vmid,
    /// Most entries of the reply, at least one.
    pub most: u16,
    /// Only the pages of this parcel of the VM's own, in the parcel's order; 0 is all that it has, by
    /// address.
    pub parcel: Handle,
    /// 0, or what the reply before said. Any may be asked for: of a VM's map it is an address, of a
    /// parcel's the number of a page.
    pub cursor: u64,
}

impl MapRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 16;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let most = payload.u16_at(2);
        if most == 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self {
            vmid: Vmid(payload.u16_at(0)),
            most,
            parcel: Handle(payload.u32_at(4)),
            cursor: payload.u64_at(8),
        })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u16(self.vmid.0).u16(self.most).u32(self.parcel.0).u64(self.cursor).finish()
    }
}

/// What a page is to a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum PageState {
    /// Its own.
    Owned = 1,
    /// Its own, while a call of it prepares.
    Claimed = 2,
    /// Its own, and in a parcel that others may map.
    Shared = 3,
    /// Another VM's, mapped from a parcel.
    Borrowed = 4,
    /// Registers: passed through, or, without rights, emulated.
    Device = 5,
    /// Its own, out of its reach.
    Lent = 6,
    /// About to be filled by an accept.
    Held = 7,
}

impl PageState {
    /// The state that a number stands for, if it is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Owned,
            2 => Self::Claimed,
            3 => Self::Shared,
            4 => Self::Borrowed,
            5 => Self::Device,
            6 => Self::Lent,
            7 => Self::Held,
            _ => return None,
        })
    }
}

/// A run of pages of a VM that are alike and contiguous, in the VM and in the machine.
///
/// ```text
/// 0: u64 IPA    8: u64 pages    16: u64 PA    24: u8 state, u8 rights, u16 policy    28: u32 handle
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MapEntry {
    /// Where the VM has the first page.
    pub ipa: u64,
    /// How many pages.
    pub pages: u64,
    /// Where the machine has the first page; 0 for emulated registers.
    pub pa: u64,
    /// What they are.
    pub state: PageState,
    /// What the hardware lets the VM do with them.
    pub rights: Rights,
    /// How they are cached.
    pub policy: Policy,
    /// The parcel of lent pages, and of all pages if one was asked for; else 0.
    pub parcel: Handle,
}

impl MapEntry {
    /// Bytes of an entry.
    pub const SIZE: usize = 32;
    /// Bytes of a reply's data before its entries: u64 cursor of the next part, 0 at the end; u16
    /// entries, u16 0, u32 0.
    pub const HEAD: usize = 16;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u64(self.ipa).u64(self.pages).u64(self.pa);
        writer.u8(self.state as u8).u8(self.rights.0).u16(self.policy as u16);
        writer.u32(self.parcel.0).finish()
    }

    /// Reads an entry, or nothing if it is cut off or tells of something unknown.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        if data.len() < at + Self::SIZE {
            return None;
        }
        Some(Self {
            ipa: data.u64_at(at),
            pages: data.u64_at(at + 8),
            pa: data.u64_at(at + 16),
            state: PageState::from_wire(data.u8_at(at + 24))?,
            rights: Rights(data.u8_at(at + 25)),
            policy: Policy::from_wire(data.u16_at(at + 26).into())?,
            parcel: Handle(data.u32_at(at + 28)),
        })
    }
}

/// A request for a VM's counters.
///
/// ```text
/// 0: u16 VMID, 0 for the caller    2: u16 0    4: u32 flags, all zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CountersRequest {
    /// Whose. Another VM's take the role `inspect`.
    pub vmid: Vmid,
}

impl CountersRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A flag is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        if payload.u16_at(2) != 0 || payload.u32_at(4) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { vmid: Vmid(payload.u16_at(0)) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.vmid.0).u16(0).u32(0).finish()
    }
}

/// What is counted of a VM. Those that only rise do so from boot on, whatever lives the VM has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum Counter {
    /// Requests that it made, by either transport. Rises.
    Calls = 1,
    /// Those of them that were refused, or a segment of them. Rises.
    Refusals = 2,
    /// Invalidations of its translations. Rises.
    Invalidations = 3,
    /// Pages that were zeroed for its parcels. Rises.
    PagesZeroed = 4,
    /// Notices to it that younger ones replaced before it read them. Rises.
    NoticesReplaced = 5,
    /// Notices to it that were dropped because it did not read them. Rises.
    NoticesDropped = 6,
    /// Frames of the manager that it holds, mergeable tables included.
    Frames = 7,
    /// Those of them that are its translation tables.
    Tables = 8,
    /// Those tables that could be merged back into blocks.
    Mergeable = 9,
    /// Parcels that it owns.
    Parcels = 10,
    /// Accesses of its devices that the SMMU refused. Rises.
    DeviceFaults = 11,
    /// Pages that were cleaned for its devices and its CPU accesses. Rises.
    PagesCleaned = 12,
}

impl Counter {
    /// All of them, in the order of their numbers.
    pub const ALL: &[Self] = &[
        Self::Calls,
        Self::Refusals,
        Self::Invalidations,
        Self::PagesZeroed,
        Self::NoticesReplaced,
        Self::NoticesDropped,
        Self::Frames,
        Self::Tables,
        Self::Mergeable,
        Self::Parcels,
        Self::DeviceFaults,
        Self::PagesCleaned,
    ];
}

/// One counter and its value. The reply's data is a u32 count, a u32 0, and so many of these.
///
/// ```text
/// 0: u16 counter, u16 0, u32 0    8: u64 value
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Count {
    /// A [`Counter`], or a younger one's number.
    pub counter: u16,
    /// Its value.
    pub value: u64,
}

impl Count {
    /// Bytes of an entry.
    pub const SIZE: usize = 16;
    /// Bytes of a reply's data before its entries.
    pub const HEAD: usize = 8;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.counter).u16(0).u32(0).u64(self.value).finish()
    }

    /// Reads an entry, or nothing if it is cut off.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        let fits = data.len() >= at + Self::SIZE;
        fits.then(|| Self { counter: data.u16_at(at), value: data.u64_at(at + 8) })
    }
}

/// A request for the descriptor that translates one address.
///
/// ```text
/// 0: u16 VMID, u16 0, u32 flags, all zero    8: u64 IPA
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeafRequest {
    /// Whose; 0 is the caller.
    pub vmid: Vmid,
    /// Any address in the page.
    pub ipa: u64,
}

impl LeafRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 16;

    /// Reads a payload. A flag is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        if payload.u16_at(2) != 0 || payload.u32_at(4) != 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        Ok(Self { vmid: Vmid(payload.u16_at(0)), ipa: payload.u64_at(8) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.vmid.0).u16(0).u32(0).u64(self.ipa).finish()
    }
}

/// The data of a reply to LEAF: the stage-2 descriptor as the hardware reads it.
///
/// ```text
/// 0: u8 level, u8 0, u16 0, u32 0    8: u64 descriptor    16: u64 first IPA    24: u64 pages
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeafInfo {
    /// 1 spans 1 GiB, 2 spans 2 MiB, 3 a page.
    pub level: u8,
    /// All 64 bits; 0 where nothing is.
    pub descriptor: u64,
    /// Where the VM has the first page that it spans.
    pub ipa: u64,
    /// How many pages it spans.
    pub pages: u64,
}

impl LeafInfo {
    /// Bytes of the data.
    pub const SIZE: usize = 32;

    /// Writes the data, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u8(self.level).u8(0).u16(0).u32(0);
        writer.u64(self.descriptor).u64(self.ipa).u64(self.pages).finish()
    }

    /// Reads the data of a reply, or nothing if it is too short.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        (data.len() >= Self::SIZE).then(|| Self {
            level: data.u8_at(0),
            descriptor: data.u64_at(8),
            ipa: data.u64_at(16),
            pages: data.u64_at(24),
        })
    }
}
