//! What a VM does with a parcel besides mapping it: to have something done when its mapping has ended, to
//! copy without a mapping, and to let another copy a few bytes and no more.

use bitflags::bitflags;

use super::check_length;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::header::{MAX_PAYLOAD, PACKET_PAYLOAD};
use crate::names::{Handle, Vmid};

/// A request to have something done when the caller's part in a page ends.
///
/// ```text
/// 0: u32 handle    4: u32 actions    8: u64 offset    16: u32 doorbell    20: u32 flag
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NotifySetRequest {
    /// Which parcel.
    pub handle: Handle,
    /// What; nothing calls off what was asked for this page before.
    pub actions: NotifyActions,
    /// The byte: it counts through all ranges of the parcel. Each page has one of them at most.
    pub offset: u64,
    /// The number of the channel whose other end is rung, if that is asked for.
    pub doorbell: u32,
    /// The flag that is set there, from 0 to 63.
    pub flag: u32,
}

/// What is done when a part in a page ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NotifyActions(pub u32);

bitflags! {
    impl NotifyActions: u32 {
        /// The byte becomes zero.
        const CLEAR_BYTE = 1;
        /// The doorbell is rung, after that.
        const RING = 2;
    }
}

impl NotifySetRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 24;

    /// Reads a payload. An action without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let actions = NotifyActions::from_bits(payload.u32_at(4));
        Ok(Self {
            handle: Handle(payload.u32_at(0)),
            actions: actions.ok_or(ErrorCode::ArgumentInvalid)?,
            offset: payload.u64_at(8),
            doorbell: payload.u32_at(16),
            flag: payload.u32_at(20),
        })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u32(self.actions.bits()).u64(self.offset);
        writer.u32(self.doorbell).u32(self.flag).finish()
    }
}

/// One side of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CopySide {
    /// The caller's own addresses: an IPA.
    Own(u64),
    /// A parcel, and an offset through all its ranges.
    Parcel(Handle, u64),
}

impl CopySide {
    const fn of(handle: u32, at: u64) -> Self {
        if handle == 0 { Self::Own(at) } else { Self::Parcel(Handle(handle), at) }
    }

    const fn wire(self) -> (u32, u64) {
        match self {
            Self::Own(at) => (0, at),
            Self::Parcel(handle, at) => (handle.0, at),
        }
    }
}

/// One copy of many. 32 bytes.
///
/// ```text
/// 0: u32 source's handle, or 0    4: u32 destination's    8: u64 offset or address in the source
/// 16: u64 in the destination    24: u32 length    28: u32 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CopySegment {
    /// From where.
    pub source: CopySide,
    /// To where.
    pub dest: CopySide,
    /// Bytes: [`CopySegment::MAX_LENGTH`] at most.
    pub length: u32,
}

/// A request to copy. The reply's data is a u32 count, and so many u32 error words, one for each segment
/// in its order.
///
/// ```text
/// 0: u32 count    4: u32 0    8: segments
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CopyRequest {
    /// How many segments.
    pub count: u32,
}

impl CopyRequest {
    /// Bytes before the segments.
    pub const HEAD: usize = 8;
    /// Bytes of a reply's data before its error words.
    pub const REPLY_HEAD: usize = 4;
    /// Bytes of an error word.
    pub const STATUS: usize = 4;
    /// Most segments that a request has room for.
    pub const MAX: usize = (MAX_PAYLOAD - Self::HEAD) / CopySegment::SIZE;

    /// Reads a payload's beginning; the segments are all there. A request of more than a packet ends with
    /// its last segment.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < Self::HEAD {
            return Err(ErrorCode::MessageInvalid);
        }
        let (count, flags) = (payload.u32_at(0), payload.u32_at(4));
        let length = (count as usize)
            .checked_mul(CopySegment::SIZE)
            .map(|length| length.saturating_add(Self::HEAD))
            .filter(|length| *length <= payload.len() && *length <= MAX_PAYLOAD)
            .ok_or(ErrorCode::MessageInvalid)?;
        if payload.len() > PACKET_PAYLOAD {
            if payload.len() != length {
                return Err(ErrorCode::MessageInvalid);
            }
        } else {
            check_length(payload, length)?;
        }
        if flags == 0 { Ok(Self { count }) } else { Err(ErrorCode::ArgumentInvalid) }
    }

    /// Writes a payload, and returns its length.
    pub fn encode(segments: &[CopySegment], into: &mut [u8]) -> Result<usize, EncodeError> {
        if segments.len() > Self::MAX {
            return Err(EncodeError::TooLong);
        }
        let mut writer = Writer::new(into);
        writer.u32(segments.len() as u32).u32(0);
        for segment in segments {
            let ((source, from), (dest, to)) = (segment.source.wire(), segment.dest.wire());
            writer.u32(source).u32(dest).u64(from).u64(to).u32(segment.length).u32(0);
        }
        writer.finish()
    }
}

impl CopySegment {
    /// Bytes of a segment's description.
    pub const SIZE: usize = 32;
    /// Most bytes that a segment copies, so that no call goes on for ever.
    pub const MAX_LENGTH: u32 = 1 << 16;

    /// Reads segment `index` of a payload that [`CopyRequest::decode`] has let through. `None` if it asks
    /// for something unknown.
    pub fn decode<B: Bytes + ?Sized>(payload: &B, index: usize) -> Option<Self> {
        let at = CopyRequest::HEAD + index * Self::SIZE;
        (payload.u32_at(at + 28) == 0).then(|| Self {
            source: CopySide::of(payload.u32_at(at), payload.u64_at(at + 8)),
            dest: CopySide::of(payload.u32_at(at + 4), payload.u64_at(at + 16)),
            length: payload.u32_at(at + 24),
        })
    }
}

/// A request that a VM of the access list may copy from and to some bytes of a parcel, and not map it.
///
/// ```text
/// 0: u32 handle    4: u16 VMID, u16 flags    8: u64 offset    16: u64 size
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WindowRequest {
    /// Which parcel.
    pub handle: Handle,
    /// Whose window.
    pub vmid: Vmid,
    /// What else.
    pub flags: WindowFlags,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes. With 0, and offset 0, the VM may use all of the parcel again.
    pub size: u64,
}

/// What else a window says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WindowFlags(pub u16);

bitflags! {
    impl WindowFlags: u16 {
        /// The parcel, which waits for an APPEND, is complete, and is offered from now on.
        const END = 1;
    }
}

impl WindowRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 24;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = WindowFlags::from_bits(payload.u16_at(6));
        Ok(Self {
            handle: Handle(payload.u32_at(0)),
            vmid: Vmid(payload.u16_at(4)),
            flags: flags.ok_or(ErrorCode::ArgumentInvalid)?,
            offset: payload.u64_at(8),
            size: payload.u64_at(16),
        })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u16(self.vmid.0).u16(self.flags.bits());
        writer.u64(self.offset).u64(self.size).finish()
    }
}
