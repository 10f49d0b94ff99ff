//! What the embedder says about VMs at boot.

use bitflags::bitflags;
use rm_abi::Vmid;
use rm_abi::extension::Stream;

use core::fmt;

use crate::address::{Ipa, TlbTag};
use crate::quota::Quotas;

/// How many VMs a manager can have.
pub const MAX_VMS: usize = 16;

/// Most bytes of a VM's name.
pub const MAX_NAME: usize = 16;

/// What a VM is called in logs and lists.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct VmName([u8; MAX_NAME]);

impl VmName {
    /// A name, cut after [`MAX_NAME`] bytes.
    pub const fn new(name: &str) -> Self {
        let (from, mut bytes, mut index) = (name.as_bytes(), [0; MAX_NAME], 0);
        while index < from.len() && index < MAX_NAME {
            bytes[index] = from[index];
            index += 1;
        }
        Self(bytes)
    }

    /// The name, padded with zeros.
    pub const fn bytes(&self) -> &[u8; MAX_NAME] {
        &self.0
    }
}

impl fmt::Debug for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

bitflags! {
    /// What a VM may do beyond its own memory.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Roles: u32 {
        /// Ask for lists, maps and counters of other VMs.
        const INSPECT = 1;
        /// Stop, start and reset other VMs.
        const MANAGE = 2;
        /// Have devices that no SMMU confines. It is part of what everybody must trust: G2 to G5 exclude
        /// what its devices do. The manager only tells who asks.
        const TRUSTED_DMA = 4;
    }
}

/// What becomes of a VM that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AfterEnd {
    /// It keeps what it has a part in until somebody resets it, as in the original.
    Wait,
    /// It is reset at once.
    #[default]
    Reset,
    /// It is reset at once, and then started again, unless it ended by its own wish and without a
    /// complaint, or by its manager's.
    Restart,
}

/// What becomes of the parcels that a VM owns when it is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OwnedParcels {
    /// They are taken away from their borrowers.
    #[default]
    Revoke,
    /// Borrowers keep what they have mapped until they release it, and the VM is reset after the last
    /// one. Nobody else may map them.
    Keep,
}

/// How many devices that an SMMU confines a VM can have.
pub const MAX_STREAMS: usize = 4;

/// A device of a VM that reaches memory by itself, and that an SMMU confines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamConfig {
    /// What the SMMU knows its transactions by, unique among all VMs.
    pub stream: Stream,
    /// How many bits an address that it puts on the bus has. Addresses are those of its VM.
    pub address_bits: u8,
    /// Its accesses look into the CPUs' caches.
    pub is_coherent: bool,
}

/// One VM.
#[derive(Clone, Copy, Debug)]
pub struct VmConfig {
    /// Its name on the wire.
    pub vmid: Vmid,
    /// Its name for people.
    pub name: VmName,
    /// What it may do beyond its own memory.
    pub roles: Roles,
    /// Whether it may donate, lend and share memory. What the embedder shares for it at boot does not
    /// depend on this.
    pub may_supply: bool,
    /// Whether it may accept memory of others; likewise.
    pub may_consume: bool,
    /// Its tag in the hardware, unique among the VMs.
    pub tag: TlbTag,
    /// Size of its guest physical address space in pages, at most 2^27 (39 bits).
    pub ipa_pages: u64,
    /// The lowest address at which the VM may accept memory, and from which the manager looks for
    /// room. Below it a machine has registers that EL2 emulates.
    pub accept_from: Ipa,
    /// What the VM accepts lies in it at its machine address: of a VM with a device that no SMMU
    /// confines, and of Gunyah's primary VM.
    pub direct_mapped: bool,
    /// Its limits, and what of them is guaranteed.
    pub quotas: Quotas,
    /// Whether what it has borrowed as a lend is wiped before the owner has it back, whatever the
    /// calls said.
    pub sanitize_always: bool,
    /// What becomes of it when it ends.
    pub after_end: AfterEnd,
    /// What becomes of its parcels then.
    pub owned_parcels: OwnedParcels,
    /// Its devices that an SMMU confines. On a machine without one they are left out.
    pub streams: [Option<StreamConfig>; MAX_STREAMS],
}

impl VmConfig {
    /// A VM with the usual quotas, no roles and a guest physical address space of 64 GiB, of which
    /// the first is kept for devices. The rest is changed with `..VmConfig::new(vmid, tag)`.
    pub const fn new(vmid: Vmid, tag: TlbTag) -> Self {
        Self {
            vmid,
            name: VmName::new(""),
            roles: Roles::empty(),
            may_supply: true,
            may_consume: true,
            tag,
            ipa_pages: 1 << 24,
            accept_from: Ipa(1 << 30),
            direct_mapped: false,
            quotas: Quotas::USUAL,
            sanitize_always: false,
            after_end: AfterEnd::Reset,
            owned_parcels: OwnedParcels::Revoke,
            streams: [None; MAX_STREAMS],
        }
    }
}

/// Why the manager did not boot: a mistake in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BootError {
    /// More than [`MAX_VMS`] VMs, or none.
    VmCount,
    /// Two VMs have the same VMID or tag.
    Ambiguous,
    /// The parcels that are guaranteed and shared exceed the records of the storage, or the VMs' limits
    /// together its handles.
    Parcels,
    /// A VM is not guaranteed room for a single piece of unread news, or may leave more than
    /// [`Quotas::MAX_UNREAD`].
    Unread,
    /// The frames kept for the VMs together exceed the pool, or one keeps fewer than
    /// [`Quotas::MIN_FRAMES`] and one for each of its devices.
    Frames,
    /// A heap has no name, or one that another has.
    HeapName,
    /// A heap is not of whole blocks of 2 MiB, the storage has no place for it, its guarantees together
    /// exceed it or each its limit, or it names VMs that there cannot be.
    Heap,
    /// Two devices have the same stream, or one has addresses that no VM has.
    Streams,
    /// Memory given to a VM overlaps what it has, or does not fit its address space.
    Memory,
    /// The manager itself refused a call made on a VM's behalf.
    Refused(crate::refusal::Refusal),
}
