//! Calls about VMs: who they are, how they are, and their life.
//!
//! ```text
//! VM_GET_VMID    request: empty                       reply: u32 VMID
//! VM_GET_OWNER   request: empty                       reply: u32 VMID
//! VM_GET_PEERS   request: empty                       reply: u32 count, u32 VMID x count
//! VM_GET_STATE   request: u16 VMID (0: self), u16 0   reply: u8 VM state, u8 OS state, u16 of the OS
//! VM_GET_ID      request: u16 VMID (0: self), u16 0   reply: u32 count, {u8 type, u8 0, u16 size, bytes} x count
//! VM_START       request: u16 VMID, u16 0
//! VM_STOP        request: u16 VMID, u8 flags, u8 0, u32 reason
//! VM_RESET       request: u16 VMID, u16 0
//! VM_EXIT        request: u16 flags, u8 code, u8 0
//!
//! VM_EXITED      u16 VMID, u16 exit kind, u32 bytes that follow, u16 flags, u16 code
//! VM_SHUTDOWN    u32 reason
//! VM_STATUS      u16 VMID, u16 0, u8 VM state, u8 OS state, u16 of the OS
//! ```
//! Requests have exactly these lengths. A VM asks about itself and its peers: about any other, VM_GET_STATE and
//! VM_GET_ID are NORESOURCE, whether there is one or not (Gunyah's own manager says DENIED of one that there is).

use bitflags::bitflags;

use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::names::Vmid;

/// Where a VM is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum VmState {
    /// It is being loaded.
    Init = 1,
    /// It is loaded and has not run.
    Ready = 2,
    /// It runs.
    Running = 3,
    /// It has ended; what it had a part in is as it was.
    Exited = 9,
    /// What it had a part in is being taken from it.
    Resetting = 10,
    /// It has a part in nothing, and can be started.
    Reset = 11,
}

impl VmState {
    /// The state that a number stands for, if it is one of these.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Init,
            2 => Self::Ready,
            3 => Self::Running,
            9 => Self::Exited,
            10 => Self::Resetting,
            11 => Self::Reset,
            _ => return None,
        })
    }
}

/// How a VM ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum ExitKind {
    /// It called VM_EXIT.
    Call = 0,
    /// It switched itself off.
    PowerOff = 1,
    /// It asked to be reset.
    PowerReset = 2,
    /// It was stopped for a fault.
    Fault = 5,
    /// It was stopped for a system error.
    SystemError = 6,
    /// Another VM stopped it.
    Stopped = 7,
}

impl ExitKind {
    /// The kind that a number stands for, if it is one of these.
    pub const fn from_wire(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Call,
            1 => Self::PowerOff,
            2 => Self::PowerReset,
            5 => Self::Fault,
            6 => Self::SystemError,
            7 => Self::Stopped,
            _ => return None,
        })
    }
}

/// A request about one VM: VM_START, VM_RESET, VM_GET_ID, VM_GET_STATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmRequest {
    /// Which; in VM_GET_ID and VM_GET_STATE 0 is the caller.
    pub vmid: Vmid,
}

impl VmRequest {
    /// Bytes of the payload, exactly.
    pub const SIZE: usize = 4;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() != Self::SIZE {
            return Err(ErrorCode::MessageInvalid);
        }
        Ok(Self { vmid: Vmid(payload.u16_at(0)) })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.vmid.0).u16(0).finish()
    }
}

/// How VM_STOP stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StopFlags(pub u8);

bitflags! {
    impl StopFlags: u8 {
        /// At once. Without it the VM is asked by VM_SHUTDOWN.
        const FORCE = 1;
        const _ = !0;
    }
}

/// A request to stop a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmStopRequest {
    /// Which.
    pub vmid: Vmid,
    /// How.
    pub flags: StopFlags,
    /// Passed on to the VM.
    pub reason: u32,
}

impl VmStopRequest {
    /// Bytes of the payload, exactly.
    pub const SIZE: usize = 8;

    /// Reads a payload.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        if payload.len() != Self::SIZE {
            return Err(ErrorCode::MessageInvalid);
        }
        Ok(Self {
            vmid: Vmid(payload.u16_at(0)),
            flags: StopFlags::from_bits_retain(payload.u8_at(2)),
            reason: payload.u32_at(4),
        })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.vmid.0).u8(self.flags.bits()).u8(0).u32(self.reason).finish()
    }
}

/// What VM_EXITED tells a VM's owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmExited {
    /// Which VM.
    pub vmid: Vmid,
    /// How it ended.
    pub kind: ExitKind,
    /// Of VM_EXIT.
    pub flags: u16,
    /// Of VM_EXIT.
    pub code: u16,
}

impl VmExited {
    /// Bytes of the payload.
    pub const SIZE: usize = 12;
    /// Bytes behind the length field.
    const REASON: u32 = 4;

    /// Reads a payload, or nothing if it is too short or of an unknown kind.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<Self> {
        if payload.len() < Self::SIZE {
            return None;
        }
        Some(Self {
            vmid: Vmid(payload.u16_at(0)),
            kind: ExitKind::from_wire(payload.u16_at(2))?,
            flags: payload.u16_at(8),
            code: payload.u16_at(10),
        })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u16(self.vmid.0).u16(self.kind as u16).u32(Self::REASON);
        writer.u16(self.flags).u16(self.code).finish()
    }
}

/// What VM_STATUS tells a VM's peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmStatus {
    /// Which VM.
    pub vmid: Vmid,
    /// Its state from now on.
    pub state: VmState,
}

impl VmStatus {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload, or nothing if it is too short or tells of an unknown state.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Option<Self> {
        if payload.len() < Self::SIZE {
            return None;
        }
        let state = VmState::from_wire(payload.u8_at(4))?;
        Some(Self { vmid: Vmid(payload.u16_at(0)), state })
    }

    /// Writes the payload, and returns its length. What an OS says of itself is not known.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u16(self.vmid.0).u16(0).u8(self.state as u8).u8(0).u16(0).finish()
    }
}

/// Kind of an identity in VM_GET_ID's reply: a name for people.
pub const ID_NAME: u8 = 2;

/// Writes the data of VM_GET_ID's reply for a VM that has a name, and returns its length.
pub fn encode_name(name: &[u8], into: &mut [u8]) -> Result<usize, EncodeError> {
    let mut writer = Writer::new(into);
    writer.u32(1).u8(ID_NAME).u8(0).u16(name.len() as u16).bytes(name);
    writer.bytes(&[0; 3][..name.len().next_multiple_of(4) - name.len()]).finish()
}

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
