//! A machine for tests on the host that believes nothing.
//!
//! Real hardware forgives most mistakes in table maintenance most of the time: the stale translation
//! happens to be evicted, the walker happens to be late. This machine is the adversary that the
//! architecture allows. Whatever was once valid in a reachable table is cached by every CPU until an
//! invalidation covers it, and is preferred to what the table says now; what was not published is not
//! seen. It panics where the architecture calls the outcome unpredictable (break-before-make) or
//! where the manager broke a promise (a table freed while a walk still leads through it).
//!
//! Caches are as bad: what was written stays there until it is cleaned, what changed behind them is
//! not seen until they are invalidated, and a page that two VMs map with different memory types at
//! once is a panic.
//!
//! [`FakeMachine::cpu`] is what a VM sees. Descriptors are decoded here a second time, from the
//! manual and not from the manager's own code.

mod aliases;
mod cache;
mod cpu;
mod decode;
mod devices;
pub mod effort;
mod tables;
mod tlb;
pub mod world;

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use self::cache::{Cache, Path};
pub use self::cpu::{Fault, VirtualCpu};
use self::devices::Devices;
pub use self::devices::{DevicePage, FakeDevice};
use self::tables::Tables;
use super::{
    Features, Frame, FrameIndex, FrameUse, Line, Machine, Scope, Stream, StreamContext,
    TranslationContext,
};
use crate::address::{PAGE_SIZE, Pa, TlbTag, VmIndex};
use crate::lock::{self, Rank};
use crate::refusal::Resource;

/// Where the frames of the fake are in its physical address space, far from the RAM of tests.
const FRAMES_BASE: Pa = Pa(0xf0_0000_0000);

/// The bytes of one page.
pub type Page = [u8; PAGE_SIZE as usize];

/// What has been asked of the machine since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of [`Machine::invalidate`].
    pub invalidations: u64,
    /// How many of those were for all of a VM.
    pub invalidations_of_all: u64,
    /// Calls of [`Machine::invalidate_stream`].
    pub stream_invalidations: u64,
    /// Calls of [`Machine::publish`].
    pub publishes: u64,
    /// Descriptors written.
    pub table_writes: u64,
    /// Pages filled with zeros.
    pub zeroed: u64,
    /// Pages cleaned and invalidated.
    pub cleaned: u64,
    /// How often the manager went to a frame of the pool.
    pub frame_visits: u64,
    /// Locks that the calling thread has taken, of whatever machine.
    pub locks: u64,
}

/// The strict machine.
pub struct FakeMachine {
    frames: Box<[Frame]>,
    features: Features,
    frame_visits: AtomicU64,
    milliseconds: AtomicU64,
    hardware: Mutex<Hardware>,
}

/// What the one lock of the fake guards.
struct Hardware {
    tables: Tables,
    devices: Devices,
    cache: Cache,
    counters: Counters,
    interrupts: HashMap<(VmIndex, Line), u64>,
    wishes: Vec<(VmIndex, Wish)>,
    spoiled: Vec<Pa>,
    faults: Faults,
}

/// Which of the things that VMs ask for are not granted.
#[derive(Default)]
struct Faults {
    asked: u64,
    first: u64,
    count: u64,
    refused: u64,
}

/// What the manager asked the embedder to do with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End it.
    Stop,
    /// Load it and let it run.
    Start,
}

impl FakeMachine {
    /// A machine with `frames` frames and no features.
    pub fn new(frames: usize) -> Self {
        Self::with_features(frames, Features::default())
    }

    /// A machine with `frames` frames and `features`.
    pub fn with_features(frames: usize, features: Features) -> Self {
        let hardware = Hardware {
            tables: Tables::new(features, FRAMES_BASE),
            devices: Devices::new(FRAMES_BASE),
            cache: Cache::default(),
            counters: Counters::default(),
            interrupts: HashMap::new(),
            wishes: Vec::new(),
            spoiled: Vec::new(),
            faults: Faults::default(),
        };
        Self {
            frames: (0..frames).map(|_| Frame::ZERO).collect(),
            features,
            frame_visits: AtomicU64::new(0),
            milliseconds: AtomicU64::new(0),
            hardware: Mutex::new(hardware),
        }
    }

    /// A CPU that runs a VM.
    pub fn cpu(&self, context: TranslationContext) -> VirtualCpu<'_> {
        VirtualCpu::new(self, context)
    }

    /// A device whose accesses the SMMU translates.
    pub const fn device(&self, stream: Stream, is_coherent: bool) -> FakeDevice<'_> {
        FakeDevice::new(self, stream, is_coherent)
    }

    /// Everything that a device reaches, lowest first.
    pub fn device_pages(&self, stream: Stream) -> Vec<DevicePage> {
        let leaves = self.hardware().devices.leaves(&self.frames, stream);
        leaves.iter().map(|(at, leaf)| devices::page(*at, leaf)).collect()
    }

    /// What has been asked so far.
    pub fn counters(&self) -> Counters {
        Counters {
            frame_visits: self.frame_visits.load(Ordering::Relaxed),
            locks: LOCKS.get(),
            ..self.hardware().counters
        }
    }

    /// How often an interrupt of a VM was raised.
    pub fn interrupts(&self, vm: VmIndex, line: Line) -> u64 {
        self.hardware().interrupts.get(&(vm, line)).copied().unwrap_or(0)
    }

    /// From now on the machine does not vouch for the page: it reports a memory error, or cannot stop a
    /// device.
    pub fn spoil(&self, page: Pa) {
        self.hardware().spoiled.push(page);
    }

    /// From now on, of all that VMs ask for, the request number `first` and those behind it are not
    /// granted, `count` in all.
    pub fn refuse(&self, first: u64, count: u64) {
        self.hardware().faults = Faults { asked: 0, first, count, refused: 0 };
    }

    /// How many requests were not granted since [`FakeMachine::refuse`], which ends here.
    pub fn refused(&self) -> u64 {
        core::mem::take(&mut self.hardware().faults).refused
    }

    /// Lets time pass. A millisecond passes as well whenever the manager looks at the clock.
    pub fn pass(&self, milliseconds: u64) {
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// What was asked of the embedder since this was asked last.
    pub fn wishes(&self) -> Vec<(VmIndex, Wish)> {
        core::mem::take(&mut self.hardware().wishes)
    }

    /// Panics if a CPU or a device could still use a translation that no table grants, or could miss one that a
    /// table grants. Neither may be so between two steps of the manager.
    pub fn check_no_stale(&self) {
        let hardware = self.hardware();
        hardware.tables.check_settled();
        hardware.devices.check_settled();
    }

    /// Panics if a page is in a cache that its users bypass, or if its users would find there what is
    /// no longer so. Neither may be so between two calls, unless a VM's own tables have bypassed what is
    /// write-back.
    pub fn check_caches(&self) {
        let hardware = self.hardware();
        if hardware.cache.is_empty() {
            return;
        }
        hardware.tables.each_run(&self.frames, |_, pages, leaf| {
            hardware.cache.check(leaf.pa, pages, leaf.path(Path::Cached));
        });
    }

    /// Frames in use as tables of the VM with this tag.
    pub fn tables_of(&self, tag: TlbTag) -> usize {
        self.hardware().tables.count(FrameUse::Table(tag))
    }

    /// Frames in use for data.
    pub fn data_frames(&self) -> usize {
        self.hardware().tables.count(FrameUse::Data)
    }

    /// The bytes of a page of RAM, as one sees them who goes through the caches, as EL2 does. Pages that
    /// were never written are zero.
    pub fn page(&self, pa: Pa) -> Page {
        self.hardware().cache.page(pa, Path::Cached)
    }

    /// The bytes of a page at the point of coherency: what one sees who bypasses the caches.
    pub fn memory(&self, pa: Pa) -> Page {
        self.hardware().cache.page(pa, Path::Uncached)
    }

    /// The pages of all RAM that hold these bytes, in a cache or in memory; lowest first.
    pub fn pages_with(&self, bytes: &[u8]) -> Vec<Pa> {
        self.hardware().cache.holding(bytes)
    }

    /// The frames of the pool that hold any of these bytes, in use or free; lowest first.
    pub fn frames_with(&self, wanted: &[&[u8]]) -> Vec<FrameIndex> {
        let holds = |frame: &Frame| {
            let words = || frame.0.iter().map(|word| word.load(Ordering::Relaxed));
            // Most are not in use.
            if words().all(|word| word == 0) {
                return false;
            }
            let mut content = [0; PAGE_SIZE as usize];
            for (bytes, word) in content.chunks_exact_mut(8).zip(words()) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            wanted.iter().any(|bytes| cache::holds(&content, bytes))
        };
        let holders = (0..).zip(&self.frames).filter(|(_, frame)| holds(frame));
        holders.map(|(index, _)| FrameIndex(index)).collect()
    }

    /// Changes a page of RAM behind every CPU's back, for every observer.
    pub fn edit_page(&self, pa: Pa, edit: impl FnOnce(&mut Page)) {
        let mut hardware = self.hardware();
        let mut page = hardware.cache.page(pa, Path::Cached);
        edit(&mut page);
        hardware.cache.settle(pa, &page);
    }

    /// A test that failed inside leaves the lock poisoned; what it guards is still what the next
    /// assertion should report.
    fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets another thread run while a lock is taken.
pub struct YieldThread;

impl spin::RelaxStrategy for YieldThread {
    fn relax() {
        match SCHEDULER.get() {
            Some(_) => drop(reach(Point::Wait)),
            None => std::thread::yield_now(),
        }
    }
}

/// Where another CPU may come between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A lock is about to be taken, the machine asked for something, or memory used by a VM.
    Next,
    /// A lock is another CPU's, so somebody else has to go on.
    Wait,
}

/// Whom a thread asks who goes on, when it stands for several CPUs. The answer, when it comes, is the
/// number of the CPU that asked.
pub type Scheduler = fn(Point) -> usize;

std::thread_local! {
    static LOCKS: Cell<u64> = const { Cell::new(0) };
    static SCHEDULER: Cell<Option<Scheduler>> = const { Cell::new(None) };
}

/// From now on the calling thread stands for several CPUs, of which this says who goes on; or for one.
pub fn schedule_with(scheduler: Option<Scheduler>) {
    SCHEDULER.set(scheduler);
}

/// Another CPU may come between here; says which CPU this one is.
fn reach(point: Point) -> usize {
    SCHEDULER.get().map_or(0, |scheduler| scheduler(point))
}

impl lock::Strategy for YieldThread {
    fn taken(_: Rank) {
        LOCKS.set(LOCKS.get() + 1);
    }
}

impl Machine for FakeMachine {
    type Relax = YieldThread;

    fn features(&self) -> Features {
        self.features
    }

    fn frames(&self) -> &[Frame] {
        self.frame_visits.fetch_add(1, Ordering::Relaxed);
        &self.frames
    }

    fn frames_base(&self) -> Pa {
        FRAMES_BASE
    }

    fn publish(&self) {
        reach(Point::Next);
        let mut hardware = self.hardware();
        hardware.counters.publishes += 1;
        hardware.tables.publish();
        hardware.devices.publish();
    }

    fn invalidate(&self, context: TranslationContext, scope: Scope<'_>) {
        reach(Point::Next);
        let mut hardware = self.hardware();
        hardware.counters.invalidations += 1;
        if matches!(scope, Scope::All) {
            hardware.counters.invalidations_of_all += 1;
        }
        hardware.tables.invalidate(context, scope);
        // Its barriers are for everything that this CPU has written.
        hardware.devices.publish();
    }

    fn invalidate_stream(&self, context: StreamContext, scope: Scope<'_>) {
        let mut hardware = self.hardware();
        let Hardware { tables, devices, cache, counters, .. } = &mut *hardware;
        counters.stream_invalidations += 1;
        devices.invalidate(context, scope, cache);
        devices.publish();
        tables.publish();
    }

    fn zero_page(&self, page: Pa) {
        reach(Point::Next);
        let mut hardware = self.hardware();
        hardware.counters.zeroed += 1;
        hardware.tables.check_out_of_reach(page);
        hardware.devices.check_out_of_reach(page);
        hardware.cache.settle(page, &[0; PAGE_SIZE as usize]);
    }

    fn read(&self, from: Pa, into: &mut [u8], cached: bool) {
        check_in_page(from, into.len());
        let mut hardware = self.hardware();
        if !cached {
            hardware.cache.clean_invalidate(from);
        }
        for (at, byte) in (from.0..).zip(into) {
            *byte = hardware.cache.load(Pa(at), Path::Cached);
        }
    }

    fn write(&self, to: Pa, from: &[u8], cached: bool) {
        check_in_page(to, from.len());
        let mut hardware = self.hardware();
        hardware.tables.check_out_of_reach(to);
        if !cached {
            hardware.cache.clean_invalidate(to);
        }
        for (at, byte) in (to.0..).zip(from) {
            hardware.cache.store(Pa(at), Path::Cached, *byte);
        }
        if !cached {
            hardware.cache.clean_invalidate(to);
        }
    }

    const MAY_POISON: bool = true;

    fn milliseconds(&self) -> u64 {
        self.milliseconds.fetch_add(1, Ordering::Relaxed)
    }

    fn is_sound(&self, from: Pa, pages: u64) -> bool {
        let spoiled = &self.hardware().spoiled;
        !spoiled.iter().any(|page| (from.page()..from.page() + pages).contains(&page.page()))
    }

    fn grants(&self, _: VmIndex, _: Resource) -> bool {
        let faults = &mut self.hardware().faults;
        faults.asked += 1;
        let refuses = faults.asked >= faults.first && faults.refused < faults.count;
        faults.refused += u64::from(refuses);
        !refuses
    }

    fn clean_invalidate_page(&self, page: Pa) {
        reach(Point::Next);
        let mut hardware = self.hardware();
        hardware.counters.cleaned += 1;
        hardware.cache.clean_invalidate(page);
    }

    fn interrupt(&self, vm: VmIndex, line: Line) {
        *self.hardware().interrupts.entry((vm, line)).or_default() += 1;
    }

    fn stop(&self, vm: VmIndex) {
        self.hardware().wishes.push((vm, Wish::Stop));
    }

    fn start(&self, vm: VmIndex) {
        self.hardware().wishes.push((vm, Wish::Start));
    }

    fn held_ranks(&self) -> &AtomicU64 {
        std::thread_local! {
            // Words for the CPUs of each thread of the tests, for as long as they run.
            static RANKS: &'static [AtomicU64; 8] =
                Box::leak(Box::new([const { AtomicU64::new(0) }; 8]));
        }
        let cpu = reach(Point::Next);
        RANKS.with(|ranks| &ranks[cpu])
    }

    fn table_write(&self, frame: FrameIndex, entry: usize, old: u64, new: u64) {
        let hardware = &mut *self.hardware();
        hardware.counters.table_writes += 1;
        match hardware.devices.stream_of(frame) {
            Some(stream) => {
                hardware.devices.write(&self.frames, (stream, frame), entry, (old, new));
            }
            None => hardware.tables.write(&self.frames, frame, entry, (old, new)),
        }
    }

    fn frame_use(&self, frame: FrameIndex, user: Option<FrameUse>) {
        let mut hardware = self.hardware();
        match user {
            Some(FrameUse::StreamTable(stream)) => hardware.devices.take(frame, stream),
            Some(user) => hardware.tables.take(frame, user),
            None if hardware.devices.put(&self.frames, frame) => {}
            None => hardware.tables.put(&self.frames, frame),
        }
    }
}

fn check_in_page(at: Pa, length: usize) {
    let room = PAGE_SIZE - at.0 % PAGE_SIZE;
    assert!(
        length as u64 <= room,
        "the manager copies {length} bytes at {at:?}, over a page's end"
    );
}

#[cfg(test)]
mod tests;
