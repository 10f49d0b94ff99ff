//! MEM_DONATE, MEM_LEND and MEM_SHARE: making a parcel.
//!
//! ```text
//! 0: u8 memory kind, u8 0, u8 flags, u8 0    4: u32 label    8: access list, range list, attribute list
//! ```
//! The attribute list may be absent. The reply is a handle.

use super::{CreateFlags, MemoryKind};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::list::{AclEntry, AttributeEntry, List, SglEntry, end};

/// Shortest payload.
const MINIMUM: usize = 20;

/// A received request to make a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CreateRequest {
    /// RAM or registers.
    pub memory: MemoryKind,
    /// As sent, unknown bits included.
    pub flags: CreateFlags,
    /// A number for the borrowers to recognise the parcel by.
    pub label: u32,
    /// Who may accept it.
    pub acl: List<AclEntry>,
    /// Its pages.
    pub sgl: List<SglEntry>,
    /// Memory types other than the default.
    pub attributes: List<AttributeEntry>,
}

impl CreateRequest {
    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        let mut at = 8;
        let request = Self {
            memory: MemoryKind(payload.u8_at(0)),
            flags: CreateFlags(payload.u8_at(2)),
            label: payload.u32_at(4),
            acl: List::decode(payload, &mut at)?,
            sgl: List::decode(payload, &mut at)?,
            attributes: List::decode(payload, &mut at)?,
        };
        end(payload, at)?;
        Ok(request)
    }
}

/// A request to make a parcel, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Create<'a> {
    /// RAM or registers.
    pub memory: MemoryKind,
    /// What else to do.
    pub flags: CreateFlags,
    /// A number for the borrowers to recognise the parcel by.
    pub label: u32,
    /// Who may accept it.
    pub acl: &'a [AclEntry],
    /// Its pages.
    pub sgl: &'a [SglEntry],
    /// Memory types other than the default.
    pub attributes: &'a [AttributeEntry],
}

impl Create<'_> {
    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u8(self.memory.0).u8(0).u8(self.flags.0).u8(0).u32(self.label);
        writer.list(self.acl, 0).list(self.sgl, 0).list(self.attributes, 0);
        writer.finish()
    }
}
