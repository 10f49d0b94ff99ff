//! MEM_RELEASE and MEM_RECLAIM: giving a parcel back, taking it back.
//!
//! ```text
//! 0: u32 handle    4: u8 flags, u8 0 x 3
//! ```
//! A longer payload is accepted. The reply has no data.

use super::Sanitize;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Handle;

/// Shortest payload.
const MINIMUM: usize = 8;

/// A request that names a parcel and says whether to zero it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HandleRequest {
    /// Which parcel.
    pub handle: Handle,
    /// As sent, unknown bits included.
    pub flags: Sanitize,
}

/// The request of a release.
pub type ReleaseRequest = HandleRequest;
/// The request of a reclaim.
pub type ReclaimRequest = HandleRequest;

impl HandleRequest {
    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        Ok(Self { handle: Handle(payload.u32_at(0)), flags: Sanitize(payload.u8_at(4)) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u8(self.flags.0).bytes(&[0; 3]).finish()
    }
}
