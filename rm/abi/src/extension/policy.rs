//! The cache policy of a parcel.

use super::{Policies, check_length};
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Handle;

/// How a parcel's pages are cached by all that have them, their owner included. On the wire it is its bit
/// in [`Policies`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum Policy {
    /// Write-back.
    Cached = Policies::CACHED.bits(),
    /// Normal non-cacheable, which combines writes.
    Uncached = Policies::UNCACHED.bits(),
    /// Device nGnRE.
    Device = Policies::DEVICE.bits(),
}

impl Policy {
    /// The policy that a number stands for, if there is one.
    pub const fn from_wire(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Cached),
            2 => Some(Self::Uncached),
            4 => Some(Self::Device),
            _ => None,
        }
    }

    /// The set of it alone.
    pub const fn as_set(self) -> Policies {
        Policies(self as u16)
    }
}

/// A request to give a parcel another cache policy.
///
/// ```text
/// 0: u32 handle    4: u32 policy
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SetPolicyRequest {
    /// Which parcel.
    pub handle: Handle,
    /// What it is to have.
    pub policy: Policy,
}

impl SetPolicyRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A number without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let policy = Policy::from_wire(payload.u32_at(4)).ok_or(ErrorCode::ArgumentInvalid)?;
        Ok(Self { handle: Handle(payload.u32_at(0)), policy })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.policy as u32).finish()
    }
}
