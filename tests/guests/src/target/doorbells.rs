//! Two VMs that ring each other's doorbells.
//!
//! Cast: this program as first and second VM, linked: each has the first doorbell of the channel. They
//! sleep until they are rung, and take turns.

use rm_abi::hypercall::{
    DOORBELL_MASK, DOORBELL_RECEIVE, DOORBELL_RESET, DOORBELL_SEND, MSGQUEUE_FLUSH,
    MSGQUEUE_RECEIVE, MSGQUEUE_SEND,
};
use rm_abi::{Capability, HypercallError};

use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{LINK_AB, VMID_A};
use crate::queues::call::{FORMS, Form, call};
use crate::{cpu, gic, hvc_immediate, life};

/// Rounds of ping and pong.
const ROUNDS: u32 = 200;
/// The interrupt of the first doorbell.
pub(crate) const BELL: u32 = gic::SPI_DOORBELLS;
const ALL: u64 = u64::MAX;
const OK: u64 = HypercallError::OK as u64;

/// The program.
pub fn main() {
    gic::enable();
    gic::unmask(BELL);
    cpu::unmask_interrupts();
    let me = granted("asking who I am", life::session().vmid());
    if me.0 == VMID_A {
        first(&Channel::owner(LINK_AB))
    } else {
        second(&Channel::peer(LINK_AB))
    }
    println!("{ROUNDS} rounds of ping and pong, each woken by its doorbell");
}

fn first(b: &Channel) {
    b.expect(1);
    for round in 0..ROUNDS {
        assert!(ring(1 << (round % 64)) == 0, "B has read everything");
        sleep_until_rung(round + 1);
        assert!(read() == 1 << (round % 64));
    }
    // B masks all but one flag: the others wait without an interrupt.
    b.say(2);
    b.expect(3);
    assert!(ring(0b0100) == 0 && ring(0b1000) == 0b0100);
    b.say(4);
    b.expect(5);
    assert!(ring(0b0001) == 0b1100);
    b.say(6);
    b.expect(7);
    assert!(ring(1) == 0, "B has reset its doorbell");
    b.say(8);
}

fn second(a: &Channel) {
    FORMS.into_iter().for_each(results_and_errors);
    a.say(1);
    for round in 0..ROUNDS {
        sleep_until_rung(round + 1);
        let flags = read();
        assert!(flags == 1 << (round % 64), "rung with {flags:#x}");
        assert!(ring(flags) == 0);
    }
    a.expect(2);
    mask(0b0001, 0b0001);
    a.say(3);
    a.expect(4);
    assert!(gic::taken(BELL) == ROUNDS, "masked flags interrupt");
    a.say(5);
    a.expect(6);
    sleep_until_rung(ROUNDS + 1);
    assert!(read() == 0b1100, "the flag that acknowledges itself is gone");
    assert!(ring(ALL) == 0);
    reset();
    a.say(7);
    a.expect(8);
    sleep_until_rung(ROUNDS + 2);
    assert!(read() == 1);
}

/// What each call answers, in one form; it changes no register beside.
fn results_and_errors(form: Form) {
    const ARGUMENT: u64 = HypercallError::ARGUMENT_INVALID as u64;
    const TYPE: u64 = HypercallError::CSPACE_WRONG_OBJECT_TYPE as u64;
    const RIGHT: u64 = HypercallError::CSPACE_INSUFFICIENT_RIGHTS as u64;
    let (theirs, own) = (Capability::doorbell_send(0).0, Capability::doorbell_receive(0).0);
    let queue = Capability::RECEIVE_QUEUE.0;
    assert!(call(form, DOORBELL_MASK, &[own, 1, 2, 0]) == [OK]);
    assert!(call(form, DOORBELL_RECEIVE, &[own, ALL, 0]) == [OK, 0]);
    assert!(call(form, DOORBELL_RECEIVE, &[own, 0, 0]) == [ARGUMENT, 0], "nothing to clear");
    assert!(call(form, DOORBELL_RESET, &[own, 0]) == [OK]);
    for (capability, error) in
        [(queue, TYPE), (own + 1, ARGUMENT), (own ^ 1 << 63, ARGUMENT), (0, ARGUMENT)]
    {
        assert!(call(form, DOORBELL_SEND, &[capability, 1, 0]) == [error, 0]);
        assert!(call(form, DOORBELL_RECEIVE, &[capability, 1, 0]) == [error, 0]);
        assert!(call(form, DOORBELL_RESET, &[capability, 0]) == [error]);
        assert!(call(form, DOORBELL_MASK, &[capability, 1, 2, 0]) == [error]);
    }
    assert!(call(form, DOORBELL_SEND, &[own, 1, 0]) == [RIGHT, 0], "the own doorbell");
    assert!(call(form, DOORBELL_RECEIVE, &[theirs, 1, 0]) == [RIGHT, 0], "the peer's doorbell");
    assert!(call(form, DOORBELL_RESET, &[theirs, 0]) == [RIGHT], "the peer's doorbell");
    assert!(call(form, DOORBELL_MASK, &[theirs, 1, 2, 0]) == [RIGHT], "the peer's doorbell");
    assert!(call(form, MSGQUEUE_FLUSH, &[own, 0]) == [TYPE], "a doorbell is no queue");
    assert!(call(form, MSGQUEUE_RECEIVE, &[own, 0, 240, 0]) == [TYPE, 0, 0]);
    assert!(call(form, MSGQUEUE_SEND, &[theirs, 8, 0, 0, 0]) == [TYPE, 0]);
    // Only the native form looks at what is reserved.
    let reserved = if form == Form::Native { ARGUMENT } else { OK };
    assert!(call(form, DOORBELL_RESET, &[own, 1]) == [reserved]);
    assert!(call(form, DOORBELL_MASK, &[own, ALL, 0, 1]) == [reserved]);
}

/// Sleeps until the doorbell's interrupt was taken so often.
pub(crate) fn sleep_until_rung(times: u32) {
    loop {
        cpu::mask_interrupts();
        let taken = gic::taken(BELL);
        assert!(taken <= times, "rung too often");
        if taken == times {
            return cpu::unmask_interrupts();
        }
        // An interrupt that came meanwhile ends the sleep at once.
        cpu::wait_for_interrupt();
        cpu::unmask_interrupts();
    }
}

/// Sets flags of the peer's doorbell; gives those that were set.
pub(crate) fn ring(flags: u64) -> u64 {
    let bell = Capability::doorbell_send(0).0;
    let [error, before, ..] = hvc_immediate!("0x6012", [bell, flags, 0, 0, 0, 0]);
    assert!(error == OK, "ringing: {error}");
    before
}

/// Reads and clears the own flags.
pub(crate) fn read() -> u64 {
    let bell = Capability::doorbell_receive(0).0;
    let [error, flags, ..] = hvc_immediate!("0x6013", [bell, ALL, 0, 0, 0, 0]);
    assert!(error == OK, "reading: {error}");
    flags
}

fn reset() {
    let bell = Capability::doorbell_receive(0).0;
    let [error, ..] = hvc_immediate!("0x6014", [bell, 0, 0, 0, 0, 0]);
    assert!(error == OK, "resetting: {error}");
}

fn mask(enable: u64, acknowledge: u64) {
    let bell = Capability::doorbell_receive(0).0;
    let [error, ..] = hvc_immediate!("0x6015", [bell, enable, acknowledge, 0, 0, 0]);
    assert!(error == OK, "masking: {error}");
}
