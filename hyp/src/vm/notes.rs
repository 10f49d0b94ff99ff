//! How often one VM may make EL2 log something.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Messages a second and VM.
const RATE: u32 = 8;

/// What was logged for one VM in the second that runs. Counts may be off by one when two CPUs log at
/// once; that costs a message or hides one.
#[derive(Debug)]
pub(super) struct Notes {
    second: AtomicU64,
    logged: AtomicU32,
    suppressed: AtomicU32,
}

/// Whether a message is logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is; so many before it were not.
    Log { suppressed: u32 },
    /// It is only counted.
    Suppress,
}

impl Notes {
    pub(super) const fn new() -> Self {
        Self { second: AtomicU64::new(0), logged: AtomicU32::new(0), suppressed: AtomicU32::new(0) }
    }

    /// Decides about a message at `now`, of a counter that makes `frequency` ticks a second.
    pub(super) fn allow(&self, now: u64, frequency: u64) -> Verdict {
        let second = now / frequency.max(1);
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.logged.store(0, Ordering::Relaxed);
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) < RATE {
            let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
            return Verdict::Log { suppressed };
        }
        self.logged.store(RATE, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        Verdict::Suppress
    }
}
