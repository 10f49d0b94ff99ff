//! Calls and notifications that Gunyah does not have.
//!
//! They have ids of their own, so a client that does not know them never meets one: an existing reply
//! is never changed. Every VM may make every call about itself and about parcels that it is a party to;
//! what is about others takes a role that the boot configuration gives.
//!
//! | id | name | request | reply, behind the error word | errors of its own |
//! |---|---|---|---|---|
//! | `CALLS + 0` | [`DISCOVER`] | none | [`Discovery`] | – |
//! | `CALLS + 1` | [`LAST_REFUSAL`] | none | [`LastRefusal`] of the transport that asks | – |
//! | `CALLS + 2` | [`SUBSCRIBE`] | [`SubscribeRequest`] | none | ARGUMENT_INVALID: an unknown bit |
//! | `CALLS + 3` | [`REVOKE`] | [`RevokeRequest`] | none | HANDLE_INVALID: no parcel of the caller's to know of; DENIED: not its owner; BUSY: an append is at work |
//! | `CALLS + 4` | [`INFO`] | [`ParcelRequest`] | [`ParcelInfo`] | HANDLE_INVALID |
//! | `CALLS + 5` | [`LIST`] | [`ListRequest`] | u32 cursor, u16 count, u16 0, [`ParcelEntry`] × count | DENIED: all VMs' parcels without the role `inspect` |
//! | `CALLS + 6` | [`SET_NAME`] | [`NameRequest`] | none | HANDLE_INVALID; DENIED: not its owner; ARGUMENT_INVALID: not UTF-8, or bytes behind its end |
//! | `CALLS + 7` | [`TRIM`] | [`TrimRequest`] | none | HANDLE_INVALID: no parcel of the caller's to know of; ARGUMENT_INVALID: the range is empty, not of whole pages or not in the parcel, or zeroing is not the caller's to ask for; MEM_RELEASED: a borrower has not mapped the parcel, or a page of the range has left it; NORESOURCE: too many holes; NOMEM: no table to cut a block; BUSY: a call on it is at work; DENIED: the owner has revoked it; MEM_INUSE: a borrower still has a page that its owner wants |
//! | `CALLS + 8` | [`LIMITS`] | [`LimitsRequest`] | u32 count, u32 handles left, [`Limit`] × count | DENIED: another VM's without the role `inspect`; VMID_INVALID: no such VM |
//! | `CALLS + 9` | [`HOLDERS`] | [`ParcelRequest`] | u32 count, [`Holder`] × count | HANDLE_INVALID; DENIED: not its owner, without the role `inspect` |
//! | `CALLS + 10` | [`SET_POLICY`] | [`SetPolicyRequest`] | none | HANDLE_INVALID: no parcel of the caller's to know of; DENIED: not its owner, or it was revoked; ARGUMENT_INVALID: its memory cannot have this policy; BUSY: a call on it is at work; MEM_INUSE: somebody holds it |
//! | `CALLS + 11` | [`VMS`] | [`VmsRequest`] | u32 cursor, u16 count, u16 0, [`VmEntry`] × count | DENIED: without the role `inspect` |
//! | `CALLS + 12` | [`MAP`] | [`MapRequest`] | u64 cursor, u16 count, u16 0, u32 0, [`MapEntry`] × count | DENIED: without the role `inspect`, or the parcel is another VM's; VMID_INVALID: no such VM; HANDLE_INVALID: no such parcel, or none yet |
//! | `CALLS + 13` | [`COUNTERS`] | [`CountersRequest`] | u32 count, u32 0, [`Count`] × count | DENIED: another VM's without the role `inspect`; VMID_INVALID: no such VM |
//! | `CALLS + 14` | [`LEAF`] | [`LeafRequest`] | [`LeafInfo`] | DENIED: without the role `inspect`; VMID_INVALID: no such VM; ARGUMENT_INVALID: the address is outside its address space |
//! | `CALLS + 15` | [`HEAP`] | [`HeapRequest`] | [`HeapInfo`] | HANDLE_INVALID: no heap from this number on that the caller may use |
//! | `CALLS + 16` | [`HEAP_ALLOC`] | [`HeapAllocRequest`] | u64 address, u64 size | HANDLE_INVALID: no such heap, or not the caller's to use; ARGUMENT_INVALID: a size of 0 or too large, or an address that is none; NOMEM: the heap has no free range of this size that is not kept for others, or no table for it; NORESOURCE: the caller's limit of this heap, the address is not free, or none is |
//! | `CALLS + 17` | [`HEAP_FREE`] | [`HeapFreeRequest`] | none | ARGUMENT_INVALID: the range is empty or not of whole pages; MEM_INVALID: a page is no heap's, not the caller's, or lent or shared; NOMEM: no table to cut a block |
//! | `CALLS + 18` | [`NOTIFY_SET`] | [`NotifySetRequest`] | none | HANDLE_INVALID; MEM_RELEASED: the caller has not mapped the parcel, or the page has left it; ARGUMENT_INVALID: not in the parcel, a byte that the caller may not write or that is of device memory, no such doorbell or flag; NOMEM: no frame for the record; BUSY: a call on it is at work; DENIED: the caller's own, which it has revoked |
//! | `CALLS + 19` | [`COPY`] | [`CopyRequest`] | u32 count, u32 error word × count | of the whole call only MSG_INVALID and ARGUMENT_INVALID for its form; of a segment HANDLE_INVALID; ARGUMENT_INVALID: both sides are the caller's addresses, not in the parcel or the window, device memory, a donation; DENIED: without the right; MEM_INVALID: not the caller's memory; MEM_RELEASED: a page has left the parcel; BUSY: the parcel is changing |
//! | `CALLS + 20` | [`SET_WINDOW`] | [`WindowRequest`] | none | HANDLE_INVALID; DENIED: not its owner, it was revoked, or nothing waits for an end; ARGUMENT_INVALID: not in the parcel, a donation, a VM that is not in the access list, the owner; MEM_INUSE: that VM has it; BUSY: a call on it is at work |
//! | `CALLS + 21` | [`ATTACH`] | [`AttachRequest`] | none | UNIMPLEMENTED: the machine has no SMMU; HANDLE_INVALID: no parcel of the caller's to know of; DENIED: no such device of the caller's, the access list grants the caller nothing, or the owner wants the parcel back; MEM_RELEASED: a borrower has not mapped the parcel; BUSY: the device is attached already, cannot reach the parcel's addresses or is not coherent as asked for, or a call on the parcel is at work; NORESOURCE: the parcel has 8 attachments, or what is left of them is kept for other parties |
//! | `CALLS + 22` | [`DETACH`] | [`DetachRequest`] | none | HANDLE_INVALID; DENIED: no such device of the caller's; MEM_RELEASED: it is not attached; BUSY: it has the parcel mapped |
//! | `CALLS + 23` | [`DMA_MAP`] | [`DmaRequest`] | none | as `DETACH`; ARGUMENT_INVALID: no such direction; DENIED: the access list does not grant what the direction takes, or the parcel was revoked; BUSY: it is mapped already, or a call on the parcel is at work; NOMEM: no tables for the device |
//! | `CALLS + 24` | [`DMA_UNMAP`] | [`DmaRequest`] | none | as `DETACH`; MEM_RELEASED: it is not mapped; ARGUMENT_INVALID: it was mapped with another direction; BUSY: a call on the mapping is at work |
//! | `CALLS + 25` | [`CPU_ACCESS`] | [`CpuAccessRequest`] | none | HANDLE_INVALID; ARGUMENT_INVALID: an unknown bit, neither read nor write, or an end without a beginning; DENIED: the access list does not grant it; MEM_RELEASED: a borrower has not mapped the parcel; BUSY: a call on it is at work |
//! | `CALLS + 26` | [`DEVICES`] | none | u32 count, u32 0, [`DeviceInfo`] × count | – |
//!
//! | id | name | payload | to whom |
//! |---|---|---|---|
//! | `NOTICES + 1` | [`PARCEL_EVENT`] | [`ParcelEvent`] | the owner of the parcel, if it subscribed to what happened |
//!
//! **Sizes grow.** A request shorter than its fields, or longer than a packet, is MSG_INVALID. Bytes
//! behind the known fields are accepted if they are all zero: a newer client asks an older manager for
//! nothing that it does not have. Any other byte there is ARGUMENT_INVALID, so that no wish is passed
//! over in silence. Replies and notifications may be longer than a client knows, never shorter; what
//! is behind the known fields is none of its business.

mod device;
mod event;
mod grant;
mod heap;
mod inspect;
mod limits;
mod parcel;
mod policy;
mod refusal;
mod trim;

pub use device::{
    AccessFlags, AttachFlags, AttachRequest, CpuAccessRequest, DetachRequest, DeviceInfo,
    Direction, DmaRequest, Stream,
};
pub use event::{EventKind, EventReason, ParcelEvent};
pub use grant::{
    CopyRequest, CopySegment, CopySide, NotifyActions, NotifySetRequest, WindowFlags, WindowRequest,
};
pub use heap::{
    HeapAllocRequest, HeapFeatures, HeapFreeRequest, HeapInfo, HeapRequest, MAX_HEAP_NAME,
};
pub use inspect::{
    Count, Counter, CountersRequest, LeafInfo, LeafRequest, MapEntry, MapRequest, PageState,
    VmEntry, VmRoles, VmsRequest,
};
pub use limits::{Limit, LimitsRequest};
pub use parcel::{
    Holder, HolderStage, ListFlags, ListRequest, MAX_NAME, Name, NameRequest, ParcelEntry,
    ParcelFlags, ParcelInfo, ParcelPhase, ParcelRequest,
};
pub use policy::{Policy, SetPolicyRequest};
pub use refusal::{LastRefusal, MAX_HOLDERS, Resource, Rule};
pub use trim::{TrimFlags, TrimRequest};

use bitflags::bitflags;

use crate::bytes::{Bytes, EncodeError, Writer};
use crate::error::ErrorCode;
use crate::header::PACKET_PAYLOAD;
use crate::names::Handle;

/// Message id of extension call 0, which is discovery; call `n` is `CALLS + n`.
pub const CALLS: u32 = 0x5e00_0000;
/// Message id of extension notification 0.
pub const NOTICES: u32 = 0x5e10_0000;

/// What the manager offers beyond Gunyah's.
pub const DISCOVER: u32 = CALLS;
/// Why the caller's last refused call was refused. A [`COPY`] counts if a segment of it was, and what is told
/// is why the first of those was.
pub const LAST_REFUSAL: u32 = CALLS + 1;
/// Says what the caller wants to be told of its own parcels, instead of what it said before.
pub const SUBSCRIBE: u32 = CALLS + 2;
/// Takes a parcel of the caller's away from all its borrowers, without their help: at once, or politely
/// at first. They hear MEM_RECALL, and then the parcel is none of theirs; the pages of a lend are zeroed
/// at the reclaim.
pub const REVOKE: u32 = CALLS + 3;
/// Gives a parcel of the caller's that nobody holds another cache policy: its own mapping of a share
/// changes at once, those of others have it when they accept; who asks while the change is at work hears
/// BUSY. To who checks them, the parcel's attributes
/// are from then on those of a parcel made with this policy: none if write-back, else one entry for each
/// VM of the access list, in its order.
pub const SET_POLICY: u32 = CALLS + 10;
/// Takes some pages out of a parcel, the rest of which stays as it is. A borrower that has mapped it gives
/// them up. Its owner, when no borrower has them any more, takes them back, where they always were, under
/// the rules of a reclaim; who accepts the parcel later finds nothing in their place. Addresses, sizes and
/// offsets stay what they were. The owner can make 8 holes, of any size, and each borrower 4; holes that
/// touch are one.
pub const TRIM: u32 = CALLS + 7;

/// What there is to say about a parcel.
pub const INFO: u32 = CALLS + 4;
/// Parcels that the caller has to do with, or all, part by part.
pub const LIST: u32 = CALLS + 5;
/// Gives a parcel of the caller's a name for people.
pub const SET_NAME: u32 = CALLS + 6;
/// How much of each resource a VM uses, and may use.
pub const LIMITS: u32 = CALLS + 8;
/// Who holds a parcel, and how: what a refusal with MEM_INUSE is about.
pub const HOLDERS: u32 = CALLS + 9;

/// All VMs, part by part.
pub const VMS: u32 = CALLS + 11;
/// What a VM has where, part by part: as it is when it is looked at, while others go on.
pub const MAP: u32 = CALLS + 12;
/// What is counted of a VM.
pub const COUNTERS: u32 = CALLS + 13;
/// The stage-2 descriptor of one page of a VM.
pub const LEAF: u32 = CALLS + 14;

/// A heap that the caller may use: to ask for one after the other, or how one stands.
pub const HEAP: u32 = CALLS + 15;
/// Takes a zeroed piece of a heap: memory of the caller's own, to use, lend and share like all of it,
/// but not to donate. What the caller still has of it when it is reset goes back to the heap.
pub const HEAP_ALLOC: u32 = CALLS + 16;
/// Gives memory of heaps back, in pieces as they were taken or in others. It is zeroed first.
pub const HEAP_FREE: u32 = CALLS + 17;
/// Says what is done when the caller's part in a page of a parcel ends, instead of what it said of that page
/// before. A borrower that has mapped the parcel says what is done when it no longer has: by a release, a
/// trim, a revocation, or its own end, however sudden. Its owner says what is done when it begins to take
/// the parcel away: by REVOKE, by a reclaim, or by its own end. The byte is cleared and the doorbell rung
/// once, when no CPU can use the mapping any more, and before anybody is told of it in another way.
pub const NOTIFY_SET: u32 = CALLS + 18;
/// Copies bytes between parcels that the caller may map, and its own memory, without a mapping. Rights are
/// those of the access list, or the caller's own addresses' in its tables; they are asked again for every
/// part of a segment. A segment that is refused in its middle, because a page is not there or
/// is taken away, has been copied up to there.
pub const COPY: u32 = CALLS + 19;
/// Lets one VM of the access list of the caller's parcel use some bytes by COPY, and map nothing. While the
/// parcel waits for its last APPEND nobody can have been faster.
pub const SET_WINDOW: u32 = CALLS + 20;
/// Lets a device of the caller's be given a parcel, of which the caller is the owner of a share or a
/// borrower that has mapped it. The device reaches nothing yet. A parcel has at most 8 attachments, of which
/// one is kept for each party that has devices. It cannot be reclaimed while it has one; a release, and
/// whatever else ends the caller's part in the parcel, ends them too. On a machine without an SMMU
/// discovery does not announce this call, and its refusal says why.
pub const ATTACH: u32 = CALLS + 21;
/// Ends an attachment whose device has nothing mapped.
pub const DETACH: u32 = CALLS + 22;
/// Maps a parcel for an attached device, at the addresses at which its VM has the parcel: to read for
/// [`Direction::ToDevice`], to write for [`Direction::FromDevice`]. What was trimmed is left out.
pub const DMA_MAP: u32 = CALLS + 23;
/// Ends the mapping: when the reply comes, no access of the device can reach the parcel any more.
pub const DMA_UNMAP: u32 = CALLS + 24;
/// Brackets the caller's own use of a parcel that devices use. If one of them does not look into the
/// caches, or the parcel is not cached, a beginning and the end of a write clean and invalidate the
/// caches. Brackets nest.
pub const CPU_ACCESS: u32 = CALLS + 25;
/// The caller's devices, and what the SMMU has refused them.
pub const DEVICES: u32 = CALLS + 26;

/// Something happened to a parcel of the receiver.
pub const PARCEL_EVENT: u32 = NOTICES + 1;

/// The version of this table: it rises when a call or a field is added.
pub const VERSION: u32 = 4;
/// The calls of this version, bit `n` for `CALLS + n`.
pub const KNOWN_CALLS: u64 = 0x7ff_ffff;
/// The notifications of this version, bit `n` for `NOTICES + n`.
pub const KNOWN_NOTICES: u64 = 0b10;

/// Checks a request against its known length: a shorter one is malformed, and so is one of more than a
/// packet; bytes that are too many must be zero.
fn check_length<B: Bytes + ?Sized>(payload: &B, known: usize) -> Result<(), ErrorCode> {
    if payload.len() < known || payload.len() > PACKET_PAYLOAD {
        return Err(ErrorCode::MessageInvalid);
    }
    let unknown = (known..payload.len()).any(|at| payload.u8_at(at) != 0);
    if unknown { Err(ErrorCode::ArgumentInvalid) } else { Ok(()) }
}

/// Reads a request that has no fields yet.
pub fn decode_empty<B: Bytes + ?Sized>(payload: &B) -> Result<(), ErrorCode> {
    check_length(payload, 0)
}

/// The data of a reply to [`DISCOVER`].
///
/// ```text
/// 0: u32 version    4: u32 number of the direct hypercall    8: u64 calls    16: u64 notifications
/// 24: u16 VMs in an access list    26: u16 entries in a list    28: u32 bytes of a payload
/// 32: u16 VMs    34: u16 forced policies
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Discovery {
    /// Of this table.
    pub version: u32,
    /// The hypercall that carries request and reply in one trap.
    pub direct_call: u32,
    /// Bit `n`: `CALLS + n` is served.
    pub calls: u64,
    /// Bit `n`: `NOTICES + n` may be sent.
    pub notices: u64,
    /// Most VMs that an access list may name.
    pub max_acl: u16,
    /// Most entries of any list.
    pub max_entries: u16,
    /// Most bytes of a payload.
    pub max_payload: u32,
    /// How many VMs the manager has.
    pub vms: u16,
    /// The cache policies that hold whatever a VM's own tables say.
    pub forced: Policies,
}

/// Cache policies of a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Policies(pub u16);

bitflags! {
    impl Policies: u16 {
        /// Write-back.
        const CACHED = 1;
        /// Normal non-cacheable.
        const UNCACHED = 2;
        /// Device nGnRE.
        const DEVICE = 4;
        const _ = !0;
    }
}

impl Discovery {
    /// Bytes of the data.
    pub const SIZE: usize = 36;

    /// Writes the data, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.version).u32(self.direct_call).u64(self.calls).u64(self.notices);
        writer.u16(self.max_acl).u16(self.max_entries).u32(self.max_payload);
        writer.u16(self.vms).u16(self.forced.0).finish()
    }

    /// Reads the data of a reply, or nothing if it is too short.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        (data.len() >= Self::SIZE).then(|| Self {
            version: data.u32_at(0),
            direct_call: data.u32_at(4),
            calls: data.u64_at(8),
            notices: data.u64_at(16),
            max_acl: data.u16_at(24),
            max_entries: data.u16_at(26),
            max_payload: data.u32_at(28),
            vms: data.u16_at(32),
            forced: Policies(data.u16_at(34)),
        })
    }

    /// Whether the call with this message id is served.
    pub const fn serves(&self, message: u32) -> bool {
        let number = message.wrapping_sub(CALLS);
        number < 64 && self.calls >> number & 1 != 0
    }
}

/// What a VM is told of its own parcels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Events(pub u32);

bitflags! {
    impl Events: u32 {
        /// A borrower has mapped one.
        const ACCEPTED = 1;
        /// A borrower has let one go.
        const RELEASED = 2;
    }
}

/// A request to be told of events, and of no others.
///
/// ```text
/// 0: u32 events
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SubscribeRequest {
    /// Which; none ends the subscription.
    pub events: Events,
}

impl SubscribeRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 4;

    /// Reads a payload. A bit without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let events = Events::from_bits(payload.u32_at(0)).ok_or(ErrorCode::ArgumentInvalid)?;
        Ok(Self { events })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.events.0).finish()
    }
}

/// A request to take a parcel away from its borrowers.
///
/// ```text
/// 0: u32 handle    4: u32 flags
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RevokeRequest {
    /// Which parcel.
    pub handle: Handle,
    /// How.
    pub flags: RevokeFlags,
}

/// How a parcel is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RevokeFlags(pub u32);

bitflags! {
    impl RevokeFlags: u32 {
        /// Politely: who has it keeps it until it releases, who has it not does not get it any more.
        /// Those who have it or were told of it hear MEM_RECALL.
        const RECALL = 1;
    }
}

impl RevokeRequest {
    /// Bytes of the payload.
    pub const SIZE: usize = 8;

    /// Reads a payload. A flag without meaning is a wish that cannot be granted.
    pub fn decode<B: Bytes + ?Sized>(payload: &B) -> Result<Self, ErrorCode> {
        check_length(payload, Self::SIZE)?;
        let flags = RevokeFlags::from_bits(payload.u32_at(4)).ok_or(ErrorCode::ArgumentInvalid)?;
        Ok(Self { handle: Handle(payload.u32_at(0)), flags })
    }

    /// Writes the payload, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        Writer::new(into).u32(self.handle.0).u32(self.flags.bits()).finish()
    }
}
