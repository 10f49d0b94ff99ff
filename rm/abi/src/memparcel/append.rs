//! MEM_APPEND: more pages for a parcel that was created with [`CreateFlags::APPEND`].
//!
//! ```text
//! 0: u32 handle    4: u8 flags, u8 0 x 3    8: range list
//! ```
//! The reply has no data.
//!
//! [`CreateFlags::APPEND`]: super::CreateFlags::APPEND

use super::AppendFlags;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::list::{List, SglEntry, end};
use crate::names::Handle;

/// Shortest payload.
const MINIMUM: usize = 12;

/// A received request for more pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AppendRequest {
    /// Which parcel.
    pub handle: Handle,
    /// As sent, unknown bits included.
    pub flags: AppendFlags,
    /// The pages to add.
    pub sgl: List<SglEntry>,
}

impl AppendRequest {
    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        let mut at = 8;
        let request = Self {
            handle: Handle(payload.u32_at(0)),
            flags: AppendFlags(payload.u8_at(4)),
            sgl: List::decode(payload, &mut at)?,
        };
        end(payload, at)?;
        Ok(request)
    }
}

/// A request for more pages, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Append<'a> {
    /// Which parcel.
    pub handle: Handle,
    /// What else to do.
    pub flags: AppendFlags,
    /// The pages to add.
    pub sgl: &'a [SglEntry],
}

impl Append<'_> {
    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u8(self.flags.0).bytes(&[0; 3]).list(self.sgl, 0);
        writer.finish()
    }
}
