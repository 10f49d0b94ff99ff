//! LIMITS: how much of each resource a VM uses, and may use.

use super::{Resource, check_length};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Vmid;

/// A request for a VM's limits.
///
/// ```text
/// 0: u16 VMID, 0 for the caller    2: u16 0    4: u32 flags, all zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LimitsRequest {
    /// Whose. Another VM's takes the role `inspect`.
    pub vmid: Vmid,
}

impl LimitsRequest {
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

/// How a VM stands with one resource. The reply's data is a u32 count, a u32 that says how many handles the
/// VM can still make before its handle numbers are worn out, and so many of these as were counted.
///
/// ```text
/// 0: u16 resource, u16 0, u32 0    8: u64 used    16: u64 guaranteed    24: u64 limit
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limit {
    /// A [`Resource`], or a younger one's number.
    pub resource: u16,
    /// How much is in use.
    pub used: u64,
    /// How much no other VM can take away.
    pub guaranteed: u64,
    /// The most that the VM may use.
    pub limit: u64,
}

impl Limit {
    /// Bytes of an entry.
    pub const SIZE: usize = 32;
    /// Bytes of a reply's data before its entries.
    pub const HEAD: usize = 8;
    /// How many resources there are.
    pub const COUNT: usize = Resource::ALL.len();

    /// Writes the entry, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u16(self.resource).u16(0).u32(0);
        writer.u64(self.used).u64(self.guaranteed).u64(self.limit).finish()
    }

    /// Reads an entry, or nothing if it is cut off.
    pub fn decode<B: Bytes + ?Sized>(data: &B, at: usize) -> Option<Self> {
        (data.len() >= at + Self::SIZE).then(|| Self {
            resource: data.u16_at(at),
            used: data.u64_at(at + 8),
            guaranteed: data.u64_at(at + 16),
            limit: data.u64_at(at + 24),
        })
    }
}
