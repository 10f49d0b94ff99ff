//! Who may map a parcel, and with which rights.
//!
//! An ACL is written when memory is offered and only read after that, so `accept` never waits for
//! the owner; its cache policy alone can change, while nobody holds the parcel. The checks are those of the protocol's table for creation, in its order: a client that
//! makes two mistakes hears of the same one from us as from the original.

use heapless::Vec;
use rm_abi::memparcel::create::CreateRequest;
use rm_abi::{AclEntry, Attribute, AttributeEntry, Bytes, List, Rights, Transfer, Vmid};

use crate::refusal::Refusal;
use crate::stage2::MemoryType;

/// How many VMs an ACL can name. The original's lists hold 512, of which it can map four.
pub const MAX_ACL: usize = 16;

/// The access control list of a parcel and the cache policy that all its aliases carry.
#[derive(Debug)]
pub(crate) struct Acl {
    entries: Vec<AclEntry, MAX_ACL>,
    /// As the owner gave them, for VALIDATE_ACL_ATTR.
    attributes: Vec<AttributeEntry, MAX_ACL>,
    policy: MemoryType,
}

/// What the checks need to know besides the lists.
pub(crate) struct Creation {
    pub(crate) owner: Vmid,
    pub(crate) transfer: Transfer,
    /// The parcel is of device memory.
    pub(crate) device: bool,
}

impl Acl {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), attributes: Vec::new(), policy: MemoryType::WriteBack }
    }

    pub(crate) const fn policy(&self) -> MemoryType {
        self.policy
    }

    /// Gives the parcel another policy, and the attributes of one that was made with it for all of its
    /// VMs.
    pub(crate) fn set_policy(&mut self, policy: MemoryType) {
        self.policy = policy;
        self.attributes.clear();
        let attribute = match policy {
            MemoryType::WriteBack => return,
            MemoryType::NonCacheable => Attribute::Uncached as u16,
            MemoryType::Device => Attribute::Device as u16,
        };
        let of = |entry: &AclEntry| AttributeEntry { attribute, vmid: entry.vmid };
        self.attributes = self.entries.iter().map(of).collect();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, in the owner's order.
    pub(crate) fn entries(&self) -> &[AclEntry] {
        &self.entries
    }

    /// The attributes, in the owner's order.
    pub(crate) fn attributes(&self) -> &[AttributeEntry] {
        &self.attributes
    }

    /// The position of `vmid` in the list.
    pub(crate) fn position(&self, vmid: Vmid) -> Option<usize> {
        self.entries.iter().position(|entry| entry.vmid == vmid)
    }

    /// The rights of `vmid`, if the list names it.
    pub(crate) fn rights(&self, vmid: Vmid) -> Option<Rights> {
        self.entries.iter().find(|entry| entry.vmid == vmid).map(|entry| entry.rights)
    }

    /// Whether lists that a borrower expects are the owner's, entry by entry.
    pub(crate) fn matches(
        &self,
        bytes: &dyn Bytes,
        acl: List<AclEntry>,
        attributes: List<AttributeEntry>,
    ) -> bool {
        acl.len() == self.entries.len()
            && attributes.len() == self.attributes.len()
            && acl.iter(bytes).eq(self.entries.iter().copied())
            && attributes.iter(bytes).eq(self.attributes.iter().copied())
    }

    /// Takes over the lists of a request that has at most [`MAX_ACL`] ACL entries.
    pub(crate) fn fill(
        &mut self,
        bytes: &dyn Bytes,
        request: &CreateRequest,
        creation: &Creation,
        nameable: impl Fn(Vmid) -> bool,
    ) -> Result<(), Refusal> {
        self.entries.clear();
        self.attributes.clear();
        for entry in request.acl.iter(bytes) {
            self.admit(entry, creation, &nameable)?;
        }
        if self.position(creation.owner).is_some() != (creation.transfer == Transfer::Share) {
            return Err(Refusal::AclOwner);
        }
        self.policy = MemoryType::WriteBack;
        if creation.device {
            self.policy = MemoryType::Device;
        }
        for entry in request.attributes.iter(bytes) {
            self.attribute(entry, creation)?;
        }
        Ok(())
    }

    fn admit(
        &mut self,
        entry: AclEntry,
        creation: &Creation,
        nameable: impl Fn(Vmid) -> bool,
    ) -> Result<(), Refusal> {
        if self.position(entry.vmid).is_some() {
            return Err(Refusal::AclRepeats);
        }
        if !nameable(entry.vmid) {
            return Err(Refusal::AclVmid);
        }
        if !entry.rights.is_valid() {
            return Err(Refusal::AclRights);
        }
        if creation.device && entry.rights.contains(Rights::X) {
            return Err(Refusal::DeviceMemory);
        }
        let all = if creation.device { Rights::RW } else { Rights::RWX };
        if creation.transfer == Transfer::Donate && entry.rights != all {
            return Err(Refusal::DonateRights);
        }
        self.entries.push(entry).map_err(|_| Refusal::AclTooLong)
    }

    fn attribute(&mut self, entry: AttributeEntry, creation: &Creation) -> Result<(), Refusal> {
        if self.attributes.iter().any(|earlier| earlier.vmid == entry.vmid) {
            return Err(Refusal::Attribute);
        }
        let attribute = Attribute::from_wire(entry.attribute).ok_or(Refusal::Attribute)?;
        let policy = match attribute {
            Attribute::Normal | Attribute::Cached => MemoryType::WriteBack,
            Attribute::Uncached => MemoryType::NonCacheable,
            Attribute::Device => MemoryType::Device,
        };
        if (policy == MemoryType::Device) != creation.device {
            return Err(Refusal::Attribute);
        }
        let default = if creation.device { Attribute::Device } else { Attribute::Normal };
        if creation.transfer == Transfer::Donate && attribute != default {
            return Err(Refusal::Attribute);
        }
        if self.position(entry.vmid).is_none() {
            return Err(Refusal::AttributeVmid);
        }
        // One policy for all aliases: memory mapped with two memory types loses coherency
        // (DDI 0487 L.b, B2.16, mismatched memory attributes).
        if !self.attributes.is_empty() && policy != self.policy {
            return Err(Refusal::Attribute);
        }
        self.policy = policy;
        // The list is not longer than the ACL, whose VMs it names once each.
        self.attributes.push(entry).map_err(|_| Refusal::Attribute)
    }
}
