//! What the embedder says about VMs at boot.

use rm_abi::Vmid;

use crate::address::{Ipa, TlbTag};
use crate::quota::Quotas;

/// How many VMs a manager can have.
pub const MAX_VMS: usize = 16;

/// One VM.
#[derive(Clone, Copy, Debug)]
pub struct VmConfig {
    /// Its name on the wire.
    pub vmid: Vmid,
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
    /// Its limits.
    pub quotas: Quotas,
    /// Whether what it has borrowed as a lend is wiped before the owner has it back, whatever the
    /// calls said.
    pub sanitize_always: bool,
}

/// Why the manager did not boot: a mistake in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BootError {
    /// More than [`MAX_VMS`] VMs, or none.
    VmCount,
    /// Two VMs have the same VMID or tag.
    Ambiguous,
    /// The parcel quotas together exceed the records or handles of the storage.
    Parcels,
    /// The frames kept for the VMs together exceed the pool, or one keeps fewer than
    /// [`Quotas::MIN_FRAMES`].
    Frames,
    /// Memory given to a VM overlaps what it has, or does not fit its address space.
    Memory,
    /// The manager itself refused a call made on a VM's behalf.
    Refused(crate::refusal::Refusal),
}
