//! PARCEL_EVENT: a parcel of the receiver was accepted or released.

use super::Events;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::names::{Handle, Vmid};

/// What happened to a parcel. The numbers are those of the bits of [`Events`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum EventKind {
    /// The borrower has mapped it; of a donation: owns it now, and the handle is dead.
    Accepted = 1,
    /// The borrower has let it go.
    Released = 2,
}

impl EventKind {
    /// The kind that a number stands for, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Accepted),
            2 => Some(Self::Released),
            _ => None,
        }
    }

    /// What a VM subscribes to, to be told.
    pub const fn subscription(self) -> Events {
        match self {
            Self::Accepted => Events::ACCEPTED,
            Self::Released => Events::RELEASED,
        }
    }
}

/// Why it happened. Other numbers than those here may come to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EventReason(pub u8);

impl EventReason {
    /// The borrower made the call.
    pub const CALL: Self = Self(0);
    /// The borrower has ended.
    pub const DEATH: Self = Self(1);
}

/// The payload of [`PARCEL_EVENT`](super::PARCEL_EVENT).
///
/// ```text
/// 0: u32 handle    4: u16 borrower, u8 what, u8 why    8: u32 tag
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParcelEvent {
    /// Which parcel.
    pub handle: Handle,
    /// Who did it.
    pub borrower: Vmid,
    /// What.
    pub kind: EventKind,
    /// Why.
    pub reason: EventReason,
    /// The owner's tag; 0 if it never set one.
    pub tag: u32,
}

impl ParcelEvent {
    /// Bytes of the payload.
    pub const SIZE: usize = 12;

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u16(self.borrower.0).u8(self.kind as u8).u8(self.reason.0);
        writer.u32(self.tag).finish()
    }

    /// Reads a payload, or nothing if it is too short or tells of something unknown.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<Self> {
        if payload.len() < Self::SIZE {
            return None;
        }
        Some(Self {
            handle: Handle(payload.u32_at(0)),
            borrower: Vmid(payload.u16_at(4)),
            kind: EventKind::from_wire(payload.u8_at(6))?,
            reason: EventReason(payload.u8_at(7)),
            tag: payload.u32_at(8),
        })
    }
}
