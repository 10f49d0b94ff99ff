//! The reply of LAST_REFUSAL: which rule refused, and what ran out or is in the way.
//!
//! An error word stands for many rules; a client that wants to react, or whoever debugs it, wants the
//! rule. Numbers here are never given another meaning.

use core::fmt;

use crate::bytes::{Bytes, EncodeError, Writer};
use crate::names::Vmid;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident; $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $text:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u16)]
        pub enum $name {
            $($(#[$variant_doc])* #[doc = $text] $variant = $number,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What a number stands for, if anything.
            pub const fn from_wire(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

numbered! {
    /// A rule that refuses calls, by its number on the wire.
    Rule;
    Malformed = 1, "the request is too short or too long, or a list does not fit in it";
    ListTooLong = 2, "a list has more than 512 entries";
    UnknownCall = 3, "no call has this message id";
    EmptyList = 4, "an access list, range list or list of targets is empty";
    AclTooLong = 5, "the access list names more VMs than a parcel can have";
    DonateToMany = 6, "a donation names more than one VM";
    Quota = 7, "a quota is used up; the resource says which";
    NoFrame = 8, "the manager has no memory left for this VM";
    DeviceMemory = 9, "device memory is not executed, sanitised or mapped contiguously";
    AclRepeats = 10, "the access list names a VM twice";
    AclVmid = 11, "the access list names an impossible VM";
    AclRights = 12, "the access list grants a combination of rights that does not exist";
    DonateRights = 13, "a donation must grant all rights";
    AclOwner = 14, "a share must name its owner in its access list, others must not";
    Attribute = 15, "the attribute list is contradictory or does not fit the memory";
    AttributeVmid = 16, "the attribute list names a VM outside the access list";
    Address = 17, "an address or size is unaligned, too large or not that of its unit";
    NotOwned = 18, "a page is not mapped, not the caller's, or lent or shared already";
    InProgress = 19, "another call of this VM works on the range or parcel";
    NoParcel = 20, "no such parcel, as far as the caller may know";
    NotOwner = 21, "only the owner may do this";
    IsOwner = 22, "only a borrower may do this";
    Kind = 23, "the parcel's kind or memory differs from what the caller expects";
    Validation = 24, "a validation that the caller asked for failed";
    ForOther = 25, "a VM cannot accept for another";
    MapVmid = 26, "a VM to map for was named without asking to map for another";
    Mapped = 27, "the caller has mapped the parcel already";
    MixedAccept = 28, "a contiguous and a piecewise accept were mixed";
    SanitizeRights = 29, "sanitising needs the right to write";
    TooManyAddresses = 30, "more addresses than units that need one";
    Unassigned = 31, "the last accept left units without an address";
    NoRange = 32, "the address range is not free, or none is";
    NotHeld = 33, "the caller does not hold the parcel";
    Held = 34, "VMs hold the parcel; the holders say which";
    NotAppending = 35, "the parcel is complete";
    NoMatch = 36, "no parcel of the caller matches the description";
    OtherTag = 37, "the parcel has another tag";
    NotifyFlag = 38, "not exactly one known thing to tell";
    TooManyTargets = 39, "more targets than the parcel has borrowers";
    NoVm = 40, "a target is no VM";
    TargetOutsideAcl = 41, "a target is not in the parcel's access list";
    UnknownBits = 42, "a bit or byte that has no meaning is set";
    StillHeld = 43, "the caller holds what it says it has released";
    Role = 44, "the caller's configuration does not give it the role for this";
    Closing = 45, "the parcel was recalled or is ending";
    UnknownVm = 46, "there is no such VM";
    VmState = 47, "the VM is not in a state for this";
    TrimRange = 50, "the range is empty, not of whole pages, or not in the parcel";
    Trimmed = 51, "a page of the range has left the parcel before";
    TooManyHoles = 52, "the parcel, or the caller's mapping of it, would have too many holes";
    Policy = 53, "the memory cannot have this cache policy";
    SharedQuota = 55, "the VM's guarantee is used up, and so is the shared pool; the resource says of what";
    Poisoned = 59, "a page of the parcel cannot be vouched for, so it is given to nobody";
    NoHeap = 60, "there is no such heap, as far as the caller may know";
    HeapFull = 61, "the heap has no free range of this size that is not kept for others";
    NotOfHeap = 62, "a page is of no heap";
    OfHeap = 63, "memory of a heap is lent and shared, but not given away";
    NotifyByte = 64, "a byte to clear must be one that the caller may write";
    NotifyBell = 65, "there is no such doorbell or flag";
    Outside = 66, "a byte is not in the parcel, or not in the caller's window of it";
    Window = 67, "the caller may copy some bytes of the parcel, and not map it";
    CopyOwn = 68, "neither side of a copy is a parcel";
    CopyRights = 69, "the access list does not let the caller copy this way";
    NoSmmu = 70, "the machine has no SMMU, so no device of a VM could be kept to a parcel";
    NoDevice = 71, "no such device of the caller's";
    DeviceLimits = 72, "the device cannot reach the parcel's addresses, or is not coherent as asked for";
    DeviceInUse = 73, "the device is attached, or has it mapped, already";
    NotBegun = 74, "what is to end has not begun: no such attachment, mapping or CPU access";
    Direction = 75, "no such direction, or not that of the mapping";
    DeviceRights = 76, "the access list does not grant what the direction takes";
    TooManyAttachments = 77, "the parcel has as many devices attached as it can have";
}

numbered! {
    /// What a VM's configuration limits, by its number on the wire.
    Resource;
    Parcels = 1, "parcels that exist at once";
    PagesLent = 2, "pages in the parcels that the VM owns";
    PagesAccepted = 3, "pages that the VM has accepted";
    Extents = 4, "physically contiguous runs in the parcels that the VM owns";
    Unfinished = 5, "parcels that wait for their last append";
    Handles = 6, "handle numbers, in use or worn out";
    Unread = 7, "news of parcels that are gone, which a VM of the access list has left unread";
    Frames = 8, "the manager's memory: tables, extent lists, long messages";
    PagesOfHeaps = 9, "pages that the VM has of heaps; of a refusal: of the heap that was asked";
}

/// Most VMs that can be in the way of a call.
pub const MAX_HOLDERS: usize = 16;

/// Why a VM's last refused call was refused: the data of a reply to LAST_REFUSAL.
///
/// ```text
/// 0: u32 message id    4: u16 sequence number, u16 rule    8: u32 error word
/// 12: u16 resource, u16 holders    16: u64 used    24: u64 limit    32: u16 VMID x 16
/// ```
/// All zero while nothing was refused. Used and limit are those at the refusal, without what the
/// refused call asked for. What does not apply to the rule is zero; for HANDLE_INVALID that is
/// everything behind the error word, so that nobody learns of a parcel that is not his.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LastRefusal {
    /// The call that was refused.
    pub message: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// A [`Rule`], or a younger one's number.
    pub rule: u16,
    /// The error word that it was answered with.
    pub error: u32,
    /// A [`Resource`] if a quota or memory ran out, else 0.
    pub resource: u16,
    /// How much of the resource the VM uses.
    pub used: u64,
    /// How much of it the VM may use.
    pub limit: u64,
    /// The VMs in the way: the first `holder_count`.
    pub holders: [Vmid; MAX_HOLDERS],
    /// How many there are.
    pub holder_count: u16,
}

impl LastRefusal {
    /// Bytes of the data.
    pub const SIZE: usize = HOLDERS + 2 * MAX_HOLDERS;

    /// Nothing was refused.
    pub const NONE: Self = Self {
        message: 0,
        sequence: 0,
        rule: 0,
        error: 0,
        resource: 0,
        used: 0,
        limit: 0,
        holders: [Vmid(0); MAX_HOLDERS],
        holder_count: 0,
    };

    /// The VMs in the way.
    pub fn holders(&self) -> &[Vmid] {
        &self.holders[..usize::from(self.holder_count).min(MAX_HOLDERS)]
    }

    /// Writes the data, and returns its length.
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(into);
        writer.u32(self.message).u16(self.sequence).u16(self.rule).u32(self.error);
        writer.u16(self.resource).u16(self.holder_count).u64(self.used).u64(self.limit);
        for vmid in self.holders {
            writer.u16(vmid.0);
        }
        writer.finish()
    }

    /// Reads the data of a reply, or nothing if it is too short.
    pub fn decode<B: Bytes + ?Sized>(data: &B) -> Option<Self> {
        (data.len() >= Self::SIZE).then(|| Self {
            message: data.u32_at(0),
            sequence: data.u16_at(4),
            rule: data.u16_at(6),
            error: data.u32_at(8),
            resource: data.u16_at(12),
            holder_count: data.u16_at(14),
            used: data.u64_at(16),
            limit: data.u64_at(24),
            holders: core::array::from_fn(|index| Vmid(data.u16_at(HOLDERS + 2 * index))),
        })
    }
}

/// Offset of the holders.
const HOLDERS: usize = 32;
