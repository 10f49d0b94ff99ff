//! Devices behind an SMMU, one tree and one IOTLB for each stream.
//!
//! The SMMU believes as little as the CPUs do: whatever was once valid in a stream's tree is cached until an
//! invalidation of that stream covers it, what was not published is not seen, and a table that a cached walk
//! leads to must not be freed. A device's write may be under way for any time: it was translated, and lands
//! when an invalidation waits for it, or later than anybody would like.
//!
//! No machine of the boards has an SMMU, so this is where it is shown that DMA follows the CPU's rights.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::cache::{Cache, Path};
use super::decode::Translation;
use super::tables::Tables;
use super::{FakeMachine, Hardware};
use crate::address::{Ipa, PAGE_SIZE, Pa, TlbTag};
use crate::machine::{
    DeviceFault, Direction, Features, Frame, FrameIndex, FrameUse, Scope, Stream, StreamContext,
    TranslationContext,
};

/// Every stream has tables to itself, so one tag will do.
const TAG: TlbTag = TlbTag(0);

/// A write that was translated and has not landed.
struct Posted {
    pa: Pa,
    path: Path,
    value: u8,
}

/// What the SMMU has of one stream.
struct Unit {
    tables: Tables,
    posted: Vec<Posted>,
}

/// All streams.
pub(super) struct Devices {
    base: Pa,
    units: BTreeMap<Stream, Unit>,
    /// Which stream's table each frame is.
    frames: BTreeMap<FrameIndex, Stream>,
}

impl Devices {
    pub(super) fn new(base: Pa) -> Self {
        Self { base, units: BTreeMap::new(), frames: BTreeMap::new() }
    }

    /// The stream whose table a frame is.
    pub(super) fn stream_of(&self, frame: FrameIndex) -> Option<Stream> {
        self.frames.get(&frame).copied()
    }

    fn unit(&mut self, stream: Stream) -> &mut Unit {
        let base = self.base;
        // In a stream's tree stage 2 forces nothing.
        let unit = || Unit { tables: Tables::new(Features::default(), base), posted: Vec::new() };
        self.units.entry(stream).or_insert_with(unit)
    }

    pub(super) fn take(&mut self, frame: FrameIndex, stream: Stream) {
        self.frames.insert(frame, stream);
        self.unit(stream).tables.take(frame, FrameUse::Table(TAG));
    }

    /// A frame returns to the pool; `false` if it was no stream's.
    pub(super) fn put(&mut self, frames: &[Frame], frame: FrameIndex) -> bool {
        let Some(stream) = self.frames.remove(&frame) else { return false };
        self.unit(stream).tables.put(frames, frame);
        true
    }

    pub(super) fn write(
        &mut self,
        frames: &[Frame],
        (stream, frame): (Stream, FrameIndex),
        entry: usize,
        (old, new): (u64, u64),
    ) {
        assert!(new & 3 != 1, "{stream:?} is given a block, {new:#x}, and its tree has pages only");
        self.unit(stream).tables.write(frames, frame, entry, (old, new));
    }

    pub(super) fn publish(&mut self) {
        self.units.values_mut().for_each(|unit| unit.tables.publish());
    }

    /// The translations go, and what was translated by them has landed.
    pub(super) fn invalidate(
        &mut self,
        context: StreamContext,
        scope: Scope<'_>,
        cache: &mut Cache,
    ) {
        let StreamContext { stream, root } = context;
        let unit = self.unit(stream);
        unit.tables.invalidate(TranslationContext { tag: TAG, root }, scope);
        unit.land(cache);
    }

    /// A page is about to get new content that no device with an old translation may meet or change.
    pub(super) fn check_out_of_reach(&self, page: Pa) {
        for (stream, unit) in &self.units {
            unit.tables.check_out_of_reach(page);
            let late = unit.posted.iter().any(|posted| posted.pa.page() == page.page());
            assert!(!late, "G5: {page:?} is zeroed while a write of {stream:?} to it is under way");
        }
    }

    /// Between two steps nothing is stale and nothing unseen.
    pub(super) fn check_settled(&self) {
        self.units.values().for_each(|unit| unit.tables.check_settled());
    }

    /// All pages that a stream reaches.
    pub(super) fn leaves(&self, frames: &[Frame], stream: Stream) -> Vec<(u64, Translation)> {
        let leaves = self.units.get(&stream).map(|unit| unit.tables.leaves(frames));
        leaves.unwrap_or_default()
    }
}

impl Unit {
    fn land(&mut self, cache: &mut Cache) {
        for Posted { pa, path, value } in self.posted.drain(..) {
            cache.store(pa, path, value);
        }
    }
}

/// A page that a device reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePage {
    /// Where the device finds it.
    pub at: Ipa,
    /// Which page it is.
    pub pa: Pa,
    /// What the device may do.
    pub direction: Direction,
    /// As far as the tree is concerned it is write-back.
    pub is_cached: bool,
}

/// A device that does as it likes.
#[derive(Clone, Copy)]
pub struct FakeDevice<'m> {
    machine: &'m FakeMachine,
    stream: Stream,
    is_coherent: bool,
}

impl<'m> FakeDevice<'m> {
    pub(super) const fn new(machine: &'m FakeMachine, stream: Stream, is_coherent: bool) -> Self {
        Self { machine, stream, is_coherent }
    }

    /// Reads a byte of memory.
    pub fn read(&self, at: Ipa) -> Result<u8, DeviceFault> {
        self.access(at, Direction::ToDevice, |hardware, pa, path| hardware.cache.load(pa, path))
    }

    /// Writes a byte of memory.
    pub fn write(&self, at: Ipa, value: u8) -> Result<(), DeviceFault> {
        self.access(at, Direction::FromDevice, |hardware, pa, path| {
            hardware.cache.store(pa, path, value);
        })
    }

    /// Begins to write a byte, which lands when somebody waits for it ([`FakeDevice::land`], or an
    /// invalidation).
    pub fn post(&self, at: Ipa, value: u8) -> Result<(), DeviceFault> {
        self.access(at, Direction::FromDevice, |hardware, pa, path| {
            hardware.devices.unit(self.stream).posted.push(Posted { pa, path, value });
        })
    }

    /// Lets all writes arrive that are under way. Those of which an invalidation has waited are not.
    pub fn land(&self) {
        let mut hardware = self.machine.hardware();
        let Hardware { devices, cache, .. } = &mut *hardware;
        devices.unit(self.stream).land(cache);
    }

    /// Everything that it reaches, lowest first.
    pub fn pages(&self) -> Vec<DevicePage> {
        self.machine.device_pages(self.stream)
    }

    fn access<T>(
        &self,
        at: Ipa,
        direction: Direction,
        touch: impl FnOnce(&mut Hardware, Pa, Path) -> T,
    ) -> Result<T, DeviceFault> {
        let fault = DeviceFault { stream: self.stream, at, direction };
        let mut hardware = self.machine.hardware();
        let tables = &hardware.devices.unit(self.stream).tables;
        let found = tables.translate(&self.machine.frames, TAG.0, at.page()).ok_or(fault)?;
        assert!(!found.execute, "G3: {at:?} is mapped for {:?} to execute", self.stream);
        let allowed = match direction {
            Direction::ToDevice => found.read,
            Direction::FromDevice => found.write,
            Direction::Bidirectional => found.read && found.write,
        };
        if !allowed {
            return Err(fault);
        }
        let pa = Pa(found.pa.0 + at.0 % PAGE_SIZE);
        // A device that does not look into the caches bypasses them whatever the descriptor says.
        let path = found.path(if self.is_coherent { Path::Cached } else { Path::Uncached });
        Ok(touch(&mut hardware, pa, path))
    }
}

/// What a translation is to people.
pub(super) fn page(at: u64, leaf: &Translation) -> DevicePage {
    let direction = match (leaf.read, leaf.write) {
        (true, false) => Direction::ToDevice,
        (false, true) => Direction::FromDevice,
        (true, true) => Direction::Bidirectional,
        (false, false) => panic!("G3: a page is mapped for a device that may do nothing with it"),
    };
    DevicePage { at: Ipa::of_page(at), pa: leaf.pa, direction, is_cached: leaf.is_write_back() }
}

#[cfg(test)]
mod tests;
