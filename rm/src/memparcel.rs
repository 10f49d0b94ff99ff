//! A memparcel: pages of one VM that others may map.
//!
//! ```text
//! CREATING --with APPEND--> INITIAL <--append--> APPENDING --END--> OFFERED --reclaim--> RECLAIMING
//!     \------- without ------------------------------------------------^
//! ```
//!
//! A parcel that is offered and one that somebody holds differ only in its borrowers' stages, so
//! there is no second place that could disagree with them. While CREATING or RECLAIMING the handle
//! answers HANDLE_INVALID to everybody: the first is not decided yet, the second is decided already.

pub(crate) mod acl;
pub(crate) mod attachment;
pub(crate) mod borrower;
pub(crate) mod extents;
pub(crate) mod holes;
pub(crate) mod table;
pub(crate) mod units;
pub(crate) mod wills;
pub(crate) mod words;

pub use acl::MAX_ACL;
pub use table::{HandleSlot, MAX_HANDLES, ParcelRecord};

use rm_abi::extension::Name;
use rm_abi::{Handle, MemoryKind, Rights, Transfer, Vmid};

use crate::address::VmIndex;
use crate::memparcel::acl::Acl;
use crate::memparcel::attachment::Attachments;
use crate::memparcel::borrower::{Borrower, Place};
use crate::memparcel::extents::Extents;
use crate::memparcel::holes::{Holes, OWNER_HOLES};
use crate::memparcel::wills::Wills;
use crate::refusal::Refusal;
use crate::stage2::MemoryType;

/// Where a parcel is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub(crate) enum Phase {
    /// The record is free.
    Vacant,
    /// The call that makes it has not ended.
    Creating,
    /// The owner may append.
    Initial,
    /// A call that appends has not ended.
    Appending,
    /// The ACL's VMs may accept.
    Offered,
    /// A call that changes its cache policy has not ended.
    Retyping,
    /// Its owner's call that takes some of its pages back has not ended.
    Trimming,
    /// The owner has revoked it: it is nobody else's business any more.
    Closing,
    /// The call that ends it has not ended.
    Reclaiming,
}

impl Phase {
    /// A set of it alone, which is looked into without a branch.
    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// The record of one parcel.
#[derive(Debug)]
pub(crate) struct Memparcel {
    /// Its name, [`Handle::INVALID`] while the record is vacant.
    pub(crate) handle: Handle,
    pub(crate) phase: Phase,
    pub(crate) owner: VmIndex,
    pub(crate) transfer: Transfer,
    /// Compared as it came: any number but that of device memory behaves as RAM.
    pub(crate) memory: MemoryKind,
    pub(crate) label: u32,
    /// What its owner calls it towards borrowers, once it has told them of it.
    pub(crate) tag: Option<u32>,
    /// What its owner calls it, for people.
    pub(crate) name: Name,
    /// ACL entries that were told of the parcel, or have had a part in it, one bit each.
    pub(crate) told: u16,
    /// The owner wants it back: nobody may begin to use it any more.
    pub(crate) recalled: bool,
    /// A page of it cannot be vouched for: it never goes home. One way.
    pub(crate) poisoned: bool,
    /// The owner may still append.
    pub(crate) unfinished: bool,
    /// Every page was zeroed at creation.
    pub(crate) sanitized: bool,
    /// Every page is to be zeroed before the owner has it back.
    pub(crate) sanitize: bool,
    pub(crate) acl: Acl,
    /// The owner and those VMs of the access list that there are, one bit each.
    pub(crate) parties: u16,
    pub(crate) extents: Extents,
    /// Pages of all extents.
    pub(crate) pages: u64,
    /// Pages of the extents that the owner has taken back. While they are in a parcel whose end has not
    /// come, no VM that holds it reaches them.
    pub(crate) holes: Holes<OWNER_HOLES>,
    /// How many of the extents are decided: those behind them belong to an append that may still be
    /// refused.
    pub(crate) settled: u32,
    /// One for each ACL entry.
    pub(crate) borrowers: [Borrower; MAX_ACL],
    /// What the owner wants done when it begins to take the parcel away.
    pub(crate) wills: Wills,
    /// ACL entries whose VM has a window and maps nothing, one bit each, and the windows.
    pub(crate) windowed: u16,
    pub(crate) windows: [Window; MAX_ACL],
    /// Devices that have a part in it.
    pub(crate) attachments: Attachments,
    /// How many CPU accesses of the owner have begun and not ended.
    pub(crate) accesses: u32,
    /// Progress of the call that creates, appends or reclaims.
    pub(crate) place: Place,
}

/// Bytes of a parcel that a VM may copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) first: u64,
    /// Behind the last.
    pub(crate) end: u64,
}

impl Memparcel {
    pub(crate) const fn new() -> Self {
        Self {
            handle: Handle::INVALID,
            phase: Phase::Vacant,
            owner: VmIndex(0),
            transfer: Transfer::Share,
            memory: MemoryKind::NORMAL,
            label: 0,
            tag: None,
            name: Name::NONE,
            told: 0,
            recalled: false,
            poisoned: false,
            unfinished: false,
            sanitized: false,
            sanitize: false,
            acl: Acl::new(),
            parties: 0,
            extents: Extents::new(),
            pages: 0,
            holes: Holes::new(),
            settled: 0,
            borrowers: [const { Borrower::new() }; MAX_ACL],
            wills: Wills::new(),
            windowed: 0,
            windows: [Window { first: 0, end: 0 }; MAX_ACL],
            attachments: Attachments::new(),
            accesses: 0,
            place: Place::START,
        }
    }

    /// The bytes that the VM of an ACL entry may copy and not map, if it has such a window.
    pub(crate) fn window(&self, entry: usize) -> Option<Window> {
        (self.windowed >> entry & 1 != 0).then(|| self.windows[entry])
    }

    /// Whether those who map it go through the caches.
    pub(crate) fn is_cached(&self) -> bool {
        self.acl.policy() == MemoryType::WriteBack
    }

    /// Whether `vm` may know of the parcel: its owner from the end of the creation on, the VMs of
    /// the ACL once it is offered. To all others it answers as a handle that never was (G6).
    pub(crate) fn check_party(&self, vm: VmIndex) -> Result<(), Refusal> {
        if self.is_party(vm) { Ok(()) } else { Err(Refusal::NoParcel) }
    }

    /// As [`Memparcel::check_party`]. It takes as long whatever the parcel is and whomever it names.
    pub(crate) fn is_party(&self, vm: VmIndex) -> bool {
        const NOBODY: u16 = Phase::Vacant.bit() | Phase::Creating.bit() | Phase::Reclaiming.bit();
        const CHANGING: u16 = Phase::Retyping.bit() | Phase::Trimming.bit();
        let phase = self.phase.bit();
        let owns = (self.owner == vm) & (phase & NOBODY == 0);
        let offered =
            (phase & Phase::Offered.bit() != 0) | (phase & CHANGING != 0) & !self.unfinished;
        let named = self.parties >> vm.0 & 1 != 0;
        owns | offered & named
    }

    /// The ACL position of `vm`, which the party check has let through and which is not the owner.
    /// `unnamed` is for the owner of a lend or donation, whom its ACL does not name.
    pub(crate) fn borrower(
        &self,
        vm: VmIndex,
        vmid: Vmid,
        unnamed: Refusal,
    ) -> Result<usize, Refusal> {
        let index = self.acl.position(vmid).ok_or(unnamed)?;
        if self.owner == vm { Err(Refusal::IsOwner) } else { Ok(index) }
    }

    /// Whether a VM other than the owner holds the parcel.
    pub(crate) fn is_held(&self) -> bool {
        self.borrowers[..self.acl.len()].iter().any(Borrower::holds)
    }

    /// Whether a VM holds the parcel, or a device of one is attached: the owner must wait.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_held() || !self.attachments.is_empty()
    }

    /// Whether the parcel is of device memory, which is never sanitised.
    pub(crate) fn is_device(&self) -> bool {
        self.memory == MemoryKind::IO
    }

    /// Whether `vmid` may ask for its content to be wiped.
    pub(crate) fn may_sanitize(&self, vmid: Vmid) -> Result<(), Refusal> {
        let writes = self.acl.rights(vmid).is_some_and(|rights| rights.contains(Rights::W));
        if writes && !self.is_device() { Ok(()) } else { Err(Refusal::SanitizeRights) }
    }
}
