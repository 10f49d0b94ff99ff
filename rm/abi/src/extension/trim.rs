//! Part of a parcel.

use bitflags::bitflags;

use super::check_length;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Handle;

/// A request to give up, or to take back, some pages of a parcel.
///
/// ```text
/// 0: u32 handle    4: u32 flags    8: u64 offset    16: u64 size
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TrimRequest {
    /// Which parcel.
    pub handle: Handle,
    /// How.
    pub flags: TrimFlags,
    /// Where the range begins: bytes through all ranges of the parcel, as its owner named them and with
    /// what was trimmed before.
    pub offset: u64,
    /// Its length in bytes. Both are multiples of a page.
    pub size: u64,
}

/// How pages leave a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TrimFlags(pub u32);

bitflags! {
    impl TrimFlags: u32 {
        /// The pages are zeroed, and no others: before the owner has them, or, for a borrower, when it can
        /// reach them no more. Who else still maps them then sees zeros.
        const SANITIZE = 1;
    }
}

impl TrimRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 24;

    /// Reads a payload. A flag without meaning is a wish that cannot be granted. Whether the range lies in
    /// the parcel is not looked at.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = TrimFlags::from_bits(payload.u32_at(4)).ok_or(ErrorCode::ArgumentInvalid)?;
        let handle = Handle(payload.u32_at(0));
        Ok(Self { handle, flags, offset: payload.u64_at(8), size: payload.u64_at(16) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u32(self.flags.bits());
        writer.u64(self.offset).u64(self.size).finish()
    }
}
