//! A VM that does anything, at random and on two vCPUs at once, while two others share memory.
//!
//! Cast: this program as third VM, linked with the first, which plays [`steady`](crate::steady). Each vCPU
//! makes `STEPS` steps: hypercalls of any number, requests that are half right, packets that do not fit
//! together, accesses to any address, registers and instructions that a VM does not have. It uses handles
//! that it was told, that it sees posted and that there are none of, and both vCPUs write into both's
//! messages while they are on their way.
//!
//! What comes of a step is not looked at, as long as the program goes on: an answer, an abort, an undefined
//! instruction. It is left to the two others, to the hypervisor's own checks and to the count of pages at the
//! end to say that no harm was done. What the program must not do lest it end itself is in `spared`.

mod choice;
mod machine;
mod mailbox;
mod request;
mod spared;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rm_client::Handle;

use crate::channel::Channel;
use crate::cpu;
use crate::layout::LINK_AC;
use crate::random::{Random, SEED};
use crate::steady::BEGIN;

/// What each vCPU does.
const STEPS: u64 = 8_000;
/// Whose numbers these are, beside those of the other programs.
const WHO: u64 = 0x31d0;

/// Handles that notices have named. What one vCPU knows, the other does.
static SEEN: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
/// Handles of the latest parcels that the VM has made.
static MADE: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
/// The latest offer: what MEM_SHARED begins with, that is handle, kind of memory, transfer.
static OFFERED: AtomicU64 = AtomicU64::new(0);
/// The second vCPU may begin.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// Parcels that the second vCPU has accepted.
static ACCEPTED: AtomicU32 = AtomicU32::new(0);
/// The second vCPU has made all its steps.
static SECOND_IS_DONE: AtomicBool = AtomicBool::new(false);

/// One vCPU's part.
struct Wild {
    random: Random,
    vcpu: usize,
    counts: Counts,
}

/// What happened.
#[derive(Default, Debug)]
struct Counts {
    /// Requests that were answered, and those of them that were granted.
    answered: u32,
    granted: u32,
    /// Parcels made, taken back, and accepted.
    made: u32,
    reclaimed: u32,
    accepted: u32,
    /// Packets that were taken by the queue, and that came.
    sent: u32,
    received: u32,
    /// Accesses and instructions that were refused, and that were not.
    refused: u32,
    done: u32,
}

/// What the first vCPU does.
pub fn first() {
    println!("the seed is {SEED}");
    Channel::peer(LINK_AC).expect(BEGIN);
    BEGUN.store(true, Ordering::Release);
    let accepted = run(0);
    while !SECOND_IS_DONE.load(Ordering::Acquire) {
        cpu::relax();
    }
    let accepted = accepted + ACCEPTED.load(Ordering::Relaxed);
    assert!(accepted > 0, "none of the parcels that the others offer was accepted");
    println!("I go, with what I have");
}

/// What the second vCPU does.
pub fn second() {
    while !BEGUN.load(Ordering::Acquire) {
        cpu::relax();
    }
    ACCEPTED.store(run(1), Ordering::Relaxed);
    SECOND_IS_DONE.store(true, Ordering::Release);
}

/// Makes all steps; how many parcels were accepted.
fn run(vcpu: usize) -> u32 {
    let random = Random::of(WHO + vcpu as u64);
    let mut wild = Wild { random, vcpu, counts: Counts::default() };
    for _ in 0..STEPS {
        wild.step();
    }
    let counts = &wild.counts;
    println!("vCPU {vcpu} made {STEPS} steps: {counts:?}");
    let all_came_up = [counts.made, counts.reclaimed, counts.sent, counts.received];
    assert!(all_came_up.iter().all(|count| *count > 0), "some steps never did anything");
    counts.accepted
}

impl Wild {
    fn step(&mut self) {
        match self.random.below(16) {
            0..=1 => self.any_hypercall(),
            2..=5 => self.call_directly(),
            6..=7 => self.send(),
            8..=9 => self.receive(),
            10..=12 => self.access_memory(),
            13 => self.fetch(),
            14 => self.use_register(),
            _ => self.scribble(),
        }
    }

    /// Remembers a handle that a notice has named.
    fn remember(&mut self, handle: Handle) {
        self.random.one_of(&SEEN.each_ref()).store(handle.0, Ordering::Relaxed);
    }

    /// Remembers the handle of a parcel that was made, in place of an old one.
    fn keep(&self, handle: Handle) {
        let place = 2 * self.counts.made as usize + self.vcpu;
        MADE[place % MADE.len()].store(handle.0, Ordering::Relaxed);
    }
}
