//! What is counted of a VM and kept nowhere else.
//!
//! A counter is a load and a store: the lock that its event holds anyway keeps two of one VM apart.

use core::sync::atomic::{AtomicU64, Ordering};

/// A count that only rises.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more. A lock keeps others from counting at the same time.
    #[inline]
    pub(crate) fn raise(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// One more, whoever else counts.
    pub(crate) fn raise_shared(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one VM, since boot.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Requests; under the VM's slot lock.
    pub(crate) calls: Count,
    /// Refused ones; under the lock of its last refusals.
    pub(crate) refusals: Count,
    /// Pages zeroed for its parcels, by whatever CPU.
    pub(crate) zeroed: Count,
    /// Pages cleaned for its devices and its CPU accesses, by whatever CPU.
    pub(crate) cleaned: Count,
}

impl Counts {
    pub(crate) const fn new() -> Self {
        Self {
            calls: Count::new(),
            refusals: Count::new(),
            zeroed: Count::new(),
            cleaned: Count::new(),
        }
    }
}
