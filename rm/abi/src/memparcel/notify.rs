//! MEM_NOTIFY: telling the other side about a parcel.
//!
//! ```text
//! 0: u32 handle    4: u8 what, u8 0 x 3    8: u32 tag    12: VMID list, if the owner tells its borrowers
//! ```
//! Bytes behind the list are ignored. The reply has no data.

use super::NotifyFlag;
use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::list::{List, VmidEntry};
use crate::names::Handle;

/// Shortest payload.
const MINIMUM: usize = 12;
/// Shortest payload with a list.
const MINIMUM_WITH_LIST: usize = 16;

/// A received request to tell something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NotifyRequest {
    /// About which parcel.
    pub handle: Handle,
    /// What; `None` is a byte that is not one of the four.
    pub flag: Option<NotifyFlag>,
    /// A number that the receivers get.
    pub tag: u32,
}

impl NotifyRequest {
    /// Reads a payload, without the list: whether one is needed depends on the flag.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() < MINIMUM {
            return Err(ErrorCode::MessageInvalid);
        }
        Ok(Self {
            handle: Handle(payload.u32_at(0)),
            flag: NotifyFlag::from_wire(payload.u8_at(4)),
            tag: payload.u32_at(8),
        })
    }

    /// The VMs to tell, of a request whose flag asks for a list. There is no limit on its length but
    /// the one that its parcel's access list sets.
    pub fn targets<B: Bytes + ?Sized>(payload: &B) -> Result<List<VmidEntry>, ErrorCode> {
        if payload.len() < MINIMUM_WITH_LIST {
            return Err(ErrorCode::MessageInvalid);
        }
        let mut at = MINIMUM;
        let (count, auxiliary) = (payload.u16_at(at), payload.u16_at(at + 2));
        if count == 0 {
            return Err(ErrorCode::ArgumentInvalid);
        }
        List::entries(payload, &mut at, count, auxiliary)
    }
}

/// A request to tell something, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify<'a> {
    /// About which parcel.
    pub handle: Handle,
    /// What.
    pub flag: NotifyFlag,
    /// A number that the receivers get.
    pub tag: u32,
    /// The VMs to tell, if the caller is the owner.
    pub targets: &'a [VmidEntry],
}

impl Notify<'_> {
    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.handle.0).u8(self.flag as u8).bytes(&[0; 3]).u32(self.tag);
        if matches!(self.flag, NotifyFlag::Shared | NotifyFlag::Recall) {
            writer.list(self.targets, 0);
        }
        writer.finish()
    }
}
