//! What calls cost, counted in instructions.
//!
//! The emulator runs one instruction per nanosecond and the counter ticks at 1 GHz, so the difference
//! of two readings is a number of instructions, the same in every run. Cast: `bench_a` and `bench_b` as
//! first and second VM, on one CPU, linked, with [`BENCH_MEMORY`](crate::layout::BENCH_MEMORY) each.
//!
//! A line `BENCH <name> <instructions>` per result. Every case runs `ROUNDS` times after one that
//! does not count, and the median is told. The borrower measures its part itself; who waits, sleeps.

pub mod a;
pub mod b;
mod bells;
mod mailbox;

use core::arch::asm;

use rm_client::hvc::{Hvc, HvcQueues, Native};
use rm_client::{Poll, Queues, Session};

use crate::cpu;

/// Rounds that count.
pub(crate) const ROUNDS: usize = 7;
/// Ticks that a waiting side sleeps: longer than any call takes, and not multiples of each other, so
/// that the wake-up of one side falls into a measurement of the other in few rounds.
pub(crate) const NAP_A: u64 = 11_000_000;
pub(crate) const NAP_B: u64 = 7_000_000;
/// A session that can name 512 ranges.
pub(crate) type LongSession = Session<Hvc, 8704>;
/// A session over the message queues that asks until there is an answer.
pub(crate) type QueueSession = Session<HvcQueues<Poll>>;

/// The words with which A starts a case, and ends the bench.
pub(crate) const PIECEWISE: u64 = 1;
pub(crate) const CONTIGUOUS: u64 = 2;
pub(crate) const QUEUED: u64 = 3;
pub(crate) const NOTICES: u64 = 4;
pub(crate) const BELLS: u64 = 5;
pub(crate) const END: u64 = 6;

/// What A fills pages with, and B.
pub(crate) const FROM_A: u64 = 0xa;
pub(crate) const FROM_B: u64 = 0xb;

pub(crate) fn long_session() -> LongSession {
    Session::with_capacity(rm_client::Direct(Native))
}

pub(crate) fn queue_session() -> QueueSession {
    Session::new(Queues::new(Native, Poll))
}

/// Counts the instructions of `work`, the two readings included in neither.
pub(crate) fn count<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let start = cpu::now();
    let value = work();
    (cpu::now() - start, value)
}

/// What one of many short calls in a row costs, loop included.
pub(crate) fn measure(mut work: impl FnMut()) -> u64 {
    const CALLS: u64 = 100;
    let mut counts = [0; ROUNDS];
    work();
    for slot in &mut counts {
        *slot = count(|| (0..CALLS).for_each(|_| work())).0 / CALLS;
    }
    median(counts)
}

/// The middle one: a round that another VM's time slice fell into does not count.
pub(crate) fn median(mut counts: [u64; ROUNDS]) -> u64 {
    counts.sort_unstable();
    counts[ROUNDS / 2]
}

/// Runs a loop of two instructions.
pub(crate) fn spin(rounds: u64) {
    // SAFETY: changes the register it declares.
    unsafe { asm!("1: subs {0}, {0}, #1", "b.ne 1b", inout(reg) rounds => _) };
}
