//! The calls of a VM about itself.
//!
//! ```text
//! VM_GET_VMID    request: empty    reply: u32 VMID
//! VM_EXIT        request: u16 flags, u8 code, u8 0
//! ```

use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;

/// A VM ends by its own wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmExitRequest {
    /// Passed on to the VM's owner.
    pub flags: u16,
    /// Why: 0 normal, 1 software, 2 unknown, 3 bus, 4 device.
    pub code: u8,
}

impl VmExitRequest {
    /// Bytes of the payload, exactly.
    pub const SIZE: usize = 4;
    /// The largest code that has a meaning.
    pub const MAX_CODE: u8 = 4;

    /// Reads a payload. Its length is exact, and a code without meaning makes it malformed.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() != Self::SIZE || payload.u8_at(2) > Self::MAX_CODE {
            return Err(ErrorCode::MessageInvalid);
        }
        Ok(Self { flags: payload.u16_at(0), code: payload.u8_at(2) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.flags).u8(self.code).u8(0).finish()
    }
}

/// A request without payload, as VM_GET_VMID's is: its length is exact.
pub fn decode_empty<B: Bytes + ?Sized>(payload: &B) -> Result<(), ErrorCode> {
    if payload.is_empty() { Ok(()) } else { Err(ErrorCode::MessageInvalid) }
}
