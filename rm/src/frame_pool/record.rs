//! What is known of a frame that is a translation table.
//!
//! The record stands beside the pool and not in the table, whose 512 words all belong to the
//! hardware. It is read and written only under the lock of the VM that owns the table; its fields are
//! atomics so that all records can be one shared slice without `unsafe`.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::address::Pa;
use crate::machine::FrameIndex;

/// No block was cut into this table. One is no address of a leaf, and stays none when multiples of a
/// page are added.
const NO_HOME: u64 = 1;
/// The end of a list.
const NOBODY: u32 = u32::MAX;

/// The record of one frame.
#[derive(Default)]
pub struct FrameRecord {
    /// Where the table's entries point while nothing has changed since a block was cut.
    home: AtomicU64,
    /// First guest page that the table translates.
    first_page: AtomicU32,
    next: AtomicU32,
    previous: AtomicU32,
    /// Entries that are not Absent.
    uses: AtomicU16,
    /// Entries that differ from a plain OWNED leaf at `home` + index x entry size, and are no
    /// mergeable table with its home there. Meaningless without a home.
    deviants: AtomicU16,
    level: AtomicU8,
    listed: AtomicBool,
}

impl FrameRecord {
    /// The record of an empty table of `level` that translates from `first_page` on.
    pub(crate) fn adopt(&self, level: u32, first_page: u64) {
        self.home.store(NO_HOME, Ordering::Relaxed);
        self.first_page.store(first_page as u32, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        self.set_counts(0, 0);
        self.listed.store(false, Ordering::Relaxed);
    }

    /// The table was just cut from the block at `home`: all entries in use, none deviates.
    pub(crate) fn set_home(&self, home: Pa) {
        self.home.store(home.0, Ordering::Relaxed);
        self.set_counts(512, 0);
    }

    /// Where entry 0 is at home, as a descriptor's address field; never an address if the table has
    /// no home.
    #[inline]
    pub(crate) fn home_bits(&self) -> u64 {
        self.home.load(Ordering::Relaxed)
    }

    /// Where the table was cut from.
    pub(crate) fn home(&self) -> Option<Pa> {
        Some(self.home_bits()).filter(|&home| home != NO_HOME).map(Pa)
    }

    #[inline]
    pub(crate) fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed).into()
    }

    #[inline]
    pub(crate) fn deviants(&self) -> u32 {
        self.deviants.load(Ordering::Relaxed).into()
    }

    #[inline]
    pub(crate) fn set_counts(&self, uses: u32, deviants: u32) {
        debug_assert!(uses <= 512 && deviants <= 512, "G8: a table has 512 entries");
        self.uses.store(uses as u16, Ordering::Relaxed);
        self.deviants.store(deviants as u16, Ordering::Relaxed);
    }

    /// Whether the table says no more than the block it was cut from did.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.deviants() == 0 && self.home_bits() != NO_HOME
    }

    pub(crate) fn level(&self) -> u32 {
        self.level.load(Ordering::Relaxed).into()
    }

    pub(crate) fn first_page(&self) -> u64 {
        self.first_page.load(Ordering::Relaxed).into()
    }

    /// Whether the record is in its VM's list of mergeable tables.
    #[inline]
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_listed(&self, listed: bool) {
        self.listed.store(listed, Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> Option<FrameIndex> {
        link(&self.next)
    }

    pub(crate) fn set_next(&self, next: Option<FrameIndex>) {
        self.next.store(next.map_or(NOBODY, |frame| frame.0), Ordering::Relaxed);
    }

    pub(crate) fn previous(&self) -> Option<FrameIndex> {
        link(&self.previous)
    }

    pub(crate) fn set_previous(&self, previous: Option<FrameIndex>) {
        self.previous.store(previous.map_or(NOBODY, |frame| frame.0), Ordering::Relaxed);
    }
}

fn link(field: &AtomicU32) -> Option<FrameIndex> {
    Some(field.load(Ordering::Relaxed)).filter(|&index| index != NOBODY).map(FrameIndex)
}
