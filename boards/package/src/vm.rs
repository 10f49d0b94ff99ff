//! The boot configuration as EL2 and the host tool use it: plain numbers and closed enums.

use core::fmt;

use crate::{MAX_VCPUS, VM_MEMORY_BASE};

/// A VM's name: 1 to 16 bytes of printable ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(pub(crate) [u8; 16]);

impl Name {
    /// A name known at compile time.
    ///
    /// # Panics
    ///
    /// If it is longer than 16 bytes; as a constant, when compiling.
    pub const fn new(name: &str) -> Self {
        let (from, mut to, mut i) = (name.as_bytes(), [0; 16], 0);
        while i < from.len() {
            to[i] = from[i];
            i += 1;
        }
        Self(to)
    }

    /// The name as text; empty for bytes that are none, which `parse` refuses.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..end]).unwrap_or("")
    }

    /// Printable, not empty, and nothing but zeros behind the end.
    pub(crate) fn is_valid(&self) -> bool {
        let text = self.as_str();
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && self.0[text.len()..].iter().all(|&byte| byte == 0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

bitflags::bitflags! {
    /// What a VM may do beyond its own memory.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Roles: u32 {
        /// Ask the resource manager for lists, counters and single leaves.
        const INSPECT = 1;
        /// Stop, start and reset other VMs.
        const MANAGE = 2;
    }
}

/// When pages that a VM gave to a peer are zeroed as they come home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Sanitize {
    /// When a call asks for it, or the peer died.
    #[default]
    WhenAsked = 0,
    /// At every reclaim in which this VM has a part.
    Always = 1,
}

/// What becomes of a VM when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EndOfLife {
    /// It keeps what it has a part in until it is reset: peers go on with what they borrowed.
    Keep = 0,
    /// It is reset: what it borrowed is released, what it owns is taken back.
    #[default]
    Reset = 1,
    /// It is reset and started again, unless it ended by its own wish and without a complaint, or by its
    /// manager's.
    Restart = 2,
}

/// What becomes of the parcels that a VM owns when it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OwnedParcels {
    /// They are taken away from their borrowers.
    #[default]
    Revoke = 0,
    /// Each borrower keeps what it has until it releases it.
    Keep = 1,
}

/// What a VM gets for an access that its memory does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OnFault {
    /// An external abort, injected into the vCPU.
    #[default]
    Inject = 0,
    /// The VM is stopped.
    Stop = 1,
    /// The VM is stopped, and starts again.
    Restart = 2,
}

/// So much of each part of the resource manager's bookkeeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Live parcels.
    pub parcels: u32,
    /// Extents of all parcels together.
    pub extents: u32,
    /// Parcels in creation at the same time.
    pub unfinished: u32,
    /// News of parcels that are gone, left unread.
    pub unread: u32,
    /// Frames (table pages, long messages).
    pub frames: u32,
    /// Pages lent or shared out at a time.
    pub pages_lent: u64,
    /// Pages accepted at a time.
    pub pages_accepted: u64,
}

impl Amounts {
    /// Whether no part is more than that of `other`.
    pub const fn fits(&self, other: &Self) -> bool {
        self.parcels <= other.parcels
            && self.extents <= other.extents
            && self.unfinished <= other.unfinished
            && self.unread <= other.unread
            && self.frames <= other.frames
            && self.pages_lent <= other.pages_lent
            && self.pages_accepted <= other.pages_accepted
    }

    /// What VMs need together to have everything up to their limits beyond what is guaranteed. A
    /// package whose [`Writer::shared`](crate::Writer::shared) is less promises each VM less than its
    /// limits.
    pub fn enough_for<'a>(vms: impl IntoIterator<Item = &'a Vm>) -> Self {
        let beyond = |vm: &Vm| {
            let Quotas { guaranteed, limit } = vm.quotas;
            Self {
                parcels: limit.parcels.saturating_sub(guaranteed.parcels),
                extents: limit.extents.saturating_sub(guaranteed.extents),
                unfinished: limit.unfinished.saturating_sub(guaranteed.unfinished),
                unread: limit.unread.saturating_sub(guaranteed.unread),
                frames: limit.frames.saturating_sub(guaranteed.frames),
                pages_lent: limit.pages_lent.saturating_sub(guaranteed.pages_lent),
                pages_accepted: limit.pages_accepted.saturating_sub(guaranteed.pages_accepted),
            }
        };
        vms.into_iter().map(beyond).fold(Self::default(), |sum, more| Self {
            parcels: sum.parcels.saturating_add(more.parcels),
            extents: sum.extents.saturating_add(more.extents),
            unfinished: sum.unfinished.saturating_add(more.unfinished),
            unread: sum.unread.saturating_add(more.unread),
            frames: sum.frames.saturating_add(more.frames),
            pages_lent: sum.pages_lent.saturating_add(more.pages_lent),
            pages_accepted: sum.pages_accepted.saturating_add(more.pages_accepted),
        })
    }
}

/// How much of the resource manager's bookkeeping a VM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// What no other VM can take away. Frames are set aside at boot.
    pub guaranteed: Amounts,
    /// The most that the VM may use. What is beyond the guarantee comes from a pool that all VMs share.
    pub limit: Amounts,
}

impl Quotas {
    /// Enough for a VM that shares a few buffers with its peers.
    pub const USUAL: Self = Self {
        guaranteed: Amounts {
            parcels: 16,
            extents: 512,
            unfinished: 1,
            unread: 8,
            frames: 32,
            pages_lent: 1 << 16,
            pages_accepted: 1 << 16,
        },
        limit: Amounts {
            parcels: 64,
            extents: 2048,
            unfinished: 4,
            unread: 32,
            frames: 128,
            pages_lent: 1 << 18,
            pages_accepted: 1 << 18,
        },
    };
}

/// Where a VM's memory lies in the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Placement {
    /// Wherever there is room.
    #[default]
    Anywhere = 0,
    /// At the very addresses at which the VM sees it, which a device needs that no SMMU translates for.
    Identity = 1,
}

/// Which vCPUs of a VM run when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Start {
    /// All of them, at the entry point.
    #[default]
    All = 0,
    /// The first. The others wait until it starts them (PSCI CPU_ON).
    First = 1,
}

/// Bytes that lie in a VM's memory when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which image of the package they are.
    pub image: u32,
    /// Where they are copied to, as guest physical address.
    pub at: u64,
}

/// One VM of the boot configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vm {
    /// The name in logs.
    pub name: Name,
    /// The name in calls; neither 0 nor 255, which is the resource manager's own.
    pub vmid: u16,
    /// How many vCPUs it has: 1 or 2.
    pub vcpus: u8,
    /// The CPU that each vCPU runs on.
    pub cpus: [u8; MAX_VCPUS],
    /// Bytes of memory.
    pub memory: u64,
    /// Where it starts, as guest physical address.
    pub memory_at: u64,
    /// Where it lies in the machine.
    pub placement: Placement,
    /// Which image of the package it runs.
    pub image: u32,
    /// Where the image is copied to, as guest physical address.
    pub load: u64,
    /// Where its vCPUs start.
    pub entry: u64,
    /// Which of them start by themselves.
    pub start: Start,
    /// The device tree, whose address the first vCPU finds in X0.
    pub device_tree: Option<Load>,
    /// The initial RAM disk, which the device tree names.
    pub initrd: Option<Load>,
    /// Size of its guest physical address space, 32 to 40 bits.
    pub ipa_bits: u8,
    /// What it may do beyond its own memory.
    pub roles: Roles,
    /// Whether it may donate, lend and share memory.
    pub may_supply: bool,
    /// Whether it may accept memory of others.
    pub may_consume: bool,
    /// Zeroing policy.
    pub sanitize: Sanitize,
    /// What becomes of it when it ends.
    pub end_of_life: EndOfLife,
    /// What becomes of its parcels then.
    pub owned_parcels: OwnedParcels,
    /// What becomes of its faults.
    pub on_fault: OnFault,
    /// Whether it drives a device that reaches memory by itself and that nothing confines: the VM is
    /// then part of what the system trusts.
    pub trusted_dma: bool,
    /// Its share of the resource manager.
    pub quotas: Quotas,
}

impl Vm {
    /// A VM with one vCPU on CPU 0 and 16 MiB, to be refined with `..Vm::SMALL`.
    pub const SMALL: Self = Self {
        name: Name([0; 16]),
        vmid: 0,
        vcpus: 1,
        cpus: [0; MAX_VCPUS],
        memory: 16 << 20,
        memory_at: VM_MEMORY_BASE,
        placement: Placement::Anywhere,
        image: 0,
        load: VM_MEMORY_BASE + 0x8_0000,
        entry: VM_MEMORY_BASE + 0x8_0000,
        start: Start::All,
        device_tree: None,
        initrd: None,
        ipa_bits: 36,
        roles: Roles::empty(),
        may_supply: true,
        may_consume: true,
        sanitize: Sanitize::WhenAsked,
        end_of_life: EndOfLife::Reset,
        owned_parcels: OwnedParcels::Revoke,
        on_fault: OnFault::Inject,
        trusted_dma: false,
        quotas: Quotas::USUAL,
    };

    /// The CPUs of its vCPUs, in the order of the vCPUs.
    pub fn cpus(&self) -> &[u8] {
        &self.cpus[..usize::from(self.vcpus).min(MAX_VCPUS)]
    }

    /// Whether `bytes` from `at` on lie inside its memory.
    pub fn contains(&self, at: u64, bytes: u64) -> bool {
        at.checked_sub(self.memory_at)
            .and_then(|offset| offset.checked_add(bytes))
            .is_some_and(|end| end <= self.memory)
    }

    /// What lies in its memory when it starts: the program first.
    pub fn loads(&self) -> impl Iterator<Item = Load> + use<> {
        let program = Load { image: self.image, at: self.load };
        [Some(program), self.device_tree, self.initrd].into_iter().flatten()
    }
}
