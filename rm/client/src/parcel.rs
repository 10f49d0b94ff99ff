//! What to share, and what to accept: the descriptions that a session's calls take.

use rm_abi::memparcel::accept::Accept;
use rm_abi::memparcel::create::Create;
use rm_abi::{
    AcceptFlags, AclEntry, AttributeEntry, CreateFlags, Handle, MemoryKind, Rights, SglEntry,
    Transfer, Vmid,
};

/// Bytes of a page: addresses and sizes are multiples of it.
pub const PAGE_SIZE: u64 = 4096;

/// The range of `count` pages from guest physical address `ipa` on.
pub const fn pages(ipa: u64, count: u64) -> SglEntry {
    SglEntry { ipa, size: count * PAGE_SIZE }
}

/// An entry of an access list.
pub const fn grant(vmid: Vmid, rights: Rights) -> AclEntry {
    AclEntry { vmid, rights }
}

/// A parcel to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewParcel<'a>(Create<'a>);

impl<'a> NewParcel<'a> {
    /// The pages of `sgl` for the VMs of `acl`. To share, the owner itself is in `acl` too.
    pub const fn new(sgl: &'a [SglEntry], acl: &'a [AclEntry]) -> Self {
        Self(Create {
            memory: MemoryKind::NORMAL,
            flags: CreateFlags::empty(),
            label: 0,
            acl,
            sgl,
            attributes: &[],
        })
    }

    /// A number that borrowers can check when they accept.
    #[must_use]
    pub const fn label(mut self, label: u32) -> Self {
        self.0.label = label;
        self
    }

    /// Zeroes the pages before anybody gets them.
    #[must_use]
    pub const fn sanitized(mut self) -> Self {
        self.0.flags = self.0.flags.union(CreateFlags::SANITIZE);
        self
    }

    /// More pages are to come by append calls; nobody can accept it before the last of them.
    #[must_use]
    pub const fn unfinished(mut self) -> Self {
        self.0.flags = self.0.flags.union(CreateFlags::APPEND);
        self
    }

    /// The same with other pages.
    #[must_use]
    pub const fn with_ranges(mut self, sgl: &'a [SglEntry]) -> Self {
        self.0.sgl = sgl;
        self
    }

    /// Memory types other than the default. Those of all VMs must agree, and so they hold for the VMs that
    /// are not named, the owner of a share included: what it writes during the call may be lost.
    #[must_use]
    pub const fn attributes(mut self, attributes: &'a [AttributeEntry]) -> Self {
        self.0.attributes = attributes;
        self
    }

    /// The request.
    pub const fn request(&self) -> &Create<'a> {
        &self.0
    }
}

/// A parcel to be accepted: how, and what it must be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acceptance<'a>(Accept<'a>);

impl<'a> Acceptance<'a> {
    /// The parcel `handle`, which its owner made by `transfer`, mapped run by run.
    pub const fn new(handle: Handle, transfer: Transfer) -> Self {
        Self(Accept {
            handle,
            memory: MemoryKind::NORMAL,
            transfer,
            flags: AcceptFlags::DONE,
            label: 0,
            acl: &[],
            sgl: &[],
            attributes: &[],
        })
    }

    const fn with(mut self, flag: AcceptFlags) -> Self {
        self.0.flags = self.0.flags.union(flag);
        self
    }

    /// Maps the whole parcel at one contiguous range.
    #[must_use]
    pub const fn contiguous(self) -> Self {
        self.with(AcceptFlags::MAP_CONTIGUOUS)
    }

    /// Zeroes the pages when they are reclaimed, so that the owner learns nothing.
    #[must_use]
    pub const fn sanitize(self) -> Self {
        self.with(AcceptFlags::SANITIZE)
    }

    /// Refuses a parcel with another label.
    #[must_use]
    pub const fn expect_label(mut self, label: u32) -> Self {
        self.0.label = label;
        self.with(AcceptFlags::VALIDATE_LABEL)
    }

    /// Refuses a parcel with another access list or other attributes; order counts.
    #[must_use]
    pub const fn expect_acl(
        mut self,
        acl: &'a [AclEntry],
        attributes: &'a [AttributeEntry],
    ) -> Self {
        self.0.acl = acl;
        self.0.attributes = attributes;
        self.with(AcceptFlags::VALIDATE_ACL_ATTR)
    }

    /// Refuses a parcel that was not zeroed when it was made.
    #[must_use]
    pub const fn expect_sanitized(self) -> Self {
        self.with(AcceptFlags::VALIDATE_SANITIZED)
    }

    /// Which parcel.
    pub const fn handle(&self) -> Handle {
        self.0.handle
    }

    /// The same, which only assigns addresses.
    pub(crate) const fn unmapped(mut self) -> Self {
        self.0.flags = self.0.flags.difference(AcceptFlags::DONE);
        self
    }

    /// The request, mapping at `sgl`.
    pub(crate) const fn at(&self, sgl: &'a [SglEntry]) -> Accept<'a> {
        let mut accept = self.0;
        accept.sgl = sgl;
        accept
    }
}
