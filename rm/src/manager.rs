//! The resource manager: its state, its VMs, and the way from a call's bytes to its file.
//!
//! Everything takes `&self`: calls of different VMs run on different CPUs at once and meet only at
//! the locks, in the order that [`crate::lock`] asserts.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use rm_abi::memparcel::{accept::Accept, create::Create};
use rm_abi::vm::VmState;
use rm_abi::{
    AcceptFlags, AclEntry, CreateFlags, Handle, MemoryKind, Rights, SglEntry, Transfer, Vmid,
};
use spin::Once;

use crate::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use crate::call::extension::LastRefusals;
use crate::call::{self, Caller};
use crate::config::{BootError, MAX_STREAMS, MAX_VMS, Roles, VmConfig, VmName};
use crate::counters::Counts;
use crate::device::{self, Device};
use crate::frame_pool::{FramePool, FrameRecord};
use crate::heap::{HeapConfig, HeapSlot, Heaps};
use crate::life::Life;
use crate::link::LinkRecord;
use crate::lock::{Lock, Rank};
use crate::machine::{Machine, TranslationContext};
use crate::memparcel::table::{FreeParcels, ParcelTable, RecordIndex};
use crate::memparcel::{HandleSlot, Memparcel, ParcelRecord, Phase};
use crate::operation::budget::Budget;
use crate::operation::message::{Message, Packet};
use crate::operation::{Answer, Begun, Reply, Slot, Step};
use crate::quota::{Amounts, Ledger, Meters, Pools, Quotas};
use crate::refusal::{Refusal, Resource};
use crate::stage2::{Access, HoldError, Memory, Page, Stage2};

/// Memory for the manager's own state. How much there is decides how many VMs, parcels and frames
/// there can be.
pub struct Storage<'s, R> {
    /// One for each VM, at most [`MAX_VMS`] are used.
    pub vms: &'s [VmSlot<R>],
    /// At most [`MAX_HANDLES`](crate::memparcel::MAX_HANDLES) are used; they are dealt out to the VMs
    /// in proportion to the parcels that they may have, at least one for each of those.
    pub handles: &'s [HandleSlot],
    /// As many as the VMs' guaranteed parcels together, and those that they share.
    pub parcels: &'s [ParcelRecord<R>],
    /// One for each VM.
    pub links: &'s [LinkRecord<R>],
    /// One for each frame of the machine's pool. What of the frames is kept for no VM is shared.
    pub frame_records: &'s [FrameRecord],
    /// One for each frame of the machine's pool.
    pub frame_stack: &'s [AtomicU32],
    /// One for each heap.
    pub heaps: &'s [HeapSlot<R>],
    /// For all heaps together as many as [`heap::words`](crate::heap::words) says for each, all zero.
    pub heap_words: &'s [AtomicU64],
}

/// The place of one VM's state.
pub struct VmSlot<R>(Once<Vm<R>>);

impl<R> VmSlot<R> {
    /// A place without a VM.
    #[expect(clippy::new_without_default, reason = "slots are made at boot, in place")]
    pub const fn new() -> Self {
        Self(Once::new())
    }
}

impl<R> core::fmt::Debug for VmSlot<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VmSlot").finish_non_exhaustive()
    }
}

/// What the manager knows of one VM.
pub(crate) struct Vm<R> {
    pub(crate) vmid: Vmid,
    pub(crate) name: VmName,
    pub(crate) roles: Roles,
    pub(crate) may_supply: bool,
    pub(crate) may_consume: bool,
    pub(crate) ipa_pages: u64,
    pub(crate) accept_from: Ipa,
    pub(crate) direct_mapped: bool,
    pub(crate) sanitize_always: bool,
    pub(crate) meters: Meters,
    pub(crate) counts: Counts,
    pub(crate) stage2: Lock<Stage2, R>,
    pub(crate) account: Lock<FreeParcels, R>,
    pub(crate) slot: Lock<Slot, R>,
    pub(crate) refusals: Lock<LastRefusals, R>,
    /// The [`Events`](rm_abi::extension::Events) that the VM wants to be told of.
    pub(crate) events: AtomicU32,
    /// The slot holds a call that wants steps. A hint that is read without the slot's lock.
    pub(crate) pending: AtomicBool,
    /// The queues hold something that can go on. A hint too.
    pub(crate) queued: AtomicBool,
    pub(crate) life: Life,
    pub(crate) devices: Vec<Device<R>, MAX_STREAMS>,
    context: TranslationContext,
}

/// The resource manager.
pub struct Manager<'s, M: Machine> {
    machine: M,
    pool: FramePool<'s, M::Relax>,
    parcels: ParcelTable<'s, M::Relax>,
    vms: &'s [VmSlot<M::Relax>],
    links: &'s [LinkRecord<M::Relax>],
    pools: Pools,
    heaps: Heaps<'s, M::Relax>,
    /// Pages that boot gave to the VMs and the heaps: what G8 adds up to.
    given: AtomicU64,
}

impl<'s, M: Machine> Manager<'s, M> {
    /// A manager of `vms`, none of which has memory yet, with so much to share that each can have
    /// everything up to its limits, whatever others do. A VM's [`VmIndex`] is its place in the slice.
    ///
    /// # Errors
    ///
    /// [`BootError`] says what in the configuration or the storage does not fit.
    pub fn new(
        machine: M,
        storage: Storage<'s, M::Relax>,
        vms: &[VmConfig],
    ) -> Result<Self, BootError> {
        let above = vms.iter().map(|config| config.quotas.above_guarantees());
        Self::with_shared(machine, storage, vms, above.fold(Amounts::NONE, |a, b| a + b))
    }

    /// As [`Manager::new`], with pools of these sizes for what the VMs use beyond their guarantees.
    ///
    /// # Errors
    ///
    /// As [`Manager::new`].
    pub fn with_shared(
        machine: M,
        storage: Storage<'s, M::Relax>,
        vms: &[VmConfig],
        shared: Amounts,
    ) -> Result<Self, BootError> {
        if vms.is_empty() || vms.len() > MAX_VMS.min(storage.vms.len()).min(storage.links.len()) {
            return Err(BootError::VmCount);
        }
        let pool = FramePool::new(storage.frame_records, storage.frame_stack);
        let parcels = ParcelTable::new(storage.handles, storage.parcels);
        let manager = Self {
            machine,
            pool,
            parcels,
            vms: &storage.vms[..vms.len()],
            links: storage.links,
            pools: Pools::new(&shared),
            heaps: Heaps::new(storage.heaps, storage.heap_words),
            given: AtomicU64::new(0),
        };
        let (limits, guaranteed) = manager.check_parcels(vms, shared.parcels)?;
        device::check(vms)?;
        let (mut limit, mut record) = (0, 0);
        for (index, config) in vms.iter().enumerate() {
            // Rounded down at both ends, so neighbours never overlap and nobody gets fewer slots
            // than it may have parcels.
            let slot = |limit: usize| limit * manager.parcels.slots() / limits.max(1);
            let next = limit + config.quotas.parcels as usize;
            let slots = slot(limit)..slot(next);
            let records = record..record + config.quotas.parcels_guaranteed() as usize;
            (limit, record) = (next, records.end);
            let unique = vms[..index]
                .iter()
                .all(|other| other.vmid != config.vmid && other.tag != config.tag);
            if !unique {
                return Err(BootError::Ambiguous);
            }
            let mut free = FreeParcels::default();
            manager.parcels.deal(VmIndex(index as u8), &mut free, slots, records);
            manager.add(VmIndex(index as u8), config, free)?;
        }
        manager.parcels.share(guaranteed..guaranteed + shared.parcels as usize);
        Ok(manager)
    }

    /// Whether the storage suffices for the parcels; the sums of what the VMs may have and of what they
    /// are guaranteed.
    fn check_parcels(&self, vms: &[VmConfig], shared: u64) -> Result<(usize, usize), BootError> {
        let limits: u64 = vms.iter().map(|config| u64::from(config.quotas.parcels)).sum();
        let guaranteed: u64 = vms.iter().map(|config| config.quotas.parcels_guaranteed()).sum();
        let records = guaranteed.saturating_add(shared);
        // Whoever names a parcel that is not there looks into some slot and some record too.
        let (slots, all) = (self.parcels.slots() as u64, self.parcels.records() as u64);
        if limits.max(1) > slots || records.max(1) > all {
            return Err(BootError::Parcels);
        }
        Ok((limits as usize, guaranteed as usize))
    }

    fn add(&self, vm: VmIndex, config: &VmConfig, free: FreeParcels) -> Result<(), BootError> {
        let Quotas { frames, frames_reserved, unread, .. } = config.quotas;
        let smmu = self.machine.features().smmu;
        let streams = || config.streams.iter().flatten().filter(|_| smmu);
        if frames_reserved < Quotas::MIN_FRAMES + streams().count() as u32 {
            return Err(BootError::Frames);
        }
        let one = unread > 0 && config.quotas.guaranteed.unread > 0;
        if !one || unread > Quotas::MAX_UNREAD {
            return Err(BootError::Unread);
        }
        self.pool
            .set_quota(&self.machine, vm, frames_reserved, frames)
            .map_err(|_| BootError::Frames)?;
        let stage2 = Stage2::new(self.mem(), vm, config.tag, config.ipa_pages)
            .map_err(|_| BootError::Frames)?;
        let context = stage2.context();
        let mut devices = Vec::new();
        for &stream in streams() {
            let device = self.new_device(vm, config.ipa_pages, stream)?;
            assert!(
                devices.push(device).is_ok(),
                "boot: a VM has no more devices than it can have"
            );
        }
        self.vms[usize::from(vm.0)].0.call_once(|| Vm {
            vmid: config.vmid,
            name: config.name,
            roles: config.roles,
            may_supply: config.may_supply,
            may_consume: config.may_consume,
            ipa_pages: config.ipa_pages,
            accept_from: config.accept_from,
            direct_mapped: config.direct_mapped,
            sanitize_always: config.sanitize_always,
            meters: Meters::new(&config.quotas),
            counts: Counts::new(),
            stage2: Lock::new(Rank::Vm, stage2),
            account: Lock::new(Rank::Account, free),
            slot: Lock::new(Rank::Slot, Slot::new()),
            refusals: Lock::new(Rank::Refusals, [None; 2]),
            events: AtomicU32::new(0),
            pending: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            life: Life::new(config),
            devices,
            context,
        });
        Ok(())
    }

    /// Gives a VM memory at boot: it owns the pages from `pa` on, at `at`.
    ///
    /// # Errors
    ///
    /// [`BootError::Memory`] if the range is not free or not in the VM's address space,
    /// [`BootError::Frames`] if its tables exceed the VM's quota.
    pub fn give(&self, vm: VmIndex, at: Ipa, pa: Pa, pages: u64) -> Result<(), BootError> {
        let mut stage2 = self.vm(vm).stage2.lock(&self.machine);
        stage2.give(self.mem(), at, pa, pages).map_err(boot_error)?;
        self.given.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Sets memory aside at boot as a heap: ranges of whole blocks of 2 MiB, all zero, of so many pages
    /// each. Heaps are numbered in the order in which they are made.
    ///
    /// # Errors
    ///
    /// [`BootError::HeapName`] if the name is taken or empty, [`BootError::Heap`] if the ranges are not
    /// such, the guarantees do not fit, or the storage has no place for it.
    pub fn add_heap(&self, config: HeapConfig, ranges: &[(Pa, u64)]) -> Result<(), BootError> {
        let pages = self.heaps.add(&self.machine, config, ranges)?;
        self.given.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Gives a VM the registers of a device at boot: it drives the device itself and can share
    /// nothing of it.
    ///
    /// # Errors
    ///
    /// As [`Manager::give`].
    pub fn give_device(&self, vm: VmIndex, at: Ipa, pa: Pa, pages: u64) -> Result<(), BootError> {
        let mut stage2 = self.vm(vm).stage2.lock(&self.machine);
        stage2.give_device(self.mem(), at, pa, pages).map_err(boot_error)
    }

    /// Keeps addresses of a VM free of memory at boot, because EL2 emulates registers there.
    ///
    /// # Errors
    ///
    /// As [`Manager::give`].
    pub fn give_emulated(&self, vm: VmIndex, at: Ipa, pages: u64) -> Result<(), BootError> {
        let mut stage2 = self.vm(vm).stage2.lock(&self.machine);
        stage2.give_emulated(self.mem(), at, pages).map_err(boot_error)
    }

    /// Shares pages of `owner` with `peer` at boot, read-write on both sides, as if both had asked:
    /// a channel that the VMs need not set up. The result is the parcel's handle.
    ///
    /// # Errors
    ///
    /// [`BootError::Refused`] with what a call of the VMs would have been answered.
    pub fn share_at_boot(
        &self,
        owner: (VmIndex, Ipa),
        peer: (VmIndex, Ipa),
        pages: u64,
        label: u32,
    ) -> Result<Handle, BootError> {
        let (owner_vmid, peer_vmid) = (self.vmid(owner.0), self.vmid(peer.0));
        let size = pages * PAGE_SIZE;
        let mut payload = [0; rm_abi::PACKET_PAYLOAD];
        let share = Create {
            memory: MemoryKind::NORMAL,
            flags: CreateFlags::empty(),
            label,
            acl: &[owner_vmid, peer_vmid].map(|vmid| AclEntry { vmid, rights: Rights::RW }),
            sgl: &[SglEntry { ipa: owner.1.0, size }],
            attributes: &[],
        };
        let length = share.encode(&mut payload).expect("a share of one range fits a packet");
        let made = self.perform(owner.0, Transfer::Share.message(), &payload[..length]);
        let Reply::Word(handle) = made.map_err(BootError::Refused)? else {
            panic!("boot: a share answers with a handle")
        };
        self.accept_at_boot(Handle(handle), peer, pages, label)?;
        self.make_peers(owner.0, peer.0);
        Ok(Handle(handle))
    }

    /// Maps a shared parcel for `peer`, as if it had asked: at boot, and when that VM starts again.
    ///
    /// # Errors
    ///
    /// As [`Manager::share_at_boot`].
    pub fn accept_at_boot(
        &self,
        handle: Handle,
        peer: (VmIndex, Ipa),
        pages: u64,
        label: u32,
    ) -> Result<(), BootError> {
        let accept = Accept {
            handle,
            memory: MemoryKind::NORMAL,
            transfer: Transfer::Share,
            flags: AcceptFlags::MAP_CONTIGUOUS | AcceptFlags::DONE,
            label,
            acl: &[],
            sgl: &[SglEntry { ipa: peer.1.0, size: pages * PAGE_SIZE }],
            attributes: &[],
        };
        let mut payload = [0; rm_abi::PACKET_PAYLOAD];
        let length = accept.encode(&mut payload).expect("an accept of one range fits a packet");
        self.perform(peer.0, rm_abi::message::MEM_ACCEPT, &payload[..length])
            .map_err(BootError::Refused)?;
        Ok(())
    }

    /// Does a call of one packet to its end, without a budget and whatever the VM itself may ask for: at
    /// boot, and in tests of the rules.
    ///
    /// # Errors
    ///
    /// The rule that refused it.
    pub fn perform(&self, vm: VmIndex, message: u32, payload: &[u8]) -> Answer {
        let caller = Caller { manager: self, vm, step: u32::MAX, at_boot: true };
        let room = rm_abi::PACKET_PAYLOAD;
        let mut operation = None;
        match call::begin(caller, message, &Packet(payload), room, &mut operation)? {
            Begun::Answer(reply) => return Ok(reply),
            Begun::ReplyTooLarge => return Err(Refusal::NoRange),
            Begun::Short | Begun::Long => {}
        }
        let mut operation = operation.expect("G4: a call that has work has an operation");
        let mut data = Message::new();
        let size = operation.data_size();
        data.resize(caller, size)?;
        loop {
            let budget = &mut Budget::new(u32::MAX);
            if let Step::Done(answer) = operation.step(caller, &Packet(payload), &mut data, budget)
            {
                return answer;
            }
        }
    }

    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// The hardware that the manager was made with.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// How many VMs there are.
    pub const fn vm_count(&self) -> usize {
        self.vms.len()
    }

    /// A VM's name on the wire.
    pub fn vmid(&self, vm: VmIndex) -> Vmid {
        self.vm(vm).vmid
    }

    /// A VM's name for people.
    pub fn name(&self, vm: VmIndex) -> VmName {
        self.vm(vm).name
    }

    /// What a VM may do beyond its own memory.
    pub fn roles(&self, vm: VmIndex) -> Roles {
        self.vm(vm).roles
    }

    /// What VTTBR_EL2 is made of while the VM runs.
    pub fn context(&self, vm: VmIndex) -> TranslationContext {
        self.vm(vm).context
    }

    /// The machine address of a page, if the VM may use it so now. An abort handler asks this again
    /// before it blames the guest: break-before-make makes a page fault for a moment.
    pub fn allows(&self, vm: VmIndex, at: Ipa, access: Access) -> Option<Pa> {
        self.vm(vm).stage2.lock(&self.machine).allows(self.mem(), at, access)
    }

    /// Runs `work` while nothing in the VM's tables can change. `work` gets a walk of those tables, which
    /// also says whether caches are in the way: around an access of its own to a page that is not
    /// write-back, the embedder cleans and invalidates.
    pub fn with_page<T>(
        &self,
        vm: VmIndex,
        work: impl FnOnce(&dyn Fn(Ipa, Access) -> Option<Page>) -> T,
    ) -> T {
        let stage2 = self.vm(vm).stage2.lock(&self.machine);
        work(&|at, access| stage2.page(self.mem(), at, access))
    }

    /// Whether a call of the VM wants steps. Read without a lock, for every entry into EL2.
    pub fn pending(&self, vm: VmIndex) -> bool {
        let state = self.vm(vm);
        state.pending.load(Ordering::Relaxed) || state.queued.load(Ordering::Relaxed)
    }

    /// Does one step of what the VM has pending, with or without its help. `Some`: a request that was
    /// served asks that the VM ends, with this code.
    pub fn step(&self, vm: VmIndex, budget: &mut Budget) -> Option<u8> {
        if !self.pending(vm) {
            return None;
        }
        let caller = Caller { manager: self, vm, step: budget.left(), at_boot: false };
        if self.state(vm) == VmState::Running {
            return self.enter(caller, |slot| self.pump(caller, slot, budget)).0;
        }
        self.step_without_vm(caller, budget);
        None
    }

    /// Does one unit of work that nobody waits for: merges one table of the VM back into a block.
    /// `true` while there may be more.
    pub fn idle(&self, vm: VmIndex) -> bool {
        self.vm(vm).stage2.lock(&self.machine).merge_one(self.mem())
    }

    /// Frames of the manager that the VM uses, mergeable tables not counted.
    pub fn frames_used(&self, vm: VmIndex) -> u32 {
        self.pool.used(vm)
    }

    pub(crate) const fn links(&self) -> &'s [LinkRecord<M::Relax>] {
        self.links
    }

    pub(crate) fn mem(&self) -> Memory<'_, 's, M> {
        Memory { machine: &self.machine, pool: &self.pool }
    }

    pub(crate) const fn heaps(&self) -> &Heaps<'s, M::Relax> {
        &self.heaps
    }

    pub(crate) fn pool(&self) -> &FramePool<'s, M::Relax> {
        &self.pool
    }

    pub(crate) fn parcels(&self) -> &ParcelTable<'s, M::Relax> {
        &self.parcels
    }

    /// The state of a VM. Indices come from the embedder, who got them from the configuration.
    pub(crate) fn vm(&self, vm: VmIndex) -> &'s Vm<M::Relax> {
        self.vms[usize::from(vm.0)].0.get().expect("a VM is in its slot from boot on")
    }

    /// Whether an ACL may name `vmid`: the primary VM, the manager, the fixed ids of secondary VMs,
    /// which may exist later, and every VM that there is (the original's rule).
    pub(crate) fn is_nameable(&self, vmid: Vmid) -> bool {
        matches!(vmid.0, 3..=31 | 255) || self.all().any(|vm| self.vmid(vm) == vmid)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = VmIndex> + use<M> {
        (0..self.vms.len() as u8).map(VmIndex)
    }

    /// Takes a handle and a record out of the VM's share.
    pub(crate) fn take_parcel(&self, vm: VmIndex) -> Result<(Handle, RecordIndex), Refusal> {
        if !self.machine.grants(vm, Resource::Handles) {
            return Err(Refusal::Quota(Resource::Handles));
        }
        self.parcels.take(vm, &mut self.vm(vm).account.lock(&self.machine))
    }

    /// The VM's counters, and the pools that it shares with others.
    pub(crate) fn ledger(&self, vm: VmIndex) -> Ledger<'_, M> {
        Ledger { machine: &self.machine, vm, meters: &self.vm(vm).meters, pools: &self.pools }
    }

    pub(crate) const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Notes that a VM begins to hold a parcel, by its ACL entry.
    pub(crate) fn list_held(&self, vm: VmIndex, record: RecordIndex, entry: usize) {
        self.parcels.list_held(&mut self.vm(vm).account.lock(&self.machine), record, entry);
    }

    /// Notes that a VM holds a parcel no longer.
    pub(crate) fn unlist_held(&self, vm: VmIndex, record: RecordIndex, entry: usize) {
        self.parcels.unlist_held(&mut self.vm(vm).account.lock(&self.machine), record, entry);
    }

    /// The VMs that could know of a parcel, one bit each.
    pub(crate) fn parties(&self, parcel: &Memparcel) -> u16 {
        let named = parcel.acl.entries().iter().filter_map(|entry| self.find(entry.vmid));
        named.fold(1 << parcel.owner.0, |all, vm| all | 1 << vm.0)
    }

    /// A VM is being reset: no handle with slot number `place` means anything to it any more.
    pub(crate) fn forget_party(&self, place: usize, vm: VmIndex) {
        if self.parcels.forget_party(place, vm) {
            let account = &self.vm(self.parcels.dealt_to(place)).account;
            self.parcels.renew(&mut account.lock(&self.machine), place);
        }
    }

    /// Ends a parcel whose pages are back and whose lists are cleared.
    pub(crate) fn retire(&self, parcel: &mut Memparcel, record: RecordIndex) {
        self.detach_news(parcel, record);
        let ledger = self.ledger(parcel.owner);
        ledger.refund(Resource::Extents, parcel.extents.forget().into());
        ledger.refund(Resource::PagesLent, parcel.pages_left());
        if parcel.unfinished {
            ledger.refund(Resource::Unfinished, 1);
        }
        assert!(parcel.attachments.is_empty(), "G5: a parcel ended that a device is attached to");
        let handle = core::mem::replace(&mut parcel.handle, Handle::INVALID);
        parcel.phase = Phase::Vacant;
        parcel.accesses = 0;
        parcel.unfinished = false;
        parcel.pages = 0;
        parcel.holes.clear();
        let account = &self.vm(parcel.owner).account;
        let parties = parcel.parties;
        self.parcels.put(&mut account.lock(&self.machine), handle, record, parties);
        // Whoever can pay must find a record.
        ledger.refund(Resource::Parcels, 1);
        self.wake_teardown(parcel.owner);
    }
}

fn boot_error(error: HoldError) -> BootError {
    match error {
        HoldError::Taken => BootError::Memory,
        HoldError::NoFrame(_) => BootError::Frames,
    }
}

impl<M: Machine> core::fmt::Debug for Manager<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let vms: Vec<_, MAX_VMS> = self.all().map(|vm| self.vmid(vm)).collect();
        f.debug_struct("Manager").field("vms", &vms).finish_non_exhaustive()
    }
}
