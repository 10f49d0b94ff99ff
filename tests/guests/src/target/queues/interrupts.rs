//! When a VM's message queues interrupt it, and that a sleeper is always woken.
//!
//! Cast: this program as first VM, [`waker`] as second, on another CPU, linked. Both interrupts are
//! edges: Rx whenever the queue from the manager gets something after it had nothing, Tx whenever the
//! full queue to the manager has room again.

use rm_abi::hypercall::{MSGQUEUE_CONFIGURE_RECEIVE, MSGQUEUE_CONFIGURE_SEND, MSGQUEUE_FLUSH};
use rm_abi::memparcel::create::Create;
use rm_abi::{
    Capability, CreateFlags, Header, Kind, MemoryKind, PACKET, PACKET_PAYLOAD, SglEntry, message,
};
use rm_client::{Handle, NewParcel, Notice, Rights, Sanitize, Vmid, grant, pages};

use super::call::{Form, call};
use super::{DEPTH, EMPTY, FULL, OK, expect_empty, expect_reply, receive, send, send_request};
use crate::bench::long_session;
use crate::channel::Channel;
use crate::demo::granted;
use crate::gic::{SPI_RX, SPI_TX};
use crate::layout::{LINK_AB, PAGE, PAGES, VMID_A, VMID_B};
use crate::{cpu, gic, life, mailbox, memory, timer};

/// The form of all calls here; which registers they use is another program's.
const FORM: Form = Form::Native;
/// Microseconds after which an interrupt that should come counts as lost.
const LOST: u64 = 20_000_000;
/// Microseconds in which one that should not come would.
const QUIET: u64 = 300;

/// An argument that leaves a setting as it is.
const KEEP: u64 = !0;
/// A threshold of "all of the queue".
const DEEPEST: u64 = !0 - 1;

/// Pages of the parcel that takes long to reclaim, each a range of its own.
const SCATTERED: usize = 500;
/// Notices that wake the first VM.
const NOTICES: u32 = 20;

/// Words of the conversation.
const NEXT: u64 = 0x1e7;
const HEARD: u64 = 0x1e8;

/// The program.
pub fn main() {
    gic::enable();
    [SPI_TX, SPI_RX, timer::INTERRUPT].into_iter().for_each(gic::unmask);
    cpu::unmask_interrupts();
    let mut taken = Taken { tx: 0, rx: 0 };
    one_for_the_first_packet(&mut taken);
    one_for_room_in_a_full_queue(&mut taken);
    thresholds_move_them(&mut taken);
    a_flush_is_a_beginning(&mut taken);
    a_long_call_holds_up_requests(&mut taken);
    a_client_that_acts_only_when_it_is_told();
    a_reply_wakes();
    a_notice_of_another_vm_wakes();
}

/// The second VM: offers parcels to the first while that sleeps.
pub fn waker() {
    let a = Channel::peer(LINK_AB);
    let mut session = life::session();
    let range = [pages(PAGES, 1)];
    let acl = [VMID_A, VMID_B].map(|vmid| grant(Vmid(vmid), Rights::R));
    for tag in 0..NOTICES {
        a.expect(NEXT);
        // Until it sleeps.
        pause(5_000);
        let handle = granted("sharing", session.share(&NewParcel::new(&range, &acl)));
        granted("notifying", session.notify_shared(handle, tag, &[Vmid(VMID_A)]));
        a.expect(HEARD);
        granted("reclaiming", session.reclaim(handle, Sanitize::empty()));
    }
}

fn pause(microseconds: u64) {
    let start = cpu::now();
    while !cpu::passed(start, timer::microseconds(microseconds)) {}
}

/// Interrupts of the queues that were taken so far, as the story counts them.
struct Taken {
    tx: u32,
    rx: u32,
}

impl Taken {
    /// Checks that so many interrupts came since the last time, and no more come.
    #[track_caller]
    fn expect(&mut self, what: &str, tx: u32, rx: u32) {
        (self.tx, self.rx) = (self.tx + tx, self.rx + rx);
        pause(QUIET);
        let found = (gic::taken(SPI_TX), gic::taken(SPI_RX));
        assert!(found == (self.tx, self.rx), "{what}: {found:?}, not {:?}", (self.tx, self.rx));
    }
}

/// Sleeps until `is_true`, which an interrupt brings about. One that comes between the look and the
/// sleep ends the sleep, because it is masked in the CPU.
fn sleep_until(what: &str, is_true: impl Fn() -> bool) {
    let late = gic::taken(timer::INTERRUPT);
    timer::after(timer::microseconds(LOST));
    cpu::mask_interrupts();
    while !is_true() {
        cpu::wait_for_interrupt();
        cpu::unmask_interrupts();
        cpu::isb();
        assert!(gic::taken(timer::INTERRUPT) == late, "nothing woke me: {what}");
        cpu::mask_interrupts();
    }
    timer::stop();
    cpu::unmask_interrupts();
}

/// Sends requests that are answered at once.
fn send_requests(numbers: core::ops::Range<u16>) {
    for number in numbers {
        assert!(send_request(FORM, number) == [OK, 1], "request {number}");
    }
}

/// Fills the receive queue, the slot and the send queue: requests 0 to 16.
fn fill() {
    send_requests(0..2 * DEPTH);
    assert!(send_request(FORM, 2 * DEPTH) == [OK, 0], "the last that has room");
    assert!(send_request(FORM, 99) == [FULL, 0], "one too many");
}

/// Receives these replies. `last`: nothing waits behind them.
fn drain(numbers: core::ops::Range<u16>, last: bool) {
    for number in numbers.clone() {
        expect_reply(FORM, number, !last || number + 1 < numbers.end);
    }
}

fn one_for_the_first_packet(taken: &mut Taken) {
    for _ in 0..3 {
        send_requests(0..1);
        taken.expect("the first packet", 0, 1);
        send_requests(1..4);
        taken.expect("three more", 0, 0);
        drain(0..4, true);
        taken.expect("receiving", 0, 0);
    }
    println!("Rx comes once for a queue that was empty");
}

fn one_for_room_in_a_full_queue(taken: &mut Taken) {
    fill();
    taken.expect("filling both queues", 0, 1);
    drain(0..1, false);
    taken.expect("the first that makes room", 1, 0);
    drain(1..3, false);
    taken.expect("two more", 0, 0);
    // Full again, and not full again.
    send_requests(17..19);
    assert!(send_request(FORM, 19) == [OK, 0], "full again");
    taken.expect("sending", 0, 0);
    drain(3..4, false);
    taken.expect("room again", 1, 0);
    // The last is received, the next comes in the same entry, and nobody needs to be told.
    drain(4..20, true);
    expect_empty(FORM);
    taken.expect("draining", 0, 0);
    println!("Tx comes once for a queue that was full");
}

fn configure(number: u16, capability: Capability, threshold: u64) {
    assert!(call(FORM, number, &[capability.0, threshold, KEEP, KEEP]) == [OK], "{threshold}");
}

fn thresholds_move_them(taken: &mut Taken) {
    let receive =
        |packets| configure(MSGQUEUE_CONFIGURE_RECEIVE, Capability::RECEIVE_QUEUE, packets);
    let send = |packets| configure(MSGQUEUE_CONFIGURE_SEND, Capability::SEND_QUEUE, packets);
    for (threshold, packets) in [(3, 3), (DEEPEST, DEPTH)] {
        receive(threshold);
        send_requests(0..packets - 1);
        taken.expect("one packet less", 0, 0);
        send_requests(packets - 1..packets);
        taken.expect("as many as wanted", 0, 1);
        drain(0..packets, true);
    }
    receive(1);
    for left in [3, 0] {
        send(left);
        fill();
        taken.expect("filling", 0, 1);
        let enough = DEPTH - left as u16;
        drain(0..enough - 1, false);
        taken.expect("one packet too many left", 0, 0);
        drain(enough - 1..enough, false);
        taken.expect("as few left as wanted", 1, 0);
        drain(enough..2 * DEPTH + 1, true);
        taken.expect("draining", 0, 0);
    }
    send(DEPTH as u64 - 1);
    println!("thresholds move both");
}

fn flush() {
    assert!(call(FORM, MSGQUEUE_FLUSH, &[Capability::RECEIVE_QUEUE.0, 0]) == [OK], "flush");
}

fn a_flush_is_a_beginning(taken: &mut Taken) {
    send_requests(0..3);
    taken.expect("three packets", 0, 1);
    flush();
    expect_empty(FORM);
    taken.expect("a flush with nothing behind", 0, 0);
    send_requests(3..4);
    taken.expect("a packet after a flush", 0, 1);
    drain(3..4, true);

    fill();
    taken.expect("filling", 0, 1);
    flush();
    taken.expect("a flush with much behind", 1, 1);
    drain(DEPTH..2 * DEPTH + 1, true);
    taken.expect("draining", 0, 0);
    println!("what comes after a flush comes into an empty queue");
}

/// A parcel whose reclaim with sanitise takes many steps.
fn lend_scattered() -> Handle {
    memory::fill(PAGES, 2 * SCATTERED as u64, 7);
    let acl = [grant(Vmid(VMID_B), Rights::R)];
    let ranges = scattered();
    let parcel = NewParcel::new(&ranges, &acl);
    granted("lending", long_session().lend(&parcel))
}

fn scattered() -> [SglEntry; SCATTERED] {
    core::array::from_fn(|index| pages(PAGES + 2 * index as u64 * PAGE, 1))
}

fn check_sanitized() {
    scattered().iter().for_each(|range| memory::check_zero(range.ipa, 1));
}

fn a_long_call_holds_up_requests(taken: &mut Taken) {
    let handle = lend_scattered();
    let mut reclaim = [0u8; 16];
    reclaim[..8].copy_from_slice(&Header::request(message::MEM_RECLAIM, 77).encode());
    reclaim[8..12].copy_from_slice(&handle.0.to_le_bytes());
    reclaim[12..].copy_from_slice(&1u32.to_le_bytes());
    assert!(send(FORM, 16, reclaim.as_ptr() as u64) == [OK, 1], "the long call");
    send_requests(0..DEPTH - 1);
    assert!(send_request(FORM, DEPTH - 1) == [OK, 0], "the last that has room");
    assert!(send_request(FORM, 99) == [FULL, 0], "one too many");
    expect_empty(FORM);
    let told = (gic::taken(SPI_TX), gic::taken(SPI_RX));
    assert!(told == (taken.tx, taken.rx), "told too early: {told:?}");

    sleep_until("room behind a long call", || gic::taken(SPI_TX) != taken.tx);
    let mut packet = [0u8; PACKET];
    let outcome = receive(FORM, packet.as_mut_ptr() as u64, PACKET as u64);
    assert!(outcome == [OK, 12, 1], "the long call's reply: {outcome:?}");
    assert!(packet[8..12] == [0; 4], "it was refused");
    drain(0..DEPTH, true);
    expect_empty(FORM);
    taken.expect("a long call and those behind it", 1, 1);
    check_sanitized();
    println!("a long call holds up {DEPTH} requests, and both interrupts come once");
}

/// Packets of a request with many ranges, the last of which is nobody's: it takes long to refuse.
const LONG: usize = 35;
/// Packets of a round: the long request, and short ones.
const ROUND: usize = LONG + 4;
const ROUNDS: usize = 12;
/// Replies to a round.
const REPLIES: usize = ROUND - LONG + 1;

/// The packets of a round, and their lengths.
fn packets() -> ([[u8; PACKET]; ROUND], [usize; ROUND]) {
    let mut payload = [0u8; LONG * PACKET_PAYLOAD];
    let mut ranges = scattered();
    ranges[SCATTERED - 1] = pages(0x7000_0000, 1);
    let lend = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::empty(),
        label: 0,
        acl: &[grant(Vmid(VMID_B), Rights::R)],
        sgl: &ranges,
        attributes: &[],
    };
    let length = lend.encode(&mut payload).expect("the list has room");
    assert!(usize::from(Header::fragments_for(length)) + 1 == LONG, "{length} bytes");
    let mut packets = [[0u8; PACKET]; ROUND];
    let mut lengths = [Header::SIZE; ROUND];
    for index in 0..ROUND {
        let header = if index < LONG {
            let part = &payload[index * PACKET_PAYLOAD..length.min((index + 1) * PACKET_PAYLOAD)];
            packets[index][8..8 + part.len()].copy_from_slice(part);
            lengths[index] += part.len();
            let kind = if index == 0 { Kind::Request } else { Kind::Continuation };
            Header { kind, fragments: LONG as u8 - 1, ..Header::request(message::MEM_LEND, 1) }
        } else {
            Header::request(message::VM_GET_VMID, index as u16)
        };
        packets[index][..8].copy_from_slice(&header.encode());
    }
    (packets, lengths)
}

/// Sends until it is told that there is no room, receives until it is told that nothing is left, and
/// then sleeps until an interrupt says otherwise.
fn a_client_that_acts_only_when_it_is_told() {
    let (packets, lengths) = packets();
    let (mut sent, mut received, mut sleeps) = (0, 0, 0);
    let (mut has_room, mut has_packets) = (true, false);
    let (mut tx, mut rx) = (gic::taken(SPI_TX), gic::taken(SPI_RX));
    let mut into = [0u8; PACKET];
    while received < ROUNDS * REPLIES {
        while has_room && sent < ROUNDS * ROUND {
            let (packet, length) = (&packets[sent % ROUND], lengths[sent % ROUND]);
            let [error, room] = send(FORM, length as u64, packet.as_ptr() as u64);
            assert!(error == OK || error == FULL, "sending: {error}");
            sent += usize::from(error == OK);
            has_room = room == 1;
        }
        while has_packets {
            let [error, size, more] = receive(FORM, into.as_mut_ptr() as u64, PACKET as u64);
            assert!(error == OK && size >= 12 || error == EMPTY, "receiving: {error} {size}");
            received += usize::from(error == OK);
            has_packets = more == 1;
        }
        if received < ROUNDS * REPLIES && gic::taken(SPI_TX) == tx && gic::taken(SPI_RX) == rx {
            sleeps += 1;
            sleep_until("the next packet or room", || {
                gic::taken(SPI_TX) != tx || gic::taken(SPI_RX) != rx
            });
        }
        has_room |= core::mem::replace(&mut tx, gic::taken(SPI_TX)) != tx;
        has_packets |= core::mem::replace(&mut rx, gic::taken(SPI_RX)) != rx;
    }
    expect_empty(FORM);
    assert!(sleeps > 0, "it never slept");
    println!("a client that sleeps on 0 sent {sent} packets and got {received} replies");
}

fn a_reply_wakes() {
    let mut session = mailbox::sleeping_session();
    for _ in 0..3 {
        let handle = lend_scattered();
        let rx = gic::taken(SPI_RX);
        granted("reclaiming", session.reclaim(handle, Sanitize::SANITIZE));
        assert!(gic::taken(SPI_RX) == rx + 1, "one reply, one interrupt");
        check_sanitized();
    }
    println!("a reply wakes who sleeps until it comes");
}

fn a_notice_of_another_vm_wakes() {
    let b = Channel::owner(LINK_AB);
    let mut session = mailbox::sleeping_session();
    for round in 0..NOTICES {
        let rx = gic::taken(SPI_RX);
        b.say(NEXT);
        match granted("waiting for a notice", session.wait_notice()) {
            Notice::Shared(offered) => {
                let offer = offered.offer;
                let told = (offer.owner, offer.tag);
                assert!(told == (Vmid(VMID_B), round), "{offer:?}");
            }
            other => panic!("{other:x?}"),
        }
        assert!(gic::taken(SPI_RX) == rx + 1, "one notice, one interrupt");
        b.say(HEARD);
    }
    println!("{NOTICES} notices of a VM on another CPU woke me");
}
