//! The calls about parcels of memory: one file each, with what they have in common here.

pub mod accept;
pub mod append;
pub mod create;
pub mod handle;
pub mod lookup;
pub mod notice;
pub mod notify;

use bitflags::bitflags;

/// What a VM may do with a page. The wire's bits; only read, read-write, read-execute and all three
/// make sense, see [`Rights::is_valid`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rights(pub u8);

bitflags! {
    impl Rights: u8 {
        /// Fetch instructions.
        const X = 1;
        /// Write.
        const W = 2;
        /// Read.
        const R = 4;
        /// Any other bit, kept as sent so that it can be refused.
        const _ = !0;
    }
}

impl Rights {
    /// Read and execute.
    pub const RX: Self = Self(5);
    /// Read and write.
    pub const RW: Self = Self(6);
    /// Everything.
    pub const RWX: Self = Self(7);

    /// Whether this is one of the four combinations that may be granted.
    pub const fn is_valid(self) -> bool {
        matches!(self.0, 4..=7)
    }
}

/// What kind of memory a parcel is made of. Any number other than [`MemoryKind::IO`] behaves as
/// normal memory when a parcel is created, and accepting compares the numbers, so it is kept as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryKind(pub u8);

impl MemoryKind {
    /// RAM.
    pub const NORMAL: Self = Self(0);
    /// Registers of a device.
    pub const IO: Self = Self(1);
}

/// How the pages of a parcel change hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Transfer {
    /// For good.
    Donate = 0,
    /// Until reclaimed; the owner loses its access meanwhile.
    Lend = 1,
    /// The owner keeps the access that its own entry in the access list gives it.
    Share = 2,
}

impl Transfer {
    /// The transfer that a number stands for, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Donate),
            1 => Some(Self::Lend),
            2 => Some(Self::Share),
            _ => None,
        }
    }

    /// Message id of the call that creates such a parcel.
    pub const fn message(self) -> u32 {
        match self {
            Self::Donate => crate::message::MEM_DONATE,
            Self::Lend => crate::message::MEM_LEND,
            Self::Share => crate::message::MEM_SHARE,
        }
    }
}

/// The memory type with which a VM maps a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Attribute {
    /// The default: write-back.
    Normal = 0,
    /// Device nGnRE.
    Device = 1,
    /// Normal non-cacheable.
    Uncached = 2,
    /// Write-back.
    Cached = 3,
}

impl Attribute {
    /// The attribute that a number stands for, if there is one.
    pub const fn from_wire(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::Device),
            2 => Some(Self::Uncached),
            3 => Some(Self::Cached),
            _ => None,
        }
    }
}

// Unknown bits are kept in what was sent and change nothing: calls ask only for the bits they know.

/// Flags of a create call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CreateFlags(pub u8);

bitflags! {
    impl CreateFlags: u8 {
        /// Zero the pages now.
        const SANITIZE = 1;
        /// More pages follow by append calls.
        const APPEND = 2;
    }
}

/// Flags of an append call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AppendFlags(pub u8);

bitflags! {
    impl AppendFlags: u8 {
        /// These are the last pages.
        const END = 1;
    }
}

/// Flags of an accept call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AcceptFlags(pub u8);

bitflags! {
    impl AcceptFlags: u8 {
        /// Refuse a parcel that was not zeroed when it was created.
        const VALIDATE_SANITIZED = 1;
        /// Refuse a parcel whose access or attribute list differs from the ones sent.
        const VALIDATE_ACL_ATTR = 2;
        /// Refuse a parcel whose label differs from the one sent.
        const VALIDATE_LABEL = 4;
        /// Map on behalf of another VM, which no VM may do.
        const MAP_OTHER = 8;
        /// Map everything at one contiguous range of addresses.
        const MAP_CONTIGUOUS = 0x10;
        /// Zero the pages when they are reclaimed.
        const SANITIZE = 0x20;
        /// Map now: no further call names more addresses.
        const DONE = 0x80;
    }
}

/// Flags of a release or reclaim call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sanitize(pub u8);

bitflags! {
    impl Sanitize: u8 {
        /// Zero the pages when they are reclaimed.
        const SANITIZE = 1;
    }
}

/// What a notify call tells. Unlike the flags of other calls exactly one, and no unknown bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NotifyFlag {
    /// The owner offers the parcel to some of its borrowers.
    Shared = 1,
    /// A borrower has released it.
    Released = 2,
    /// A borrower has accepted it.
    Accepted = 4,
    /// The owner wants it back from some of its borrowers.
    Recall = 8,
}

impl NotifyFlag {
    /// What a flags byte tells, if it is one of the four.
    pub const fn from_wire(flags: u8) -> Option<Self> {
        match flags {
            1 => Some(Self::Shared),
            2 => Some(Self::Released),
            4 => Some(Self::Accepted),
            8 => Some(Self::Recall),
            _ => None,
        }
    }
}
