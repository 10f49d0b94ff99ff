//! The message queues: requests and replies as packets, back-pressure, interrupts.

use rm::address::{Ipa, VmIndex};
use rm::machine::Line;
use rm::machine::fake::effort::few;
use rm::machine::fake::world::{self, Guest, RAM, World, accept, by_handle, offer};
use rm::operation::budget::Budget;
use rm_abi::{
    AcceptFlags, Capability, CreateFlags, Header, HypercallError, Kind, PACKET, PACKET_PAYLOAD,
    Transfer, hypercall, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x10_0000;

fn world() -> World {
    World::new(&[world::vm(3), world::vm(4), world::vm(5)])
}

/// A lend of `count` scattered pages to VM 4.
fn scattered(count: u64) -> Vec<u8> {
    let ranges: Vec<_> = (0..count).map(|n| (PAGE + n * 0x2000, 1)).collect();
    offer(CreateFlags::empty(), &[(4, 6)], &ranges, &[])
}

fn get_vmid(sequence: u16) -> Vec<u8> {
    Header::request(message::VM_GET_VMID, sequence).encode().to_vec()
}

fn word(reply: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(reply[at..at + 4].try_into().unwrap())
}

/// Sends a packet for which there is room.
fn send(guest: &Guest<'_>, packet: &[u8]) {
    assert_eq!(guest.queue_send(packet, true).0, 0);
}

/// Lets the manager go on until only the VM can do something.
fn settle(world: &World, vm: VmIndex) {
    while world.manager.pending(vm) {
        assert_eq!(world.manager.step(vm, &mut Budget::new(1000)), None);
    }
}

#[test]
fn a_request_is_answered_within_its_send() {
    let world = world();
    let guest = world.caller(A);
    assert_eq!(guest.queue_send(&get_vmid(9), false), (0, true));
    assert_eq!(world.interrupts(A, Line::Receive), 1);
    let (packet, more) = guest.queue_receive().expect("the reply is there");
    assert_eq!(packet, [0x21, 2, 9, 0, 0x24, 0, 0, 0x56, 0, 0, 0, 0, 3, 0, 0, 0]);
    assert!(!more);
    assert_eq!(guest.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY));
    assert_eq!(world.interrupts(A, Line::Send), 0);
}

#[test]
fn long_requests_and_replies_take_many_packets() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    let count = few(400, 260);
    let reply = owner.queue_call(message::MEM_LEND, &scattered(count.into()));
    assert_eq!((reply.len(), word(&reply, 0)), (8, 0));
    let handle = word(&reply, 4);
    let wanted = accept(handle, Transfer::Lend, AcceptFlags::DONE, &[]);
    let reply = borrower.queue_call(message::MEM_ACCEPT, &wanted);
    assert_eq!(reply.len(), 8 + count as usize * 16);
    assert_eq!((word(&reply, 0), word(&reply, 4)), (0, count));
    for range in reply[8..].chunks(16) {
        let at = u64::from_le_bytes(range[..8].try_into().unwrap());
        assert!(world.cpu(B).read(Ipa(at)).is_ok(), "{at:#x} was told but is not mapped");
    }
    let reply = borrower.queue_call(message::MEM_RELEASE, &by_handle(handle, 0));
    assert_eq!(reply, [0; 4]);
    assert_eq!(owner.queue_call(message::MEM_RECLAIM, &by_handle(handle, 0)), [0; 4]);
    assert_eq!(world.check().frames, world.check().tables, "messages keep no frames");
}

#[test]
fn queued_calls_end_the_same_in_steps_of_one_unit() {
    let world = world();
    let (owner, borrower) = (world.caller(A), world.caller(B));
    owner.step.set(1);
    borrower.step.set(1);
    let handle = word(&owner.queue_call(message::MEM_LEND, &scattered(70)), 4);
    let wanted = accept(handle, Transfer::Lend, AcceptFlags::DONE, &[]);
    let reply = borrower.queue_call(message::MEM_ACCEPT, &wanted);
    assert_eq!(reply.len(), 8 + 70 * 16);
    assert_eq!(borrower.queue_call(message::MEM_RELEASE, &by_handle(handle, 0)), [0; 4]);
    assert_eq!(owner.queue_call(message::MEM_RECLAIM, &by_handle(handle, 0)), [0; 4]);
    world.check();
}

#[test]
fn what_is_malformed_is_dropped_and_disturbs_nothing() {
    let world = world();
    let guest = world.caller(A);
    let payload = scattered(30);
    let packets = Guest::fragments(Header::request(message::MEM_LEND, 5), &payload);
    let other = |edit: fn(&mut Header)| {
        let mut header = Header::decode(&packets[1][..]).unwrap();
        edit(&mut header);
        let mut packet = packets[1].clone();
        packet[..8].copy_from_slice(&header.encode());
        packet
    };
    let mut version = packets[1].clone();
    version[0] = 0x22;
    let mut crowd = packets[1].clone();
    crowd[1] = 63 << 2;
    // A continuation of nothing.
    guest.queue_send(&packets[1], true);
    guest.queue_send(&packets[0], true);
    let dropped = [
        vec![0x21],
        packets[1][..7].to_vec(),
        version,
        crowd,
        other(|header| header.sequence += 1),
        other(|header| header.message += 1),
        other(|header| header.fragments += 1),
    ];
    for packet in &dropped {
        assert_eq!(guest.queue_send(packet, true), (0, true));
        assert_eq!(guest.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY), "{packet:x?}");
    }
    packets[1..].iter().for_each(|packet| send(&guest, packet));
    settle(&world, A);
    let reply = guest.packets();
    assert_eq!(reply.len(), 1);
    assert_eq!(word(&reply[0], 8), 0, "the message in progress was not disturbed");
}

#[test]
fn a_new_message_ends_a_partial_one() {
    let world = world();
    let guest = world.caller(A);
    let packets = Guest::fragments(Header::request(message::MEM_LEND, 5), &scattered(30));
    guest.queue_send(&packets[0], true);
    assert!(world.check().frames > world.check().tables, "the first packet took frames");
    guest.queue_send(&get_vmid(6), true);
    assert_eq!(guest.packets().len(), 1);
    packets[1..].iter().for_each(|packet| send(&guest, packet));
    assert_eq!(guest.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY));
    assert_eq!(world.check().frames, world.check().tables, "a partial message keeps no frames");
}

#[test]
fn replies_and_notifications_of_a_vm_are_dropped() {
    let world = world();
    let guest = world.caller(A);
    for kind in [Kind::Reply, Kind::Notification] {
        let header = Header { kind, ..Header::request(message::VM_GET_VMID, 1) };
        assert_eq!(guest.queue_send(&header.encode(), true), (0, true));
        assert_eq!(guest.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY));
    }
}

#[test]
fn while_a_reply_has_no_room_the_next_requests_wait() {
    let world = world();
    let guest = world.caller(A);
    // Eight replies fill the receive queue, the ninth waits in the slot, eight requests wait.
    for sequence in 0..16 {
        assert_eq!(guest.queue_send(&get_vmid(sequence), false), (0, true), "{sequence}");
    }
    assert_eq!(guest.queue_send(&get_vmid(16), false), (0, false), "the queue is full now");
    assert_eq!(
        guest.queue_send(&get_vmid(17), false),
        (HypercallError::MSGQUEUE_FULL, false),
        "nothing is evicted"
    );
    assert!(!world.manager.pending(A), "only the VM itself can go on");
    assert_eq!(world.interrupts(A, Line::Receive), 1, "once, from empty to not empty");
    assert_eq!(world.interrupts(A, Line::Send), 0);
    let mut sequences = vec![];
    while let Ok((packet, more)) = guest.queue_receive() {
        sequences.push(Header::decode(&packet[..]).unwrap().sequence);
        assert_eq!(world.interrupts(A, Line::Send), 1, "from full to not full");
        assert_eq!(more, sequences.len() < 17);
    }
    assert_eq!(sequences, (0..17).collect::<Vec<_>>());
    assert_eq!(world.interrupts(A, Line::Receive), 1, "a reader that reads on needs no interrupt");
}

#[test]
fn a_long_call_lets_the_queue_fill_and_the_interrupts_say_when_it_goes_on() {
    let world = world();
    let guest = world.caller(A);
    guest.step.set(1);
    let handle = word(&guest.queue_call(message::MEM_LEND, &scattered(40)), 4);
    for packet in Guest::fragments(Header::request(message::MEM_RECLAIM, 1), &by_handle(handle, 1))
    {
        guest.queue_send(&packet, true);
    }
    let mut sequence = 2;
    while guest.queue_send(&get_vmid(sequence), false) == (0, true) {
        sequence += 1;
        assert!(sequence < 30, "the queue never fills");
    }
    let before = (world.interrupts(A, Line::Send), world.interrupts(A, Line::Receive));
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(1));
    }
    let after = (world.interrupts(A, Line::Send), world.interrupts(A, Line::Receive));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "each once, without the VM's help");
    let replies = guest.packets();
    let sequences: Vec<_> =
        replies.iter().map(|packet| Header::decode(&packet[..]).unwrap().sequence).collect();
    assert_eq!(sequences, (1..=sequence).collect::<Vec<_>>());
}

#[test]
fn a_packet_stays_while_its_buffer_is_no_good() {
    let world = world();
    let guest = world.caller(A);
    guest.queue_send(&get_vmid(1), true);
    guest.lose_reply_page(true);
    let args = [Capability::RECEIVE_QUEUE.0, 0x20_0000, PACKET as u64, 0, 0];
    let faulted = guest.hypercall(hypercall::MSGQUEUE_RECEIVE, args).unwrap();
    assert_eq!(faulted.x, [22, 0, 1]);
    guest.lose_reply_page(false);
    let args = [Capability::RECEIVE_QUEUE.0, 0x20_0000, 15, 0, 0];
    let small = guest.hypercall(hypercall::MSGQUEUE_RECEIVE, args).unwrap();
    assert_eq!(small.x, [20, 0, 1]);
    assert_eq!(guest.packets().len(), 1);
    let empty = guest.hypercall(hypercall::MSGQUEUE_RECEIVE, args).unwrap();
    assert_eq!(empty.x, [60, 0, 0], "empty comes before every buffer error");
}

#[test]
fn a_send_that_cannot_be_copied_queues_nothing() {
    let world = world();
    let guest = world.caller(A);
    let send = |size, at| {
        let args = [Capability::SEND_QUEUE.0, size, at, 0, 0];
        guest.hypercall(hypercall::MSGQUEUE_SEND, args).unwrap().x
    };
    guest.put_request(&get_vmid(1));
    assert_eq!(send(0, 0x10_0000), [2, 0, 0]);
    assert_eq!(send(PACKET as u64 + 1, 0x10_0000), [2, 0, 0]);
    assert_eq!(send(8, 0x666_0000), [22, 0, 0]);
    assert_eq!(guest.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY));
}

#[test]
fn flushing_makes_room_for_what_waits() {
    let world = world();
    let guest = world.caller(A);
    (0..12).for_each(|sequence| send(&guest, &get_vmid(sequence)));
    let args = [Capability::RECEIVE_QUEUE.0, 0, 0, 0, 0];
    assert_eq!(guest.hypercall(hypercall::MSGQUEUE_FLUSH, args).unwrap().x[0], 0);
    assert_eq!(world.interrupts(A, Line::Receive), 2, "the empty queue is filled again");
    let sequences: Vec<_> = guest.packets().iter().map(|packet| packet[2]).collect();
    assert_eq!(sequences, [8, 9, 10, 11]);
}

#[test]
fn thresholds_are_checked_and_kept() {
    const MINUS: u64 = u64::MAX;
    let world = world();
    let guest = world.caller(A);
    let (to, from) = (Capability::SEND_QUEUE.0, Capability::RECEIVE_QUEUE.0);
    let configure = |number, args| guest.hypercall(number, args).unwrap().x[0];
    let of_send = |threshold, delay, reserved| {
        configure(hypercall::MSGQUEUE_CONFIGURE_SEND, [to, threshold, delay, reserved, 0])
    };
    let of_receive = |threshold, delay, reserved| {
        configure(hypercall::MSGQUEUE_CONFIGURE_RECEIVE, [from, threshold, delay, reserved, 0])
    };
    assert_eq!(of_send(7, MINUS, MINUS), 0);
    assert_eq!(of_send(8, MINUS, MINUS), 1);
    assert_eq!(of_send(MINUS, 5, MINUS), 0xffff_ffff);
    assert_eq!(of_send(MINUS, MINUS, 0), 1);
    assert_eq!(of_receive(0, MINUS, MINUS), 1);
    assert_eq!(of_receive(9, MINUS, MINUS), 1);
    assert_eq!(of_receive(MINUS - 1, MINUS, MINUS), 0);
    (0..7).for_each(|sequence| send(&guest, &get_vmid(sequence)));
    assert_eq!(world.interrupts(A, Line::Receive), 0, "the threshold is all of the queue");
    guest.queue_send(&get_vmid(7), false);
    assert_eq!(world.interrupts(A, Line::Receive), 1);
}

#[test]
fn a_direct_call_and_a_queued_one_do_not_take_each_others_replies() {
    let world = world();
    let (direct, queue) = (world.caller(A), world.caller(A));
    direct.step.set(1);
    let world::Turn::More(token) = direct.send(message::MEM_LEND, &scattered(20)) else {
        panic!("the call is long")
    };
    queue.queue_send(&get_vmid(1), true);
    assert_eq!(queue.queue_receive(), Err(HypercallError::MSGQUEUE_EMPTY), "the slot is taken");
    let mut turn = direct.resume(token);
    while let world::Turn::More(token) = turn {
        turn = direct.resume(token);
    }
    assert!(matches!(turn, world::Turn::Reply(_)), "{turn:?}");
    world.manager.step(A, &mut Budget::new(1000));
    assert_eq!(queue.packets().len(), 1);
}

#[test]
fn a_reply_that_nobody_fetches_does_not_hold_up_the_queue() {
    let world = world();
    let (direct, queue) = (world.caller(A), world.caller(A));
    direct.step.set(1);
    let world::Turn::More(token) = direct.send(message::MEM_LEND, &scattered(20)) else {
        panic!("the call is long")
    };
    queue.queue_send(&get_vmid(1), true);
    for _ in 0..500 {
        world.manager.step(A, &mut Budget::new(1000));
    }
    assert_eq!(queue.packets().len(), 0, "the reply's caller had half a second");
    world.manager.machine().pass(500);
    world.manager.step(A, &mut Budget::new(1000));
    assert!(!world.manager.pending(A));
    assert_eq!(queue.packets().len(), 1);
    assert_eq!(direct.resume(token), world::Turn::Error(HypercallError::ARGUMENT_INVALID, 0));
}

#[test]
fn a_request_that_finds_no_frames_is_answered() {
    let mut poor = world::vm(3);
    poor.quotas.frames = 10;
    poor.quotas.frames_reserved = 10;
    let world = World::without_memory(&[poor, world::vm(4)], Default::default());
    let guest = world.caller(A);
    // Half of an address space's tables, so that the longest message finds too few frames.
    let mut at = RAM;
    while world.manager.give(A, at, rm::address::Pa(0x1_0000_0000 + at.0), 1).is_ok() {
        at = Ipa(at.0 + (1 << 30));
    }
    let packets = Guest::fragments(Header::request(message::MEM_LEND, 5), &scattered(500));
    assert!(packets.len() > 20 && packets[0].len() == 8 + PACKET_PAYLOAD);
    packets.iter().for_each(|packet| send(&guest, packet));
    let replies = guest.packets();
    assert_eq!(replies.len(), 1);
    assert_eq!(word(&replies[0], 8), 1, "NOMEM");
}

#[test]
fn a_vm_ends_with_the_code_that_it_sends_through_its_queue() {
    let world = world();
    let a = world.caller(A);
    let say = |payload: [u8; 4]| {
        let packet = Guest::fragments(Header::request(message::VM_EXIT, 1), &payload).concat();
        a.put_request(&packet);
        // The fake's guest keeps its request there.
        let args = [Capability::SEND_QUEUE.0, packet.len() as u64, 0x10_0000, 0, 0];
        a.hypercall(hypercall::MSGQUEUE_SEND, args).expect("a known call").exit
    };
    assert_eq!(say([0, 0, 77, 0]), None, "a code without meaning ends nobody");
    assert_eq!(word(&a.queue_receive().unwrap().0, Header::SIZE), 4);
    assert_eq!(say([0, 0, 3, 0]), Some(3));
}

/// A share of `count` scattered pages that B accepts by its queue where the manager finds room, without
/// reading the reply.
fn with_long_reply(world: &World, count: u64) -> u32 {
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = word(&a.call(message::MEM_LEND, &scattered(count)), 4);
    let wanted = accept(handle, Transfer::Lend, AcceptFlags::DONE, &[]);
    for packet in Guest::fragments(Header::request(message::MEM_ACCEPT, 1), &wanted) {
        send(&b, &packet);
    }
    settle(world, B);
    handle
}

#[test]
fn a_flush_in_the_middle_of_a_reply_drops_all_of_it_and_what_waits_comes() {
    let world = world();
    let b = world.caller(B);
    // 400 ranges are 28 packets, of which eight are in the queue.
    let handle = with_long_reply(&world, few(400, 260));
    let held = world.check().frames - world.check().tables;
    send(&b, &get_vmid(9));
    for _ in 0..3 {
        let (packet, more) = b.queue_receive().unwrap();
        assert_eq!(Header::decode(&packet[..]).unwrap().sequence, 1);
        assert!(more);
    }
    let args = [Capability::RECEIVE_QUEUE.0, 0, 0, 0, 0];
    assert_eq!(b.hypercall(hypercall::MSGQUEUE_FLUSH, args).unwrap().x[0], 0);
    settle(&world, B);
    let packets = b.packets();
    let headers: Vec<_> =
        packets.iter().map(|packet| Header::decode(&packet[..]).unwrap()).collect();
    assert_eq!(headers.len(), 1, "no packet of the reply that was cut off: {headers:?}");
    assert_eq!((headers[0].kind, headers[0].sequence), (Kind::Reply, 9));
    let left = world.check();
    assert!(left.frames - left.tables < held, "the reply's frames are free");
    // What the call did is done, whoever has heard of it.
    assert_eq!(b.queue_call(message::MEM_RELEASE, &by_handle(handle, 0)), [0; 4]);
    assert_eq!(world.caller(A).reclaim(handle, 0), Ok(0));
    world.check();
}

#[test]
fn a_packet_may_lie_in_two_pages_and_is_written_to_both_or_neither() {
    let world = world();
    let guest = world.caller(A);
    let receive = |buffer| {
        let args = [Capability::RECEIVE_QUEUE.0, buffer, PACKET as u64, 0, 0];
        guest.hypercall(hypercall::MSGQUEUE_RECEIVE, args).unwrap().x
    };
    send(&guest, &get_vmid(1));
    // The fake's guest has four pages for replies, and behind them none.
    let last = 0x20_0000 + 0x4000 - 8;
    assert_eq!(receive(last), [22, 0, 1]);
    assert_eq!(guest.reply(0x4000 - 8, 8), [0; 8], "nothing before the page that is not there");
    assert_eq!(receive(0x20_1000 - 10), [0, 16, 0]);
    assert_eq!(guest.reply(0x1000 - 10, 16)[12..], [3, 0, 0, 0], "the VMID");
    assert_eq!(receive(last), [60, 0, 0]);
}
