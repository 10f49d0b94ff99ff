//! Doorbells: flags, masks, rights and interrupts.

use rm::address::VmIndex;
use rm::machine::Line;
use rm::machine::fake::world::{Guest, World, vm};
use rm_abi::hypercall::{DOORBELL_MASK, DOORBELL_RECEIVE, DOORBELL_RESET, DOORBELL_SEND};
use rm_abi::{Capability, hypercall};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const ALL: u64 = u64::MAX;

/// Three VMs; A's second doorbell rings B's first, and back.
fn world() -> World {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    world.manager.connect_doorbells((A, 1), (B, 0));
    world
}

fn call(guest: &Guest<'_>, number: u16, capability: Capability, args: [u64; 3]) -> Vec<u64> {
    let args = [capability.0, args[0], args[1], args[2], 0];
    let results = guest.hypercall(number, args).expect("a known call");
    results.x[..results.count].to_vec()
}

fn ring(guest: &Guest<'_>, number: u8, flags: u64) -> Vec<u64> {
    call(guest, DOORBELL_SEND, Capability::doorbell_send(number), [flags, 0, 0])
}

fn read(guest: &Guest<'_>, number: u8, clear: u64) -> Vec<u64> {
    call(guest, DOORBELL_RECEIVE, Capability::doorbell_receive(number), [clear, 0, 0])
}

fn mask(guest: &Guest<'_>, number: u8, enable: u64, acknowledge: u64) -> Vec<u64> {
    let bell = Capability::doorbell_receive(number);
    call(guest, DOORBELL_MASK, bell, [enable, acknowledge, 0])
}

#[test]
fn flags_are_joined_until_they_are_read() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    assert_eq!(ring(&a, 1, 0b01), [0, 0]);
    assert_eq!(ring(&a, 1, 0b10), [0, 0b01]);
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 2);
    assert_eq!(read(&b, 0, 0b01), [0, 0b11]);
    assert_eq!(read(&b, 0, ALL), [0, 0b10]);
    assert_eq!(read(&b, 0, ALL), [0, 0]);
    assert_eq!(ring(&b, 0, 4), [0, 0]);
    assert_eq!(world.interrupts(A, Line::Doorbell(1)), 1, "the other way round");
    assert_eq!(read(&a, 1, ALL), [0, 4]);
}

#[test]
fn masked_flags_wait_and_interrupt_once_they_are_enabled() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    assert_eq!(mask(&b, 0, 0b10, 0), [0]);
    ring(&a, 1, 0b01);
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 0);
    assert_eq!(mask(&b, 0, 0b11, 0), [0]);
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 1);
    assert_eq!(mask(&b, 0, ALL, 0), [0]);
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 1, "they were enabled before");
}

#[test]
fn flags_that_acknowledge_themselves_are_gone_when_they_interrupt() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    mask(&b, 0, 0b01, 0b11);
    ring(&a, 1, 0b10);
    assert_eq!(ring(&a, 1, 0b101), [0, 0b10], "without an interrupt it stays");
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 1);
    assert_eq!(read(&b, 0, ALL), [0, 0b100]);
}

#[test]
fn a_reset_clears_flags_and_masks() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    mask(&b, 0, 0, ALL);
    ring(&a, 1, 7);
    let reset = call(&b, DOORBELL_RESET, Capability::doorbell_receive(0), [0; 3]);
    assert_eq!(reset, [0]);
    assert_eq!(ring(&a, 1, 1), [0, 0]);
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 1);
    assert_eq!(read(&b, 0, ALL), [0, 1]);
}

#[test]
fn wrong_capabilities_and_arguments_have_their_codes() {
    let world = world();
    let (a, c) = (world.caller(A), world.caller(VmIndex(2)));
    let (send, receive) = (Capability::doorbell_send(1), Capability::doorbell_receive(1));
    assert_eq!(call(&a, DOORBELL_SEND, receive, [1, 0, 0]), [53, 0]);
    for number in [DOORBELL_RECEIVE, DOORBELL_RESET, DOORBELL_MASK] {
        let args = if number == DOORBELL_RESET { [0; 3] } else { [1, 0, 0] };
        assert_eq!(call(&a, number, send, args)[0], 53, "{number:#x}");
        assert_eq!(call(&a, number, Capability::SEND_QUEUE, args)[0], 52, "{number:#x}");
        assert_eq!(call(&a, number, Capability(5), args)[0], 1, "{number:#x}");
    }
    assert_eq!(ring(&a, 0, 1), [1, 0], "not connected");
    assert_eq!(ring(&a, 200, 1), [1, 0], "no such number");
    assert_eq!(ring(&c, 1, 1), [1, 0], "another VM's");
    assert_eq!(read(&a, 1, 0), [1, 0], "nothing to clear");
    assert_eq!(call(&a, DOORBELL_SEND, send, [1, 1, 0]), [1, 0], "reserved");
    assert_eq!(call(&a, DOORBELL_RECEIVE, receive, [1, 1, 0]), [1, 0], "reserved");
    assert_eq!(call(&a, DOORBELL_RESET, receive, [1, 0, 0]), [1], "reserved");
    assert_eq!(call(&a, DOORBELL_MASK, receive, [1, 1, 1]), [1], "reserved");
    let queue = call(&a, hypercall::MSGQUEUE_FLUSH, receive, [0; 3]);
    assert_eq!(queue, [52], "a doorbell is no queue");
    assert_eq!(world.interrupts(B, Line::Doorbell(0)), 0);
}
