//! Handles and the records they name.
//!
//! A handle is a generation (19 bits) above a slot number (13 bits, from 1). A slot's generation rises
//! when its parcel goes, so an old handle never names a new parcel (G6), and looking one up is an
//! index. All slots are dealt out to the VMs at boot, so one VM cannot wear out another's (G7). A slot
//! that has used up its generations rests until every VM that was a party to one of its parcels has been
//! reset: nobody is left then who could mean an old parcel by a number that is given again.
//!
//! Of the records a VM has as many to itself as it is guaranteed parcels; the others are in one stack for
//! all. Records are alike: a VM that has more than its own gives back what it ends, whichever that is,
//! to the shared ones first. The meter of parcels keeps the count, so whoever could pay finds a record.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rm_abi::Handle;

use crate::address::VmIndex;
use crate::config::MAX_VMS;
use crate::link::notice::{NODES, Node};
use crate::lock::{self, Guard, Lock, Rank};
use crate::machine::Machine;
use crate::memparcel::{MAX_ACL, Memparcel, Phase};
use crate::refusal::{Refusal, Resource};

/// How many slots a handle's slot number can tell apart.
pub const MAX_HANDLES: usize = (1 << SLOT_BITS) - 1;
const SLOT_BITS: u32 = 13;
/// With the last generation and the last slot, the handle would be the wire's invalid one.
const LAST_GENERATION: u32 = (1 << (32 - SLOT_BITS)) - 2;

/// One number of the handle space.
#[derive(Debug, Default)]
pub struct HandleSlot {
    /// Generation in the upper half, the record's index plus one in the lower; 0 there: free.
    word: AtomicU64,
    /// The slot behind this one in its VM's queue of free slots; 0 at the end.
    next: AtomicU16,
    /// VMs that were a party to one of its parcels and have not been reset since, one bit each.
    parties: AtomicU16,
    /// The index of the VM that it was dealt to.
    dealt_to: AtomicU8,
}

const _: () = assert!(MAX_VMS <= u16::BITS as usize);

/// One parcel's record.
#[derive(Debug)]
pub struct ParcelRecord<R> {
    parcel: Lock<Memparcel, R>,
    /// The record behind this one in its stack of free records, plus one; 0 at the end.
    next: AtomicU32,
    /// The index of the VM that has taken it, plus one; 0: free. Read without a lock, as a hint.
    taker: AtomicU8,
    /// News about the parcel that waits for its receivers.
    nodes: [Node; NODES],
    /// For each ACL entry, its neighbours among all that this VM holds.
    held: [HeldLink; MAX_ACL],
}

/// A place in a VM's list of what it holds. The lock of the VM's account guards it. Places are numbered
/// through all records, plus one; 0 is none.
#[derive(Debug)]
struct HeldLink {
    newer: AtomicU32,
    older: AtomicU32,
}

impl HeldLink {
    const fn new() -> Self {
        Self { newer: AtomicU32::new(0), older: AtomicU32::new(0) }
    }
}

impl<R: lock::Strategy> ParcelRecord<R> {
    /// A free record.
    #[expect(clippy::new_without_default, reason = "records are made at boot, in place")]
    pub const fn new() -> Self {
        Self {
            parcel: Lock::new(Rank::Parcel, Memparcel::new()),
            next: AtomicU32::new(0),
            taker: AtomicU8::new(0),
            nodes: [const { Node::new() }; _],
            held: [const { HeldLink::new() }; _],
        }
    }
}

/// Index of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordIndex(pub(crate) u32);

/// A parcel as its handle found it: locked, and known to be the one that the handle means.
pub(crate) type ParcelGuard<'a, R> = Guard<'a, Memparcel, R>;

/// The free slots and records of one VM, in its account.
#[derive(Debug, Default)]
pub(crate) struct FreeParcels {
    /// Slots, oldest first, so that a number rests as long as possible before it is used again.
    oldest: u16,
    newest: u16,
    records: u32,
    /// How many records are the VM's own, and how many it has taken, own or shared.
    own: u32,
    taken: u32,
    /// How many slots the VM has, and how many of them are free.
    slots: u64,
    free_slots: u64,
    /// How many handles can still be made before all slots have used up their generations.
    handles_left: u32,
    /// What the VM holds of others: the newest.
    newest_held: u32,
}

impl FreeParcels {
    /// What the VM accepted last and still holds: the parcel's record and the VM's ACL entry.
    pub(crate) fn newest_held(&self) -> Option<(RecordIndex, usize)> {
        let place = self.newest_held.checked_sub(1)?;
        Some((RecordIndex(place / MAX_ACL as u32), place as usize % MAX_ACL))
    }

    /// How many records the VM has taken.
    pub(crate) const fn taken(&self) -> u32 {
        self.taken
    }

    /// The VM's handle numbers: how many are in use or worn out, and how many there are.
    pub(crate) const fn handles(&self) -> (u64, u64) {
        (self.slots - self.free_slots, self.slots)
    }

    /// How many handles the VM can still make, one after the other.
    pub(crate) const fn handles_left(&self) -> u32 {
        self.handles_left
    }
}

/// All handles and records.
#[derive(Debug)]
pub(crate) struct ParcelTable<'s, R> {
    slots: &'s [HandleSlot],
    records: &'s [ParcelRecord<R>],
    shared: SharedRecords,
}

/// The stack of free records that all VMs share. It has no lock: several VMs take and return at once.
#[derive(Debug)]
struct SharedRecords {
    /// The topmost record plus one, 0 if there is none, below a number that rises with every change. So
    /// who was interrupted between look and change finds another word, even if the same record is on
    /// top again.
    top: AtomicU64,
}

impl SharedRecords {
    const fn word(before: u64, top: u32) -> u64 {
        (before >> 32).wrapping_add(1) << 32 | top as u64
    }

    fn push<R>(&self, records: &[ParcelRecord<R>], record: RecordIndex) {
        let mut word = self.top.load(Ordering::Relaxed);
        loop {
            records[record.0 as usize].next.store(word as u32, Ordering::Relaxed);
            let (new, order) = (Self::word(word, record.0 + 1), Ordering::Release);
            match self.top.compare_exchange(word, new, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    fn pop<R>(&self, records: &[ParcelRecord<R>]) -> Option<RecordIndex> {
        let mut word = self.top.load(Ordering::Acquire);
        loop {
            let record = RecordIndex((word as u32).checked_sub(1)?);
            let next = records[record.0 as usize].next.load(Ordering::Relaxed);
            let (new, order) = (Self::word(word, next), Ordering::AcqRel);
            match self.top.compare_exchange(word, new, order, Ordering::Acquire) {
                Ok(_) => return Some(record),
                Err(now) => word = now,
            }
        }
    }
}

impl<'s, R: lock::Strategy> ParcelTable<'s, R> {
    pub(crate) fn new(slots: &'s [HandleSlot], records: &'s [ParcelRecord<R>]) -> Self {
        let shared = SharedRecords { top: AtomicU64::new(0) };
        Self { slots: &slots[..slots.len().min(MAX_HANDLES)], records, shared }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// Gives a VM its slots and records; at boot, once for each VM.
    pub(crate) fn deal(
        &self,
        vm: VmIndex,
        free: &mut FreeParcels,
        slots: Range<usize>,
        records: Range<usize>,
    ) {
        free.slots = slots.len() as u64;
        free.own = records.len() as u32;
        for slot in slots {
            self.slots[slot].dealt_to.store(vm.0, Ordering::Relaxed);
            let generation = (self.slots[slot].word.load(Ordering::Relaxed) >> 32) as u32;
            // All slots together have fewer than 2^32: a handle has 32 bits.
            free.handles_left += LAST_GENERATION + 1 - generation;
            self.queue_slot(free, slot as u16 + 1);
        }
        for record in records.rev() {
            self.records[record].next.store(free.records, Ordering::Relaxed);
            free.records = record as u32 + 1;
        }
    }

    /// Puts records on the stack that all VMs share; at boot, once.
    pub(crate) fn share(&self, records: Range<usize>) {
        for record in records.rev() {
            self.shared.push(self.records, RecordIndex(record as u32));
        }
    }

    /// Takes a slot and a record for a VM that has paid for a parcel. The handle names nothing until
    /// [`ParcelTable::publish`].
    pub(crate) fn take(
        &self,
        vm: VmIndex,
        free: &mut FreeParcels,
    ) -> Result<(Handle, RecordIndex), Refusal> {
        let slot = free.oldest;
        let place = usize::from(slot).checked_sub(1).ok_or(Refusal::Quota(Resource::Handles))?;
        let record = match free.records.checked_sub(1) {
            Some(own) => {
                free.records = self.records[own as usize].next.load(Ordering::Relaxed);
                RecordIndex(own)
            }
            None => self.shared.pop(self.records).expect("G7: who could pay finds a record"),
        };
        free.taken += 1;
        self.records[record.0 as usize].taker.store(vm.0 + 1, Ordering::Relaxed);
        free.free_slots -= 1;
        free.handles_left -= 1;
        free.oldest = self.slots[place].next.load(Ordering::Relaxed);
        if free.oldest == 0 {
            free.newest = 0;
        }
        let generation = (self.slots[place].word.load(Ordering::Relaxed) >> 32) as u32;
        Ok((Handle(generation << SLOT_BITS | u32::from(slot)), record))
    }

    /// Makes the handle name the record.
    pub(crate) fn publish(&self, handle: Handle, record: RecordIndex) {
        let (place, generation) = split(handle);
        let word = u64::from(generation) << 32 | u64::from(record.0 + 1);
        self.slots[place].word.store(word, Ordering::Release);
    }

    /// Gives slot and record back, before the parcel is refunded. It is vacant, and nothing of it is
    /// left in its record.
    /// `parties` are the VMs that could know of the parcel, one bit each.
    pub(crate) fn put(
        &self,
        free: &mut FreeParcels,
        handle: Handle,
        record: RecordIndex,
        parties: u16,
    ) {
        let (place, generation) = split(handle);
        let slot = &self.slots[place];
        slot.parties.fetch_or(parties, Ordering::Relaxed);
        slot.word.store(u64::from(generation + 1) << 32, Ordering::Release);
        // A slot that has used up its generations rests.
        if generation < LAST_GENERATION {
            self.queue_slot(free, place as u16 + 1);
        }
        self.records[record.0 as usize].taker.store(0, Ordering::Relaxed);
        free.taken -= 1;
        if free.taken < free.own {
            self.records[record.0 as usize].next.store(free.records, Ordering::Relaxed);
            free.records = record.0 + 1;
        } else {
            self.shared.push(self.records, record);
        }
    }

    /// Whether the VM has taken the record, as far as that can be told without its lock: whoever needs
    /// to know locks it. `false` is certain for a record that is not the VM's all the while.
    pub(crate) fn is_taken_by(&self, vm: VmIndex, record: RecordIndex) -> bool {
        self.records[record.0 as usize].taker.load(Ordering::Relaxed) == vm.0 + 1
    }

    /// The VM that slot number `place` was dealt to.
    pub(crate) fn dealt_to(&self, place: usize) -> VmIndex {
        VmIndex(self.slots[place].dealt_to.load(Ordering::Relaxed))
    }

    /// Forgets that a VM, which is being reset, was a party to parcels of slot number `place`. `true` if
    /// the slot has nothing to rest for any more: whoever it was dealt to can have it back.
    pub(crate) fn forget_party(&self, place: usize, vm: VmIndex) -> bool {
        let slot = &self.slots[place];
        let before = slot.parties.fetch_and(!(1 << vm.0), Ordering::Relaxed);
        before == 1 << vm.0 && self.is_worn(place)
    }

    fn is_worn(&self, place: usize) -> bool {
        self.slots[place].word.load(Ordering::Relaxed) >> 32 > u64::from(LAST_GENERATION)
    }

    /// Begins the generations of a slot anew, in the account of the VM that it was dealt to, unless somebody
    /// was a party meanwhile.
    pub(crate) fn renew(&self, free: &mut FreeParcels, place: usize) {
        let slot = &self.slots[place];
        if self.is_worn(place) && slot.parties.load(Ordering::Relaxed) == 0 {
            slot.word.store(0, Ordering::Release);
            free.handles_left += LAST_GENERATION + 1;
            self.queue_slot(free, place as u16 + 1);
        }
    }

    fn queue_slot(&self, free: &mut FreeParcels, slot: u16) {
        free.free_slots += 1;
        self.slots[usize::from(slot) - 1].next.store(0, Ordering::Relaxed);
        match usize::from(free.newest).checked_sub(1) {
            Some(newest) => self.slots[newest].next.store(slot, Ordering::Relaxed),
            None => free.oldest = slot,
        }
        free.newest = slot;
    }

    /// The record that `handle` names.
    fn find(&self, handle: Handle) -> Option<RecordIndex> {
        let slot = handle.0 & MAX_HANDLES as u32;
        let place = slot.checked_sub(1)?;
        let word = self.slots.get(place as usize)?.word.load(Ordering::Acquire);
        let record = (word as u32).checked_sub(1)?;
        (word >> 32 == u64::from(handle.0 >> SLOT_BITS)).then_some(RecordIndex(record))
    }

    /// The handle whose slot number this is; 0 if it names nothing.
    pub(crate) fn handle_of(&self, slot: u16) -> Handle {
        let place = usize::from(slot).checked_sub(1);
        let word = place.and_then(|place| self.slots.get(place));
        let word = word.map_or(0, |slot| slot.word.load(Ordering::Acquire));
        match word as u32 {
            0 => Handle(0),
            _ => Handle(((word >> 32) as u32) << SLOT_BITS | u32::from(slot)),
        }
    }

    /// Locks the record that `handle` names, or another one if it names none: it takes as long. Whoever
    /// asked sees by the record's handle which it is.
    pub(crate) fn look<'a, M: Machine<Relax = R>>(
        &'a self,
        machine: &'a M,
        handle: Handle,
    ) -> (RecordIndex, ParcelGuard<'a, R>) {
        let slot = handle.0 & MAX_HANDLES as u32;
        let place = (slot.max(1) as usize - 1).min(self.slots.len() - 1);
        let named = self.slots[place].word.load(Ordering::Acquire) as u32;
        let other = place.min(self.records.len() - 1) as u32;
        let record = RecordIndex(if named == 0 { other } else { named - 1 });
        (record, self.lock(machine, record))
    }

    /// Locks the parcel that `handle` names, in whatever phase it is.
    pub(crate) fn get<'a, M: Machine<Relax = R>>(
        &'a self,
        machine: &'a M,
        handle: Handle,
    ) -> Result<(RecordIndex, ParcelGuard<'a, R>), Refusal> {
        let record = self.find(handle).ok_or(Refusal::NoParcel)?;
        let parcel = self.lock(machine, record);
        // Between the look and the lock the record may have become another parcel's.
        if parcel.handle != handle || parcel.phase == Phase::Vacant {
            return Err(Refusal::NoParcel);
        }
        Ok((record, parcel))
    }

    /// The VM of this account holds a parcel from now on.
    pub(crate) fn list_held(&self, account: &mut FreeParcels, record: RecordIndex, entry: usize) {
        let place = Self::held_place(record, entry);
        let link = self.held(place);
        link.newer.store(0, Ordering::Relaxed);
        link.older.store(account.newest_held, Ordering::Relaxed);
        if account.newest_held != 0 {
            self.held(account.newest_held).newer.store(place, Ordering::Relaxed);
        }
        account.newest_held = place;
    }

    /// The VM of this account holds a parcel no longer.
    pub(crate) fn unlist_held(&self, account: &mut FreeParcels, record: RecordIndex, entry: usize) {
        let link = self.held(Self::held_place(record, entry));
        let (newer, older) =
            (link.newer.load(Ordering::Relaxed), link.older.load(Ordering::Relaxed));
        match newer {
            0 => account.newest_held = older,
            newer => self.held(newer).older.store(older, Ordering::Relaxed),
        }
        if older != 0 {
            self.held(older).newer.store(newer, Ordering::Relaxed);
        }
    }

    const fn held_place(record: RecordIndex, entry: usize) -> u32 {
        record.0 * MAX_ACL as u32 + entry as u32 + 1
    }

    fn held(&self, place: u32) -> &HeldLink {
        let place = place as usize - 1;
        &self.records[place / MAX_ACL].held[place % MAX_ACL]
    }

    /// The node of this number, counted through all records.
    pub(crate) fn node(&self, number: usize) -> &'s Node {
        &self.records[number / NODES].nodes[number % NODES]
    }

    /// Every record, in use or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = RecordIndex> + use<R> {
        (0..self.records.len() as u32).map(RecordIndex)
    }

    /// Locks a record.
    pub(crate) fn lock<'a, M: Machine<Relax = R>>(
        &'a self,
        machine: &'a M,
        record: RecordIndex,
    ) -> ParcelGuard<'a, R> {
        self.records[record.0 as usize].parcel.lock(machine)
    }
}

/// Index of the slot, and generation.
const fn split(handle: Handle) -> (usize, u32) {
    ((handle.0 & MAX_HANDLES as u32) as usize - 1, handle.0 >> SLOT_BITS)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;
    use std::vec::Vec;

    use rm_abi::extension::{self, LastRefusal, Rule};
    use rm_abi::{Bytes, Transfer};

    use super::*;
    use crate::address::VmIndex;
    use crate::frame_pool::FrameRecord;
    use crate::link::LinkRecord;
    use crate::machine::fake::world::{RAM, World, vm};
    use crate::machine::fake::{FakeMachine, YieldThread};
    use crate::manager::{Manager, Storage, VmSlot};

    fn leaked<T>(count: usize, make: impl Fn() -> T) -> &'static [T] {
        (0..count).map(|_| make()).collect::<Vec<_>>().leak()
    }

    /// VMs 3 and 4, each with two handle numbers that have one generation left.
    fn worn() -> World {
        let mut vms = [vm(3), vm(4)];
        vms.iter_mut().for_each(|vm| vm.quotas.parcels = 1);
        let generation = u64::from(LAST_GENERATION);
        let slot =
            || HandleSlot { word: AtomicU64::new(generation << 32), ..HandleSlot::default() };
        let frames = 2 * vms[0].quotas.frames as usize;
        let storage = Storage {
            vms: leaked(2, VmSlot::<YieldThread>::new),
            handles: leaked(4, slot),
            parcels: leaked(2, ParcelRecord::new),
            links: leaked(2, LinkRecord::new),
            frame_records: leaked(frames, FrameRecord::default),
            frame_stack: leaked(frames, || AtomicU32::new(0)),
            heaps: &[],
            heap_words: &[],
        };
        let manager = Manager::new(FakeMachine::new(frames), storage, &vms).unwrap();
        let world = World { manager };
        world.manager.give(VmIndex(0), RAM, World::pa_of(VmIndex(0)), 16).unwrap();
        world
    }

    #[test]
    fn a_vm_whose_handle_numbers_are_worn_out_is_told_so() {
        let world = worn();
        let owner = world.caller(VmIndex(0));
        let lend = || owner.offer(Transfer::Lend, &[(4, 6)], &[(RAM.0, 1)]);
        let left = || owner.call(extension::LIMITS, &[0; 8])[..].u32_at(8);
        let handles = [1, 2].map(|round| {
            assert_eq!(left(), 3 - round);
            let handle = lend().unwrap();
            owner.reclaim(handle, 0).unwrap();
            handle
        });
        assert_eq!(left(), 0);
        assert_eq!(
            handles.map(|handle| (split(Handle(handle)).1, handle != u32::MAX)),
            [(LAST_GENERATION, true), (LAST_GENERATION, true)]
        );
        let before = world.check();
        assert_eq!(lend(), Err(2));
        assert_eq!(world.check(), before);
        let last = owner.last_refusal();
        let expected = LastRefusal {
            rule: Rule::Quota as u16,
            resource: Resource::Handles as u16,
            used: 2,
            limit: 2,
            ..last
        };
        assert_eq!((last, last.error), (expected, 2));
    }

    #[test]
    fn g6_a_worn_out_number_rests_until_all_that_knew_it_have_been_reset() {
        let world = worn();
        let owner = world.caller(VmIndex(0));
        let lend = || owner.offer(Transfer::Lend, &[(4, 6)], &[(RAM.0, 1)]);
        for _ in 0..2 {
            let handle = lend().unwrap();
            owner.reclaim(handle, 0).unwrap();
        }
        let live_again = |vm| {
            world.end(vm);
            world.settle(vm, 1);
            world.start(vm);
        };
        live_again(VmIndex(0));
        assert_eq!(lend(), Err(2), "VM 4 may still mean an old parcel");
        live_again(VmIndex(1));
        let handle = lend().unwrap();
        assert_eq!(split(Handle(handle)).1, 0, "the generations begin anew");
        owner.reclaim(handle, 0).unwrap();
        world.check();
    }
}
