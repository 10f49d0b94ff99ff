//! Doorbells: each VM sleeps on the one CPU until the other rings, so a round is two calls to ring, two
//! to read, and a switch to B and back.

use super::{BELLS, ROUNDS, count, median};
use crate::channel::Channel;
use crate::demo::DONE;
use crate::doorbells::{BELL, read, ring, sleep_until_rung};
use crate::{cpu, gic};

/// A's half.
pub(super) fn ping(b: &Channel) -> u64 {
    b.say(BELLS);
    answer_bells();
    b.expect(DONE);
    let mut times = 0;
    let mut round = || {
        times += 1;
        ring(1);
        sleep_until_rung(times);
        read()
    };
    round();
    let rounds = [(); ROUNDS].map(|()| count(&mut round).0);
    ignore_bells();
    median(rounds)
}

/// B's half.
pub(super) fn pong(a: &Channel) {
    answer_bells();
    a.say(DONE);
    for times in 0..=ROUNDS as u32 {
        sleep_until_rung(times + 1);
        read();
        ring(1);
    }
    ignore_bells();
}

fn answer_bells() {
    gic::enable();
    gic::unmask(BELL);
    cpu::unmask_interrupts();
}

fn ignore_bells() {
    cpu::mask_interrupts();
    gic::mask(BELL);
}
