//! Two VMs on one CPU that never wait: each gets its share, and its timer interrupts.
//!
//! Cast: this program as first and second VM, on the same CPU, linked.

use rm_client::Vmid;

use crate::layout::{LINK_AB, VMID_A};
use crate::{cpu, demo, gic, life, memory, timer};

/// Turns that the peer must be seen to have had.
const TURNS: u64 = 10;
/// Timer interrupts that must arrive meanwhile.
const TICKS: u32 = 10;
/// Seconds after which the peer or the timer counts as starved.
const PATIENCE: u64 = 60;

/// Offsets of the counters on the linked page, behind the channel's words.
pub(crate) const COUNTERS: [u64; 2] = [0x400, 0x440];
/// The word behind a counter: its VM has seen enough.
const SATISFIED: u64 = 8;

/// The page as this VM has it, and which of the counters is its own.
pub(crate) fn page_and_role() -> (u64, usize) {
    match demo::granted("asking who I am", life::session().vmid()) {
        Vmid(VMID_A) => (LINK_AB.owner, 0),
        _ => (LINK_AB.peer, 1),
    }
}

/// Holds something, round by round, while the peer does the same, until both have seen the other have its
/// turns meanwhile; how many this one saw. It fails after `most` rounds.
pub(crate) fn outlive(page: u64, role: usize, most: u64, mut hold: impl FnMut(u64)) -> u64 {
    let (mine, theirs) = (page + COUNTERS[role], page + COUNTERS[1 - role]);
    let (mut turns, mut holds) = (0, 0);
    while memory::read(mine + SATISFIED) == 0 || memory::read(theirs + SATISFIED) == 0 {
        let before = memory::read(theirs);
        hold(holds);
        turns += u64::from(memory::read(theirs) != before);
        holds += 1;
        memory::write(mine, holds);
        if turns >= TURNS {
            memory::write(mine + SATISFIED, 1);
        }
        assert!(holds < most, "the peer had only {turns} turns");
    }
    turns
}

/// The program.
pub fn main() {
    let (page, role) = page_and_role();
    let (mine, theirs) = (page + COUNTERS[role], page + COUNTERS[1 - role]);
    gic::enable();
    gic::unmask(timer::INTERRUPT);
    cpu::unmask_interrupts();
    let start = cpu::now();
    let (mut turns, mut seen, mut armed) = (0, memory::read(theirs), None);
    // Also when satisfied it stays busy until the peer is: nobody gets the CPU as a present.
    while memory::read(mine + SATISFIED) == 0 || memory::read(theirs + SATISFIED) == 0 {
        memory::write(mine, memory::read(mine) + 1);
        let now = memory::read(theirs);
        turns += u64::from(now != seen);
        seen = now;
        let ticks = gic::taken(timer::INTERRUPT);
        if armed != Some(ticks) {
            armed = Some(ticks);
            timer::after(timer::microseconds(500));
        }
        if turns >= TURNS && ticks >= TICKS {
            memory::write(mine + SATISFIED, 1);
        }
        let late = cpu::passed(start, PATIENCE * cpu::frequency());
        assert!(!late, "starved: the peer had {turns} turns, {ticks} timer interrupts came");
    }
    timer::stop();
    println!("the peer had {turns} turns beside my endless loop");
}
