//! Two VMs that ring each other's doorbells.
//!
//! Cast: this program as first and second VM, linked: each has the first doorbell of the channel. They
//! sleep until they are rung, and take turns.

use rm_abi::Capability;
use rm_abi::hypercall::HypercallError;

use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{LINK_AB, VMID_A};
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
