//! Two vCPUs interrupt each other: asleep, awake, and by an SPI that goes to one of them only.
//!
//! Cast: one VM with two vCPUs on two CPUs. Nothing here asks for a hypervisor.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::gic::SPI_RX;
use crate::{cpu, gic, timer};

const ROUNDS: u32 = 100;
/// The software interrupts to the second vCPU and back.
const PING: u32 = 2;
const PONG: u32 = 3;
/// Microseconds after which an interrupt counts as lost.
const LOST: u64 = 10_000_000;

/// How far the two are.
static STAGE: AtomicU32 = AtomicU32::new(0);
const READY: u32 = 1;
const AWAKE: u32 = 2;
const DONE: u32 = 3;

/// What the first vCPU does.
pub fn first() {
    gic::enable();
    gic::unmask(PONG);
    cpu::unmask_interrupts();
    until("the second vCPU is there", || STAGE.load(Ordering::Acquire) == READY);
    for round in 1..=ROUNDS {
        gic::send(PING, 1);
        sleep_until_taken(PONG, round);
    }
    println!("{ROUNDS} interrupts went to a sleeping vCPU and back");

    STAGE.store(AWAKE, Ordering::Release);
    for round in 1..=ROUNDS {
        gic::send(PING, 1);
        until("the peer takes an interrupt", || gic::taken(PING) == ROUNDS + round);
    }
    println!("{ROUNDS} interrupts reached a vCPU in an endless loop");

    // Only the second vCPU can take it.
    cpu::mask_interrupts();
    for round in 1..=ROUNDS {
        gic::pend(SPI_RX);
        until("the peer takes its SPI", || gic::taken(SPI_RX) == round);
    }
    STAGE.store(DONE, Ordering::Release);
    println!("{ROUNDS} interrupts went where they are routed");
}

/// What the second vCPU does.
pub fn second() {
    gic::enable();
    gic::unmask(PING);
    gic::unmask(SPI_RX);
    cpu::unmask_interrupts();
    STAGE.store(READY, Ordering::Release);
    for round in 1..=ROUNDS {
        sleep_until_taken(PING, round);
        gic::send(PONG, 0);
    }
    while STAGE.load(Ordering::Acquire) != DONE {}
}

/// Sleeps until `interrupt` was taken `times` times. It cannot slip in between the look and the sleep,
/// because a masked interrupt ends the sleep too.
fn sleep_until_taken(interrupt: u32, times: u32) {
    cpu::mask_interrupts();
    while gic::taken(interrupt) < times {
        cpu::wait_for_interrupt();
        cpu::unmask_interrupts();
        cpu::isb();
        cpu::mask_interrupts();
    }
    cpu::unmask_interrupts();
}

/// Waits without a pause.
fn until(what: &str, is_true: impl Fn() -> bool) {
    let start = cpu::now();
    while !is_true() {
        assert!(!cpu::passed(start, timer::microseconds(LOST)), "lost: {what}");
    }
}
