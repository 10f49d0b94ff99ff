//! How often one VM may make EL2 log something.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Messages a second and VM.
const RATE: u32 = 8;

/// What was logged for one VM in the second that runs. Counts may be off by one when two CPUs log at
/// once; that costs a message or hides one.
#[derive(Debug)]
pub(crate) struct Notes {
    second: AtomicU64,
    logged: AtomicU32,
    suppressed: AtomicU32,
}

/// Whether a message is logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is; so many before it were not.
    Log { suppressed: u32 },
    /// It is only counted.
    Suppress,
}

impl Notes {
    pub(crate) const fn new() -> Self {
        Self { second: AtomicU64::new(0), logged: AtomicU32::new(0), suppressed: AtomicU32::new(0) }
    }

    /// Decides about a message at `now`, of a counter that makes `frequency` ticks a second.
    pub(crate) fn allow(&self, now: u64, frequency: u64) -> Verdict {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    #[test]
    fn a_flood_is_logged_a_few_times_a_second_and_then_counted() {
        let notes = Notes::new();
        let logged = (0..100).filter(|_| notes.allow(5, SECOND) != Verdict::Suppress).count();
        assert_eq!(logged, RATE as usize);
        assert_eq!(notes.allow(5 + SECOND, SECOND), Verdict::Log { suppressed: 100 - RATE });
        assert_eq!(notes.allow(5 + SECOND, SECOND), Verdict::Log { suppressed: 0 });
    }

    #[test]
    fn a_flood_that_never_stops_never_starves_the_log_for_good() {
        let notes = Notes::new();
        let logged = (0..10 * SECOND).filter(|&now| notes.allow(now, SECOND) != Verdict::Suppress);
        assert_eq!(logged.count(), 10 * RATE as usize);
    }
}
