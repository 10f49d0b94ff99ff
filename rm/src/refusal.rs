//! Why a call was refused.
//!
//! A refusal names the rule, not only the wire's code: many rules share one code, and the reader of
//! a log wants the rule. [`Refusal::code`] is the only way to the wire.

use rm_abi::ErrorCode;

/// What a VM's configuration limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Resource {
    /// Parcels that exist at once.
    Parcels,
    /// Pages in the parcels that the VM owns.
    PagesLent,
    /// Pages that the VM has accepted.
    PagesAccepted,
    /// Extents of the parcels that the VM owns.
    Extents,
    /// Creations that wait for their last APPEND.
    Unfinished,
    /// Handle numbers: every slot of the VM is in use or worn out.
    Handles,
    /// News of parcels that are gone, which a VM of the ACL has left unread.
    Unread,
    /// Frames of the manager: tables, extent lists, long messages.
    Frames,
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
    /// A quota of the caller is used up (NORESOURCE).
    Quota(Resource),
    /// No frame is left for the caller, by its quota or at all (NOMEM).
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
    /// A borrower still holds the parcel (MEM_INUSE).
    Held,
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
}

impl Refusal {
    /// The error word that the wire carries.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Malformed(code) => code,
            Self::UnknownCall => ErrorCode::Unimplemented,
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
            | Self::Unassigned => ErrorCode::ArgumentInvalid,
            Self::AclTooLong | Self::Quota(_) | Self::NoRange => ErrorCode::NoResource,
            Self::NoFrame => ErrorCode::NoMemory,
            Self::DonateRights
            | Self::NotOwner
            | Self::IsOwner
            | Self::ForOther
            | Self::Mapped
            | Self::NotAppending => ErrorCode::Denied,
            Self::AttributeVmid | Self::TargetVmid => ErrorCode::VmidInvalid,
            Self::NotOwned => ErrorCode::MemoryInvalid,
            Self::InProgress => ErrorCode::Busy,
            Self::NoParcel => ErrorCode::HandleInvalid,
            Self::Validation => ErrorCode::ValidateFailed,
            Self::NotHeld => ErrorCode::MemoryReleased,
            Self::Held | Self::StillHeld => ErrorCode::MemoryInUse,
            Self::NoMatch => ErrorCode::LookupFailed,
        }
    }
}
