//! All that the resource manager asks of hardware.
//!
//! `hyp` implements [`Machine`] on aarch64; the `fake` module implements it on the host, strictly: it
//! models TLBs and fails a test that skips a step the architecture asks for. Nothing else in this
//! crate touches hardware, so whatever holds over the fake holds on the board, provided the two keep
//! the promises written at each method.

#[cfg(any(test, feature = "fake"))]
pub mod fake;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::address::{Ipa, Pa, TlbTag, VmIndex};
use crate::lock;

/// Index of a frame of the pool, see [`Machine::frames`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FrameIndex(pub u32);

/// One 4 KiB frame of the resource manager's own memory: a translation table, a part of an extent
/// list or of a long message. Entries are atomics because the hardware walker and other CPUs read
/// tables at any time.
#[repr(C, align(4096))]
pub struct Frame(pub [AtomicU64; 512]);

impl Frame {
    /// A frame of zeros, which as a table maps nothing.
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "an initialiser for arrays of frames"
    )]
    pub const ZERO: Self = Self([const { AtomicU64::new(0) }; 512]);

    /// Reads entry `index`.
    pub fn read(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    /// Writes entry `index` with a single store, as the walker needs it. Only this crate writes
    /// frames; ordering against the walker is [`Machine::publish`]'s and [`Machine::invalidate`]'s.
    pub(crate) fn write(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Relaxed);
    }
}

/// What a machine can do that changes what is written or maintained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// FEAT_S2FWB: stage 2 alone decides the memory type.
    pub forced_write_back: bool,
}

/// Whose translations an invalidation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationContext {
    /// The VM's tag in VTTBR_EL2.
    pub tag: TlbTag,
    /// The VM's root table.
    pub root: Pa,
}

/// A run of guest pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpaRange {
    /// First address, page aligned.
    pub at: Ipa,
    /// Length in pages, never 0.
    pub pages: u64,
}

/// What an invalidation must reach.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Every translation of these ranges, whatever level it was cached from.
    Ranges(&'a [IpaRange]),
    /// Every translation of the VM.
    All,
}

/// A virtual interrupt line of a VM, by what it tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Line {
    /// The queue to the manager has room again.
    Send,
    /// The queue from the manager holds something again.
    Receive,
    /// A doorbell was rung, by its number in the VM.
    Doorbell(u8),
}

/// The hardware under the resource manager.
///
/// Methods are called with locks held and interrupts masked, possibly on several CPUs at once; none
/// may call back into the manager, wait for another CPU's software, or fail.
pub trait Machine: Sync {
    /// What a CPU does between two looks at a taken lock (`yield`; not `isb`, which QEMU's
    /// deterministic mode does not treat as a hint).
    type Relax: lock::Strategy;

    /// Features of this machine, constant from boot on.
    fn features(&self) -> Features;

    /// The frame pool: physically contiguous frames that only EL2 reaches, all zero at boot.
    fn frames(&self) -> &[Frame];

    /// Machine address of the first frame.
    fn frames_base(&self) -> Pa;

    /// Makes descriptors written so far visible to the table walkers of all CPUs before anything
    /// that follows (DSB ISHST and ISB). Called after invalid entries became valid.
    fn publish(&self);

    /// Removes the cached translations in `scope` of one VM on all CPUs, combined stage-1 and
    /// stage-2 entries included, and returns when no CPU can use them any more. Descriptors written
    /// before are visible to walkers by then. The VM need not be loaded on this CPU.
    fn invalidate(&self, context: TranslationContext, scope: Scope<'_>);

    /// Fills one page of guest memory with zeros, to the point of coherency: no cache holds anything else
    /// of it afterwards.
    fn zero_page(&self, page: Pa);

    /// Cleans and invalidates one page of guest memory to the point of coherency.
    fn clean_invalidate_page(&self, page: Pa);

    /// Whether [`Machine::is_sound`] may ever say no. It is not asked otherwise.
    const MAY_POISON: bool = false;

    /// Whether the machine vouches for pages of guest memory that are about to come home: no device can
    /// reach them any more, and no memory error was reported of them. Pages that it does not vouch for
    /// are given to nobody again: their parcel is *poisoned*, and stays.
    fn is_sound(&self, from: Pa, pages: u64) -> bool {
        let _ = (from, pages);
        true
    }

    /// Makes an interrupt of the VM pending, as an edge. Whoever of its vCPUs it is for must notice,
    /// also one that sleeps or runs on another CPU; nothing waits for that.
    fn interrupt(&self, vm: VmIndex, line: Line);

    /// Asks the embedder to end a VM. When none of its vCPUs is in a guest or a call any more, it says
    /// so with [`Manager::ended`](crate::manager::Manager::ended); nothing waits for that. An embedder
    /// whose VMs are stopped by nobody else has nothing to do.
    fn stop(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// Asks the embedder to load a VM that was reset, and to let it run when
    /// [`Manager::started`](crate::manager::Manager::started) has said that it may. Nothing waits for
    /// that.
    fn start(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// A VM that does not run has steps to do: somebody is to call
    /// [`Manager::step`](crate::manager::Manager::step) for it soon. An embedder that looks at all its
    /// VMs again and again has nothing to do.
    fn work(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// The ranks of the locks that the calling CPU holds, one bit a rank. Only debug builds use it.
    fn held_ranks(&self) -> &AtomicU64;

    /// Told of every write to a frame that is a translation table, before it happens. The strict
    /// fake checks break-before-make here; hardware has nothing to do.
    fn table_write(&self, frame: FrameIndex, entry: usize, old: u64, new: u64) {
        let _ = (frame, entry, old, new);
    }

    /// Told when a frame leaves or enters the pool: `None` when it is free. The strict fake checks
    /// here that no cached walk still leads through a freed table; hardware has nothing to do.
    fn frame_use(&self, frame: FrameIndex, user: Option<FrameUse>) {
        let _ = (frame, user);
    }
}

/// What a frame of the pool is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUse {
    /// A translation table of the VM with this tag.
    Table(TlbTag),
    /// Data of the manager: extents, addresses, long messages.
    Data,
}
