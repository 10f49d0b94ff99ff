//! Why a call was refused.
//!
//! A refusal names the rule, not only the wire's code: many rules share one code, and the reader of
//! a log wants the rule. [`Refusal::code`] is the only way to a reply's error word; the call
//! LAST_REFUSAL tells [`Refusal::rule`] and what belongs to it.

pub use rm_abi::extension::Resource;

use rm_abi::ErrorCode;
use rm_abi::extension::Rule;

use crate::address::VmIndex;
use crate::config::MAX_VMS;
use crate::frame_pool::NoFrame;
use crate::stage2::ClaimError;

/// VMs, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Holders(u16);

const _: () = assert!(MAX_VMS <= u16::BITS as usize);

impl Holders {
    /// Whether the VM is one of them.
    pub const fn contains(self, vm: VmIndex) -> bool {
        self.0 >> vm.0 & 1 != 0
    }
}

impl FromIterator<VmIndex> for Holders {
    fn from_iter<T: IntoIterator<Item = VmIndex>>(vms: T) -> Self {
        Self(vms.into_iter().fold(0, |set, vm| set | 1 << vm.0))
    }
}

/// The rule that refused a call. The comments give the code's name and, where the rule is a row of
/// the protocol's tables, the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refusal {
    /// The request broke a length or list rule; the code is the decoder's.
    Malformed(ErrorCode),
    /// No call has this message id (UNIMPLEMENTED).
    UnknownCall,
    /// An ACL or address list is empty (ARGUMENT_INVALID).
    EmptyList,
    /// More ACL entries than a parcel holds (NORESOURCE).
    AclTooLong,
    /// A donation names more than one VM (ARGUMENT_INVALID).
    DonateToMany,
    /// A byte to clear must be one that the caller may write (ARGUMENT_INVALID).
    NotifyByte,
    /// There is no such doorbell or flag (ARGUMENT_INVALID).
    NotifyBell,
    /// A byte is not in the parcel, or not in the caller's window of it (ARGUMENT_INVALID).
    Outside,
    /// The caller may copy some bytes of the parcel, and not map it (DENIED).
    Window,
    /// Neither side of a copy is a parcel (ARGUMENT_INVALID).
    CopyOwn,
    /// The access list does not let the caller copy this way (DENIED).
    CopyRights,
    /// A quota of the caller is used up (NORESOURCE).
    Quota(Resource),
    /// The caller has used what it is guaranteed, and the pool that it shares with others does not have
    /// as much as it wants (NORESOURCE, for frames NOMEM).
    SharedQuota(Resource),
    /// The caller uses as many frames as it may (NOMEM).
    NoFrame,
    /// Device memory cannot be sanitised or mapped contiguously (ARGUMENT_INVALID).
    DeviceMemory,
    /// The ACL names a VM twice (ARGUMENT_INVALID).
    AclRepeats,
    /// The ACL names an impossible VM (ARGUMENT_INVALID).
    AclVmid,
    /// The ACL grants a combination of rights that does not exist (ARGUMENT_INVALID).
    AclRights,
    /// A donation must grant all rights (DENIED).
    DonateRights,
    /// A share must name its owner, a lend or donation must not (ARGUMENT_INVALID).
    AclOwner,
    /// The attribute list repeats a VM, holds an unknown value, one that does not fit the memory or
    /// the kind, or two different ones (ARGUMENT_INVALID).
    Attribute,
    /// The attribute list names a VM outside the ACL (VMID_INVALID).
    AttributeVmid,
    /// An address or size is unaligned, too large or does not fit its unit (ARGUMENT_INVALID).
    Address,
    /// The range is empty, wraps, or holds a page that the caller does not wholly own (MEM_INVALID).
    NotOwned,
    /// Another call of the same VM is working on the range or parcel (BUSY).
    InProgress,
    /// No such parcel, or the caller is no party to it (HANDLE_INVALID).
    NoParcel,
    /// Only the owner may do this (DENIED).
    NotOwner,
    /// Only a borrower may do this (DENIED).
    IsOwner,
    /// The parcel's ACL does not name the caller, who owns it (VMID_INVALID).
    NotNamed,
    /// The parcel's kind or memory differs from what the caller expects (ARGUMENT_INVALID).
    Kind,
    /// A validation that the caller asked for failed (VALIDATE_FAILED).
    Validation,
    /// Accepting on another VM's behalf is not offered (DENIED).
    ForOther,
    /// A VM to map for was named although mapping for others was not asked for (ARGUMENT_INVALID).
    MapVmid,
    /// The caller has mapped the parcel already (DENIED).
    Mapped,
    /// A contiguous and a piecewise accept were mixed (ARGUMENT_INVALID).
    MixedAccept,
    /// Sanitising needs the right to write (ARGUMENT_INVALID).
    SanitizeRights,
    /// More addresses than units that still need one (ARGUMENT_INVALID).
    TooManyAddresses,
    /// The call said DONE while units have no address (ARGUMENT_INVALID).
    Unassigned,
    /// The range is not free, or no free range was found (NORESOURCE).
    NoRange,
    /// The caller does not hold the parcel (MEM_RELEASED).
    NotHeld,
    /// These VMs still hold the parcel (MEM_INUSE).
    Held(Holders),
    /// The owner calls the parcel something else than before (ARGUMENT_INVALID).
    NotifyTag,
    /// A notification tells not exactly one known thing (ARGUMENT_INVALID).
    NotifyFlag,
    /// A notification names more VMs than the ACL (ARGUMENT_INVALID).
    TooManyTargets,
    /// A notification names a VM that does not exist (VMID_INVALID).
    TargetVmid,
    /// A notification names a VM that is not in the ACL (ARGUMENT_INVALID).
    TargetNotInAcl,
    /// The caller says that it has released what it holds (MEM_INUSE).
    StillHeld,
    /// The parcel is complete, nothing can be appended (DENIED).
    NotAppending,
    /// No parcel of the caller matches the description (LOOKUP_FAILED).
    NoMatch,
    /// A bit or byte is set that has no meaning (ARGUMENT_INVALID).
    UnknownBits,
    /// The machine does not vouch for a page of the parcel, which stays (MEM_INVALID).
    Poisoned,
    /// The caller's configuration does not give it the role for this (DENIED).
    Role,
    /// The owner has recalled the parcel, or it ends (DENIED).
    Closing,
    /// No such VM, as far as the caller may know (VMID_INVALID).
    NoVm,
    /// As [`Refusal::NoVm`], of a call that only asks (NORESOURCE).
    NoSuchVm,
    /// The VM is not in a state for this (VM_STATE).
    VmState,
    /// A range to trim is empty, not of whole pages, or not in the parcel (ARGUMENT_INVALID).
    TrimRange,
    /// A page to trim has left the parcel, or the caller's mapping of it, before (MEM_RELEASED).
    Trimmed,
    /// The parcel, or the caller's mapping of it, has too many holes for another (NORESOURCE).
    TooManyHoles,
    /// The parcel's memory cannot have this cache policy (ARGUMENT_INVALID).
    Policy,
    /// No such heap, or the caller may not use it (HANDLE_INVALID).
    NoHeap,
    /// The heap has no free range of this size that is not kept for others (NOMEM).
    HeapFull,
    /// The caller may not have so much of the heap with this number (NORESOURCE).
    HeapQuota(u8),
    /// A page to give away is a heap's (MEM_INVALID).
    OfHeap,
    /// A page to give back is of no heap (MEM_INVALID).
    NotOfHeap,
    /// The machine has no SMMU (UNIMPLEMENTED).
    NoSmmu,
    /// No such device of the caller's (DENIED).
    NoDevice,
    /// The device cannot reach the parcel's addresses, or is not coherent as asked for (BUSY).
    DeviceLimits,
    /// The device is attached or mapped already (BUSY).
    DeviceInUse,
    /// No such attachment or mapping (MEM_RELEASED).
    NotBegun,
    /// The caller ends a CPU access that it has not begun (ARGUMENT_INVALID).
    NoAccess,
    /// No direction, one that there is not, or not that of the mapping (ARGUMENT_INVALID).
    Direction,
    /// The access list does not grant what a direction takes (DENIED).
    DeviceRights,
    /// The parcel has as many attachments as it can have (NORESOURCE).
    TooManyAttachments,
}

impl From<NoFrame> for Refusal {
    fn from(none: NoFrame) -> Self {
        match none {
            NoFrame::Quota => Self::NoFrame,
            NoFrame::Empty => Self::SharedQuota(Resource::Frames),
        }
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::NoFrame(none) => none.into(),
            ClaimError::NotOwned | ClaimError::Claimed => Self::NotOwned,
        }
    }
}

impl Refusal {
    /// The error word that the wire carries.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Malformed(code) => code,
            Self::UnknownCall | Self::NoSmmu => ErrorCode::Unimplemented,
            Self::EmptyList
            | Self::DonateToMany
            | Self::DeviceMemory
            | Self::AclRepeats
            | Self::AclVmid
            | Self::AclRights
            | Self::AclOwner
            | Self::Attribute
            | Self::Address
            | Self::Kind
            | Self::MapVmid
            | Self::MixedAccept
            | Self::SanitizeRights
            | Self::TooManyAddresses
            | Self::NotifyTag
            | Self::NotifyFlag
            | Self::TooManyTargets
            | Self::TargetNotInAcl
            | Self::UnknownBits
            | Self::Policy
            | Self::NoAccess
            | Self::Direction
            | Self::TrimRange
            | Self::NotifyByte
            | Self::NotifyBell
            | Self::Outside
            | Self::CopyOwn
            | Self::Unassigned => ErrorCode::ArgumentInvalid,
            Self::NoFrame | Self::SharedQuota(Resource::Frames) | Self::HeapFull => {
                ErrorCode::NoMemory
            }
            Self::AclTooLong
            | Self::Quota(_)
            | Self::HeapQuota(_)
            | Self::SharedQuota(_)
            | Self::NoRange
            | Self::TooManyHoles
            | Self::TooManyAttachments
            | Self::NoSuchVm => ErrorCode::NoResource,
            Self::DonateRights
            | Self::NotOwner
            | Self::IsOwner
            | Self::ForOther
            | Self::Mapped
            | Self::Role
            | Self::Closing
            | Self::Window
            | Self::CopyRights
            | Self::NoDevice
            | Self::DeviceRights
            | Self::NotAppending => ErrorCode::Denied,
            Self::AttributeVmid | Self::NotNamed | Self::TargetVmid | Self::NoVm => {
                ErrorCode::VmidInvalid
            }
            Self::VmState => ErrorCode::VmState,
            Self::NotOwned | Self::Poisoned | Self::NotOfHeap | Self::OfHeap => {
                ErrorCode::MemoryInvalid
            }
            Self::InProgress | Self::DeviceLimits | Self::DeviceInUse => ErrorCode::Busy,
            Self::NoParcel | Self::NoHeap => ErrorCode::HandleInvalid,
            Self::Validation => ErrorCode::ValidateFailed,
            Self::NotHeld | Self::Trimmed | Self::NotBegun => ErrorCode::MemoryReleased,
            Self::Held(_) | Self::StillHeld => ErrorCode::MemoryInUse,
            Self::NoMatch => ErrorCode::LookupFailed,
        }
    }

    /// The rule's number.
    pub const fn rule(self) -> Rule {
        match self {
            Self::Malformed(ErrorCode::NoResource) => Rule::ListTooLong,
            Self::Malformed(_) => Rule::Malformed,
            Self::UnknownCall => Rule::UnknownCall,
            Self::EmptyList => Rule::EmptyList,
            Self::AclTooLong => Rule::AclTooLong,
            Self::DonateToMany => Rule::DonateToMany,
            Self::Quota(_) => Rule::Quota,
            Self::SharedQuota(_) => Rule::SharedQuota,
            Self::NoFrame => Rule::NoFrame,
            Self::DeviceMemory => Rule::DeviceMemory,
            Self::AclRepeats => Rule::AclRepeats,
            Self::AclVmid => Rule::AclVmid,
            Self::AclRights => Rule::AclRights,
            Self::DonateRights => Rule::DonateRights,
            Self::AclOwner => Rule::AclOwner,
            Self::Attribute => Rule::Attribute,
            Self::AttributeVmid => Rule::AttributeVmid,
            Self::Address => Rule::Address,
            Self::NotOwned => Rule::NotOwned,
            Self::InProgress => Rule::InProgress,
            Self::NoParcel => Rule::NoParcel,
            Self::NotOwner => Rule::NotOwner,
            Self::IsOwner | Self::NotNamed => Rule::IsOwner,
            Self::Kind => Rule::Kind,
            Self::Validation => Rule::Validation,
            Self::ForOther => Rule::ForOther,
            Self::MapVmid => Rule::MapVmid,
            Self::Mapped => Rule::Mapped,
            Self::MixedAccept => Rule::MixedAccept,
            Self::SanitizeRights => Rule::SanitizeRights,
            Self::TooManyAddresses => Rule::TooManyAddresses,
            Self::Unassigned => Rule::Unassigned,
            Self::NoRange => Rule::NoRange,
            Self::NotHeld => Rule::NotHeld,
            Self::Held(_) => Rule::Held,
            Self::NotAppending => Rule::NotAppending,
            Self::NoMatch => Rule::NoMatch,
            Self::NotifyTag => Rule::OtherTag,
            Self::NotifyFlag => Rule::NotifyFlag,
            Self::TooManyTargets => Rule::TooManyTargets,
            Self::TargetVmid => Rule::NoVm,
            Self::TargetNotInAcl => Rule::TargetOutsideAcl,
            Self::UnknownBits => Rule::UnknownBits,
            Self::StillHeld => Rule::StillHeld,
            Self::Role => Rule::Role,
            Self::Poisoned => Rule::Poisoned,
            Self::Closing => Rule::Closing,
            Self::NoVm | Self::NoSuchVm => Rule::UnknownVm,
            Self::VmState => Rule::VmState,
            Self::Policy => Rule::Policy,
            Self::NoHeap => Rule::NoHeap,
            Self::HeapFull => Rule::HeapFull,
            Self::HeapQuota(_) => Rule::Quota,
            Self::NotOfHeap => Rule::NotOfHeap,
            Self::OfHeap => Rule::OfHeap,
            Self::TrimRange => Rule::TrimRange,
            Self::Trimmed => Rule::Trimmed,
            Self::TooManyHoles => Rule::TooManyHoles,
            Self::NotifyByte => Rule::NotifyByte,
            Self::NotifyBell => Rule::NotifyBell,
            Self::Outside => Rule::Outside,
            Self::Window => Rule::Window,
            Self::CopyOwn => Rule::CopyOwn,
            Self::CopyRights => Rule::CopyRights,
            Self::NoSmmu => Rule::NoSmmu,
            Self::NoDevice => Rule::NoDevice,
            Self::DeviceLimits => Rule::DeviceLimits,
            Self::DeviceInUse => Rule::DeviceInUse,
            Self::NotBegun | Self::NoAccess => Rule::NotBegun,
            Self::Direction => Rule::Direction,
            Self::DeviceRights => Rule::DeviceRights,
            Self::TooManyAttachments => Rule::TooManyAttachments,
        }
    }

    /// What ran out, if something did.
    pub const fn resource(self) -> Option<Resource> {
        match self {
            Self::Quota(resource) | Self::SharedQuota(resource) => Some(resource),
            Self::NoFrame => Some(Resource::Frames),
            Self::HeapQuota(_) => Some(Resource::PagesOfHeaps),
            _ => None,
        }
    }
}
