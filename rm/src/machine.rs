//! All that the resource manager asks of hardware.
//!
//! `hyp` implements [`Machine`] on aarch64; the `fake` module implements it on the host, strictly: it
//! models TLBs and fails a test that skips a step the architecture asks for. Nothing else in this
//! crate touches hardware, so whatever holds over the fake holds on the board, provided the two keep
//! the promises written at each method.

#[cfg(any(test, feature = "fake"))]
pub mod fake;

use core::sync::atomic::{AtomicU64, Ordering};

pub use rm_abi::extension::{Direction, Stream};

use crate::address::{Ipa, Pa, TlbTag, VmIndex};
use crate::lock;
use crate::refusal::Resource;

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
    /// An SMMU translates the accesses of every device that a VM's configuration names, by the tree of its
    /// stream ([`Manager::streams`](crate::manager::Manager::streams)). Without one no device of a VM is
    /// attached to a parcel.
    pub smmu: bool,
}

/// Whose translations an invalidation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationContext {
    /// The VM's tag in VTTBR_EL2.
    pub tag: TlbTag,
    /// The VM's root table.
    pub root: Pa,
}

/// The tree that an SMMU walks for the accesses of one device.
///
/// It is stage 2 only: 4 KiB granule, three levels from a root of 512 entries, pages alone at the last, as
/// in a CPU's tables without FEAT_S2FWB (STE.S2FWB = 0). Until its device has something mapped it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamContext {
    /// Which device.
    pub stream: Stream,
    /// The root table, for good.
    pub root: Pa,
}

/// An access of a device that the SMMU refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFault {
    /// Which device.
    pub stream: Stream,
    /// The address that it put on the bus: one of its VM.
    pub at: Ipa,
    /// Whether it wanted to read or to write; both for an access that does both.
    pub direction: Direction,
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
/// What holds for every method, and is not said again at each:
///
/// * **Re-entrancy.** A method may be called on several CPUs at once, for one VM too, and must not call
///   the [`Manager`](crate::manager::Manager), nor may an exception handler that interrupts it: the CPU
///   holds locks of the manager, which wait for it. Whatever a method wants to have done by the manager it
///   notes down, for after the entry. So the embedder enters the manager with interrupts masked, and
///   stays on one CPU from entry to return.
/// * **Locks.** Up to [`lock::Rank::Doorbell`] any may be held. A method may take a lock of
///   [`lock::Rank::VirtualGic`], or one of its own that is never held while the manager is entered.
/// * **Time.** A method does a bounded amount of work and waits for hardware only, never for another CPU's
///   software: that CPU may be waiting for a lock that is held here.
/// * **Failure.** There is none to report: when a method is called, all that can be refused has been. A
///   machine that finds that it cannot do what it promised must not return; it stops all VMs. Only of
///   pages that come home can it say that they are not to be trusted, by [`Machine::is_sound`].
/// * **CPU.** A method runs on whatever CPU a VM's call or the embedder's step came in on. The VM that it
///   is about may run on another one, or on none, and none of it need be loaded here.
pub trait Machine: Sync {
    /// What a CPU does between two looks at a taken lock (`yield`; not `isb`, which QEMU's
    /// deterministic mode does not treat as a hint).
    type Relax: lock::Strategy;

    /// Features of this machine, constant from boot on and the same on all CPUs: descriptors that one
    /// CPU writes are read by the walkers of all. Read for every VM that is made and by calls that ask.
    fn features(&self) -> Features;

    /// The frame pool: physically contiguous frames that only EL2 reaches, all zero at boot, always the
    /// same slice. Read all the time, so it should cost nothing. No VM is ever given a page of it, no
    /// device may reach it, and the embedder never writes it after boot. All accesses to it must be
    /// coherent with the table walkers of all CPUs.
    fn frames(&self) -> &[Frame];

    /// Machine address of the first frame, page aligned and constant: what goes into descriptors and into
    /// VTTBR_EL2.
    fn frames_base(&self) -> Pa;

    /// Makes descriptors that this CPU has written so far visible to the table walkers of all CPUs, and of
    /// the SMMU, before anything that follows (DSB ISHST and ISB). Called after invalid entries became valid, and before a
    /// new table is linked, with the tree's lock held; at boot with none.
    ///
    /// The stores before it are relaxed atomics, so it must also keep the compiler from moving them
    /// behind it. No TLB is to be touched: an invalid entry is not cached.
    fn publish(&self);

    /// Removes the cached translations in `scope` of one VM on all CPUs, combined stage-1 and
    /// stage-2 entries included, and returns when no CPU can use them any more. Descriptors written
    /// before are visible to walkers by then. The VM need not be loaded on this CPU, whose own context is
    /// afterwards what it was.
    ///
    /// Called with the tree's lock held, or the slot's of a VM that is being reset: after entries were made
    /// invalid or lost rights, and before anything that relies on it, which is to zero the page, to make
    /// it valid in another tree, to use a table's frame anew, or to tell anybody. So the implementer gives
    /// this order: the stores to descriptors complete (DSB), then the invalidation by address or by VM,
    /// then that completes on all CPUs (DSB), with the accesses that began with an old translation, then
    /// what is combined with stage 1 likewise, then ISB. A device that walks the same tables is
    /// invalidated too, and its transactions in flight are over, before this returns. To remove more than
    /// `scope` is allowed.
    fn invalidate(&self, context: TranslationContext, scope: Scope<'_>);

    /// Removes the translations in `scope` that the SMMU has cached of one stream, table walks included,
    /// and returns when no access of the device that used one of them is under way any more: for an
    /// SMMUv3 the descriptors' stores complete (DSB), CMD_TLBI_S2_IPA for each range or CMD_TLBI_S12_VMALL
    /// for all, CMD_ATC_INV where the device has a cache of its own, then CMD_SYNC and its completion.
    ///
    /// Called like [`Machine::invalidate`], with the stream's lock held, and only on a machine that says
    /// [`Features::smmu`]. The device need not be quiet, and may go on to try: whatever it still asks for is
    /// refused, and told by [`Manager::device_fault`](crate::manager::Manager::device_fault) when the
    /// manager can be entered again.
    fn invalidate_stream(&self, context: StreamContext, scope: Scope<'_>) {
        let _ = scope;
        unreachable!("G5: a machine with an SMMU invalidates {:?}", context.stream);
    }

    /// Fills one page of guest memory with zeros, to the point of coherency: no cache holds anything else
    /// of it afterwards, and a VM that bypasses the caches reads zeros too, once it is told.
    ///
    /// `page` was given to some VM by [`Manager::give`](crate::manager::Manager::give); the machine must
    /// be able to reach every such page, and whatever it maps for that is its own. The parcel's lock is
    /// held. VMs that lose the page cannot reach it any more; one that keeps it may write it meanwhile and
    /// has itself to blame.
    fn zero_page(&self, page: Pa);

    /// Cleans and invalidates one page of guest memory to the point of coherency, by its machine
    /// address, in the caches of all CPUs. Called like [`Machine::zero_page`], for a page whose memory type
    /// changes, while no VM has a write-back translation of it, and for one that a device uses past the
    /// caches, whoever has translations of it. Its content stays.
    fn clean_invalidate_page(&self, page: Pa);

    /// Copies bytes of guest memory out; they lie in one page. `cached`: the VMs that map the page do it
    /// write-back; if not, they bypass the caches, and what EL2 reads must be what is in memory.
    ///
    /// A lock is held that keeps the page what it is. VMs may write it meanwhile, so each byte is
    /// read once.
    fn read(&self, from: Pa, into: &mut [u8], cached: bool);

    /// Copies bytes into guest memory, under the same conditions. If not `cached`, they are in memory, and
    /// in no cache, when this returns.
    fn write(&self, to: Pa, from: &[u8], cached: bool);

    /// Whether [`Machine::is_sound`] may ever say no. It is not asked otherwise.
    const MAY_POISON: bool = false;

    /// Whether the machine vouches for pages of guest memory that are about to come home: no device can
    /// reach them any more, and no memory error was reported of them. Pages that it does not vouch for
    /// are given to nobody again: their parcel is *poisoned*, and stays.
    ///
    /// Called with the parcel's lock held, after the borrowers' translations are gone and before the owner
    /// has the pages for itself. They are contiguous, and each may be asked of more than once. Whoever
    /// once said no says no from then on.
    fn is_sound(&self, from: Pa, pages: u64) -> bool {
        let _ = (from, pages);
        true
    }

    /// Whether a VM gets more of a resource that its limits let it have. It always does: this is where a
    /// test lets every allocation, reservation and charge fail, one after the other. Called with any lock
    /// held that [`lock::Rank::FramePool`] may follow.
    #[inline]
    fn grants(&self, vm: VmIndex, resource: Resource) -> bool {
        let _ = (vm, resource);
        true
    }

    /// Makes an interrupt of the VM pending, as an edge. Whoever of its vCPUs it is for must notice,
    /// also one that sleeps or runs on another CPU; nothing waits for that.
    ///
    /// What the interrupt tells of was written before, under a lock that is still held: whoever enters
    /// the manager because of it finds it. Two edges before the VM notices may become one. It may be
    /// called for a VM that does not run; the interrupt may be forgotten then.
    fn interrupt(&self, vm: VmIndex, line: Line);

    /// Milliseconds since any moment: never fewer than before. All that depends on it is how long the reply of
    /// a long direct call keeps its place for a caller that does not come while another vCPU's call wants
    /// the place; where time stands still, as by default, that is until the VM ends. Called with the VM's
    /// operation slot locked.
    fn milliseconds(&self) -> u64 {
        0
    }

    /// Asks the embedder to end a VM. When none of its vCPUs is in a guest or a call any more, it says
    /// so with [`Manager::ended`](crate::manager::Manager::ended), after this has returned; nothing waits
    /// for that. An embedder whose VMs are stopped by nobody else has nothing to do.
    ///
    /// The VM may be the one whose call is being served, may have ended by itself meanwhile, and may
    /// be asked for again before it has ended: only the first end of a life counts.
    fn stop(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// Asks the embedder to load a VM that was reset, and to let it run when
    /// [`Manager::started`](crate::manager::Manager::started) has said that it may. Nothing waits for
    /// that. If the VM cannot be loaded, the embedder says
    /// [`Manager::not_started`](crate::manager::Manager::not_started); one of the two, once, and after this
    /// has returned. Its tables hold what it was given at boot and did not lose since.
    fn start(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// A VM that does not run has steps to do: somebody is to call
    /// [`Manager::step`](crate::manager::Manager::step) for it soon, from any CPU, as long as
    /// [`Manager::pending`](crate::manager::Manager::pending) says so. An embedder that looks at all its
    /// VMs again and again has nothing to do. What is to be done was noted before this is called.
    fn work(&self, vm: VmIndex) {
        let _ = vm;
    }

    /// The ranks of the locks that the calling CPU holds, one bit a rank: a word for each CPU, zero at
    /// boot, which nobody else reads or writes. Only debug builds look at it. From a lock's taking to its
    /// freeing the answer must be the same word, so a CPU that is preempted with locks held will not do.
    fn held_ranks(&self) -> &AtomicU64;

    /// Told of every write to a frame that is a translation table, before it happens and with the
    /// tree's lock held. The strict fake checks break-before-make here; hardware has nothing to do.
    fn table_write(&self, frame: FrameIndex, entry: usize, old: u64, new: u64) {
        let _ = (frame, entry, old, new);
    }

    /// Told when a frame leaves or enters the pool: `None` when it is free, which is told before
    /// another CPU can take it. The strict fake checks here that no cached walk still leads through a
    /// freed table; hardware has nothing to do.
    fn frame_use(&self, frame: FrameIndex, user: Option<FrameUse>) {
        let _ = (frame, user);
    }
}

/// What a frame of the pool is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUse {
    /// A translation table of the VM with this tag.
    Table(TlbTag),
    /// A translation table of this stream.
    StreamTable(Stream),
    /// Data of the manager: extents, addresses, long messages.
    Data,
}
