//! How long the resource manager's locks are held, in an image that is made to measure it.

use core::sync::atomic::{AtomicU64, Ordering};

use rm::lock::{Rank, Strategy};

use crate::{Relax, cpu, timer};

/// The ranks that there are.
const RANKS: usize = Rank::VirtualGic as usize + 1;

/// What one CPU holds and has held. Only that CPU writes it.
struct Holds {
    /// When it got the lock of each rank.
    since: [AtomicU64; RANKS],
    longest: AtomicU64,
}

static HOLDS: [Holds; cpu::MAX_CPUS] =
    [const { Holds { since: [const { AtomicU64::new(0) }; RANKS], longest: AtomicU64::new(0) } };
        cpu::MAX_CPUS];

impl Strategy for Relax {
    #[inline]
    fn taken(rank: Rank) {
        HOLDS[cpu::current().index].since[rank as usize].store(timer::now(), Ordering::Relaxed);
    }

    #[inline]
    fn freed(rank: Rank) {
        let holds = &HOLDS[cpu::current().index];
        let ticks = timer::now() - holds.since[rank as usize].load(Ordering::Relaxed);
        if ticks > holds.longest.load(Ordering::Relaxed) {
            holds.longest.store(ticks, Ordering::Relaxed);
        }
    }
}

/// Forgets what was held while the system was built: nobody waits then.
pub(crate) fn start() {
    HOLDS.iter().for_each(|holds| holds.longest.store(0, Ordering::Relaxed));
}

/// The longest hold of any lock on any CPU, in ticks.
pub(crate) fn longest() -> u64 {
    HOLDS.iter().map(|holds| holds.longest.load(Ordering::Relaxed)).max().unwrap_or(0)
}
