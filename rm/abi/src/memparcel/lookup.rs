//! MEM_LOOKUP: finding a parcel of one's own by its description.
//!
//! ```text
//! 0: u8 memory kind, u8 0 x 3    4: u32 label    8: access list, range list, attribute list
//! ```
//! The attribute list may be absent. The reply is a handle.

use super::MemoryKind;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::list::{AclEntry, AttributeEntry, List, SglEntry, end};

/// Shortest payload.
const MINIMUM: usize = 16;

/// A received description of a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LookupRequest {
    /// RAM or registers.
    pub memory: MemoryKind,
    /// The label for a parcel that has none yet.
    pub label: u32,
    /// Who may accept it, in the order of its creation.
    pub acl: List<AclEntry>,
    /// Its physically contiguous runs, in order.
    pub sgl: List<SglEntry>,
    /// Its attributes, in the order of its creation.
    pub attributes: List<AttributeEntry>,
}

impl LookupRequest {
    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        let mut at = 8;
        let request = Self {
            memory: MemoryKind(payload.u8_at(0)),
            label: payload.u32_at(4),
            acl: List::decode(payload, &mut at)?,
            sgl: List::decode(payload, &mut at)?,
            attributes: List::decode(payload, &mut at)?,
        };
        end(payload, at)?;
        Ok(request)
    }
}

/// A description of a parcel, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookup<'a> {
    /// RAM or registers.
    pub memory: MemoryKind,
    /// The label for a parcel that has none yet.
    pub label: u32,
    /// Who may accept it, in the order of its creation.
    pub acl: &'a [AclEntry],
    /// Its physically contiguous runs, in order.
    pub sgl: &'a [SglEntry],
    /// Its attributes, in the order of its creation.
    pub attributes: &'a [AttributeEntry],
}

impl Lookup<'_> {
    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u8(self.memory.0).bytes(&[0; 3]).u32(self.label);
        writer.list(self.acl, 0).list(self.sgl, 0).list(self.attributes, 0);
        writer.finish()
    }
}
