//! The one place that names a lock.
//!
//! A lock has a rank, and a CPU takes locks in ascending ranks only, so no two CPUs can wait for each
//! other. Two locks of one rank are taken in ascending order of their owner's index ([`Rank::Vm`]
//! only). Debug builds assert it at every acquisition.
//!
//! Who wants to know how long locks are held watches them through [`Strategy`].

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

use spin::RelaxStrategy;
use spin::mutex::{TicketMutex, TicketMutexGuard};

use crate::machine::Machine;

/// The locking order of the crate, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// A VM's operation slot.
    Slot,
    /// A parcel's record.
    Parcel,
    /// A VM's stage-2 tree. Two of them: ascending VM index.
    Vm,
    /// A device's tree.
    Stream,
    /// A VM's free handles and records.
    Account,
    /// Which pages of a heap are taken.
    Heap,
    /// The frame pool.
    FramePool,
    /// A VM's message queues and waiting notices.
    Queue,
    /// Why a VM's last calls were refused.
    Refusals,
    /// A doorbell.
    Doorbell,
    /// A VM's interrupt controller.
    VirtualGic,
}

/// How a CPU waits for a lock, and who watches that locks are held for a short time only. Nobody does
/// by default, which costs nothing.
pub trait Strategy: RelaxStrategy {
    /// The calling CPU has got a lock of this rank. The second lock of a pair is not told of: the
    /// first outlasts it.
    fn taken(rank: Rank) {
        let _ = rank;
    }

    /// The calling CPU is about to free it.
    fn freed(rank: Rank) {
        let _ = rank;
    }
}

impl Strategy for spin::Spin {}

/// A value that one CPU at a time may use, first come, first served. `R` is what a waiting CPU does
/// between two looks ([`Machine::Relax`]).
pub struct Lock<T, R> {
    rank: Rank,
    inner: TicketMutex<T, R>,
}

impl<T, R: Strategy> Lock<T, R> {
    /// A free lock of the given rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: TicketMutex::new(value) }
    }

    /// Waits for the value. `machine` knows, for debug builds, which ranks this CPU already holds.
    pub fn lock<'a, M: Machine<Relax = R>>(&'a self, machine: &'a M) -> Guard<'a, T, R> {
        let held = machine.held_ranks();
        if cfg!(debug_assertions) {
            let ranks = held.load(Ordering::Relaxed);
            let bit = 1 << self.rank as u8;
            assert!(
                ranks < bit,
                "lock order: {:?} wanted while ranks {ranks:#b} are held",
                self.rank
            );
            held.store(ranks | bit, Ordering::Relaxed);
        }
        let inner = self.inner.lock();
        R::taken(self.rank);
        Guard { held, rank: self.rank, inner, _cpu: PhantomData }
    }
}

impl<T, R> fmt::Debug for Lock<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// Shows that the lock is held; frees it when dropped.
pub struct Guard<'a, T, R: Strategy> {
    /// Where this CPU notes the ranks it holds.
    held: &'a AtomicU64,
    rank: Rank,
    inner: TicketMutexGuard<'a, T, R>,
    /// A guard stays on the CPU that took it.
    _cpu: PhantomData<*const ()>,
}

impl<T, R: Strategy> Deref for Guard<'_, T, R> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T, R: Strategy> DerefMut for Guard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T, R: Strategy> Drop for Guard<'_, T, R> {
    fn drop(&mut self) {
        R::freed(self.rank);
        if cfg!(debug_assertions) {
            self.held.fetch_and(!(1 << self.rank as u8), Ordering::Relaxed);
        }
    }
}
