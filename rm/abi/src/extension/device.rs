//! ATTACH, DETACH, DMA_MAP, DMA_UNMAP, CPU_ACCESS, DEVICES: parcels and the devices of VMs.

use bitflags::bitflags;

use super::check_length;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Handle;

/// A device, as the boot configuration and the SMMU name it: by the stream of its transactions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stream(pub u32);

/// Which way data goes between memory and a device. No direction at all is no number of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Direction {
    /// The device reads memory.
    ToDevice = 1,
    /// The device writes memory.
    FromDevice = 2,
    /// It does both.
    Bidirectional = 3,
}

impl Direction {
    /// The direction that a number stands for, if it is one.
    pub const fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::ToDevice,
            2 => Self::FromDevice,
            3 => Self::Bidirectional,
            _ => return None,
        })
    }
}

/// What the driver of a device expects of an attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AttachFlags(pub u32);

bitflags! {
    impl AttachFlags: u32 {
        /// CPU and device see the same without CPU_ACCESS: refused for a cached parcel and a device that
        /// does not look into the caches.
        const COHERENT = 1;
    }
}

/// A request that a device of the caller's may be given a parcel.
///
/// ```text
/// 0: u32 handle    4: u32 stream    8: u32 flags
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AttachRequest {
    /// Which parcel.
    pub handle: Handle,
    /// Which device.
    pub stream: Stream,
    /// What is expected.
    pub flags: AttachFlags,
}

impl AttachRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 12;

    /// Reads a payload. A flag without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = AttachFlags::from_bits(payload.u32_at(8)).ok_or(ErrorCode::ArgumentInvalid)?;
        let (handle, stream) = (Handle(payload.u32_at(0)), Stream(payload.u32_at(4)));
        Ok(Self { handle, stream, flags })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.stream.0).u32(self.flags.0).finish()
    }
}

/// A request to end an attachment.
///
/// ```text
/// 0: u32 handle    4: u32 stream
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DetachRequest {
    /// Which parcel.
    pub handle: Handle,
    /// Which device.
    pub stream: Stream,
}

impl DetachRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        Ok(Self { handle: Handle(payload.u32_at(0)), stream: Stream(payload.u32_at(4)) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.stream.0).finish()
    }
}

/// A request to map a parcel for an attached device, or to unmap it.
///
/// ```text
/// 0: u32 handle    4: u32 stream    8: u32 direction
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DmaRequest {
    /// Which parcel.
    pub handle: Handle,
    /// Which device.
    pub stream: Stream,
    /// A [`Direction`]: to unmap, that of the mapping. Kept as it came, for the manager to refuse.
    pub direction: u32,
}

impl DmaRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 12;

    /// Reads a payload. Whether there is such a direction is not looked at.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let (handle, stream) = (Handle(payload.u32_at(0)), Stream(payload.u32_at(4)));
        Ok(Self { handle, stream, direction: payload.u32_at(8) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.stream.0).u32(self.direction).finish()
    }
}

/// What a CPU does with a parcel, and whether it begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AccessFlags(pub u32);

bitflags! {
    impl AccessFlags: u32 {
        /// It reads.
        const READ = 1;
        /// It writes.
        const WRITE = 2;
        /// It has ended; else it is about to begin.
        const END = 4;
    }
}

/// A request that brackets a CPU's use of a parcel that devices use too.
///
/// ```text
/// 0: u32 handle    4: u32 flags
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CpuAccessRequest {
    /// Which parcel.
    pub handle: Handle,
    /// What the CPU does. Neither to read nor to write is for the manager to refuse.
    pub flags: AccessFlags,
}

impl CpuAccessRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A flag without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = AccessFlags::from_bits(payload.u32_at(4)).ok_or(ErrorCode::ArgumentInvalid)?;
        Ok(Self { handle: Handle(payload.u32_at(0)), flags })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.flags.0).finish()
    }
}

/// A device of the caller's. The reply's data is a u32 count, a u32 0, and so many of these.
///
/// ```text
/// 0: u32 stream    4: u8 address bits, u8 1 if it is coherent, u8 direction of its last fault, u8 0
/// 8: u64 faults    16: u64 address of the last one    24: u32 attachments, u32 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DeviceInfo {
    /// Its name.
    pub stream: Stream,
    /// How many bits an address that it puts on the bus has.
    pub address_bits: u8,
    /// Its accesses look into the CPUs' caches.
    pub is_coherent: bool,
    /// How many of its accesses the SMMU has refused, since boot.
    pub faults: u64,
    /// The last of them: where, to the word of four bytes, and whether it was to read or to write.
    pub last_fault: Option<(u64, Direction)>,
    /// Parcels that it is attached to.
    pub attachments: u32,
}

impl DeviceInfo {
    /// Bytes of an entry.
    pub const SIZE: usize = 32;
    /// Bytes of a reply's data before its entries.
    pub const HEAD: usize = 8;

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let (address, direction) = self.last_fault.map_or((0, 0), |(at, way)| (at, way as u8));
        let mut writer = Writer::new(into);
        writer.u32(self.stream.0).u8(self.address_bits).u8(self.is_coherent.into());
        writer.u8(direction).u8(0).u64(self.faults).u64(address);
        writer.u32(self.attachments).u32(0).finish()
    }

    /// Reads an entry, or nothing if it is cut off.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        (data.len() >= at + Self::SIZE).then(|| Self {
            stream: Stream(data.u32_at(at)),
            address_bits: data.u8_at(at + 4),
            is_coherent: data.u8_at(at + 5) != 0,
            faults: data.u64_at(at + 8),
            last_fault: Direction::from_wire(data.u8_at(at + 6).into())
                .map(|direction| (data.u64_at(at + 16), direction)),
            attachments: data.u32_at(at + 24),
        })
    }
}
