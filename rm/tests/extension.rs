//! The calls that Gunyah does not have: discovery, last refusals, events.

use rm::address::VmIndex;
use rm::config::{Roles, VmConfig};
use rm::machine::Features;
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, append, by_handle, offer, vm};
use rm_abi::extension::{
    self, CopyRequest, CopySegment, CopySide, Discovery, EventKind, EventReason, LastRefusal,
    ParcelEvent, Policies, Resource, Rule,
};
use rm_abi::{
    AcceptFlags, AppendFlags, CreateFlags, Handle, Header, Kind, Transfer, Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

#[test]
fn discovery_says_the_same_by_both_transports() {
    for (forced_write_back, forced) in [(false, 6), (true, 7)] {
        let world =
            World::with_features(&[vm(3), vm(4)], Features { forced_write_back, smmu: false });
        let direct = world.caller(A).call(extension::DISCOVER, &[]);
        assert_eq!(world.caller(A).queue_call(extension::DISCOVER, &[]), direct);
        assert_eq!(direct.len(), 4 + Discovery::SIZE);
        let told = Discovery::decode(&direct[4..]).unwrap();
        assert_eq!((told.version, told.direct_call, told.vms), (4, 0x1f0, 2));
        assert_eq!((told.max_acl, told.max_entries, told.max_payload), (16, 512, 14_616));
        assert_eq!(told.forced, Policies(forced));
        // Every call that is announced is served, and no other.
        for number in 0..64 {
            let (error, _) = world.caller(A).words(extension::CALLS + number, &[0; 16]);
            assert_eq!(error != u32::MAX, told.serves(extension::CALLS + number), "{number}");
        }
        assert_eq!(world.caller(A).words(extension::CALLS + 64, &[]).0, u32::MAX);
    }
}

#[test]
fn a_longer_request_may_only_bring_zeros() {
    let world = world();
    let a = world.caller(A);
    for call in [extension::DISCOVER, extension::LAST_REFUSAL, extension::SUBSCRIBE] {
        assert_eq!(a.words(call, &[0; 12]).0, 0, "{call:#x}");
        assert_eq!(a.words(call, &[0, 0, 0, 0, 0, 0, 0, 1]).0, 6, "{call:#x}");
        assert_eq!(a.last_refusal().rule, Rule::UnknownBits as u16);
        assert_eq!(a.words(call, &[0; 233]).0, 4, "{call:#x}, longer than a packet");
        assert_eq!(a.last_refusal().rule, Rule::Malformed as u16);
    }
    for length in 0..4 {
        assert_eq!(a.words(extension::SUBSCRIBE, &[0; 4][..length]).0, 4);
    }
    assert_eq!(a.words(extension::SUBSCRIBE, &4_u32.to_le_bytes()).0, 6, "an unknown event");
}

#[test]
fn a_direct_caller_without_room_for_the_data_is_told_so() {
    let world = World::new(&[VmConfig { roles: Roles::INSPECT, ..vm(3) }, vm(4)]);
    world.add_heap("all", 0b1, 1);
    let a = world.caller(A);
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    let about = [&handle.to_le_bytes()[..], &[0; 4]].concat();
    let one_page = [0, 4096, u64::MAX].map(u64::to_le_bytes).concat();
    let (own, of) = (CopySide::Own(RAM.0), CopySide::Parcel(Handle(handle), 0));
    let mut copy = [0; 8 + CopySegment::SIZE];
    let segment = CopySegment { source: of, dest: own, length: 1 };
    CopyRequest::encode(&[segment], &mut copy).unwrap();
    let calls: [(u32, &[u8], u64); 13] = [
        (extension::DISCOVER, &[], 48),
        (extension::LAST_REFUSAL, &[], 76),
        (extension::INFO, &about, 92),
        (extension::HOLDERS, &about, 400),
        (extension::LIMITS, &[0; 8], 308),
        (extension::DEVICES, &[], 148),
        (extension::COUNTERS, &[0; 8], 212),
        (extension::LEAF, &[0; 16], 44),
        (extension::HEAP, &[0; 8], 92),
        (extension::HEAP_ALLOC, &one_page, 28),
        (extension::COPY, &copy, 20),
        // One entry: as many are told as there is room for.
        (extension::LIST, &[0, 0, 0, 0, 100, 0, 0, 0], 76),
        (extension::VMS, &[0, 0, 0, 0, 100, 0, 0, 0], 52),
    ];
    for (call, payload, room) in calls {
        let request = [&Header::request(call, 1).encode()[..], payload].concat();
        a.put_request(&request);
        let length = request.len() as u64;
        let before = world.check();
        assert_eq!(a.direct(length, room - 1, 0), Turn::Error(2, 0), "{call:#x}");
        assert_eq!(world.check(), before, "G4: {call:#x}");
        match a.direct(length, room, 0) {
            Turn::More(token) => assert!(matches!(a.direct(0, room, token), Turn::Reply(_))),
            turn => assert!(matches!(turn, Turn::Reply(_)), "{call:#x}: {turn:?}"),
        }
    }
}

#[test]
fn a_refusal_is_kept_for_its_transport_until_the_next_one() {
    let world = world();
    let a = world.caller(A);
    let queued = || {
        let reply = a.queue_call(extension::LAST_REFUSAL, &[]);
        LastRefusal::decode(&reply[4..]).unwrap()
    };
    assert_eq!((a.last_refusal(), queued()), (LastRefusal::NONE, LastRefusal::NONE));
    assert_eq!(a.release(0x1234, 0), Err(7));
    let mut packet = Header::request(message::MEM_LEND, 0x99).encode().to_vec();
    packet.extend(offer(CreateFlags::empty(), &[(4, 6)], &[(PAGE + 1, 1)], &[]));
    assert_eq!(a.queue_send(&packet, true).0, 0);
    assert_eq!(a.packets()[0][8..], [6, 0, 0, 0]);
    let direct = LastRefusal {
        message: message::MEM_RELEASE,
        sequence: 7,
        rule: Rule::NoParcel as u16,
        error: 7,
        ..LastRefusal::NONE
    };
    let through_queue = LastRefusal {
        message: message::MEM_LEND,
        sequence: 0x99,
        rule: Rule::Address as u16,
        error: 6,
        ..LastRefusal::NONE
    };
    assert_eq!((a.last_refusal(), queued()), (direct, through_queue));
    a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    assert_eq!(a.last_refusal(), direct, "a success explains nothing");
    assert_eq!(world.caller(B).last_refusal(), LastRefusal::NONE, "each VM has its own");
    // In steps, too.
    a.step.set(1);
    let ranges = [(PAGE + 0x2000, 1), (WINDOW, 1)];
    assert_eq!(a.offer(Transfer::Lend, &[(4, 6)], &ranges), Err(0xa));
    assert_eq!(a.last_refusal().rule, Rule::NotOwned as u16);
    assert_eq!(a.words(0x5100_0016, &[]).0, u32::MAX);
    assert_eq!(a.last_refusal().error, u32::MAX);
}

#[test]
fn a_stranger_reads_the_same_bytes_of_a_parcel_and_of_none() {
    let world = world();
    let a = world.caller(A);
    let held = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    world.caller(B).accept_contiguous(held, Transfer::Lend, (WINDOW, 1)).unwrap();
    let unfinished = offer(CreateFlags::APPEND, &[(4, 6), (5, 6)], &[(PAGE + 0x2000, 1)], &[]);
    let unfinished = a.words(message::MEM_LEND, &unfinished).1;
    let notify = |handle: u32| [&handle.to_le_bytes()[..], &[2, 0, 0, 0, 0, 0, 0, 0]].concat();
    let explained = |handle: u32| {
        let c = world.caller(C);
        let calls = [
            (message::MEM_RELEASE, by_handle(handle, 0)),
            (message::MEM_RECLAIM, by_handle(handle, 0)),
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, &[])),
            (message::MEM_APPEND, append(handle, AppendFlags::END, &[(PAGE, 1)])),
            (message::MEM_NOTIFY, notify(handle)),
        ];
        calls.map(|(call, payload)| {
            assert_eq!(c.words(call, &payload).0, 7, "G6: {call:#x}");
            let told = c.call(extension::LAST_REFUSAL, &[]);
            assert_eq!(told[4 + 12..], [0; LastRefusal::SIZE - 12], "G6: {call:#x}");
            told
        })
    };
    let never = explained(0x1234);
    assert_eq!(explained(held), never, "G6");
    assert_eq!(explained(unfinished), never, "G6");
}

#[test]
fn a_reclaim_that_must_wait_names_who_holds_the_parcel() {
    let world = World::new(&[vm(3), vm(4), vm(0x80), vm(6)]);
    let a = world.caller(A);
    let acl = [(6, 4), (0x80, 4), (255, 4), (4, 4)];
    let handle = a.offer(Transfer::Lend, &acl, &[(PAGE, 1)]).unwrap();
    for borrower in [C, B] {
        let guest = world.caller(borrower);
        guest.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
    }
    assert_eq!(a.reclaim(handle, 0), Err(0xb));
    let last = a.last_refusal();
    assert_eq!((last.rule, last.resource), (Rule::Held as u16, 0));
    assert_eq!(last.holders(), [Vmid(4), Vmid(0x80)]);
    world.caller(B).release(handle, 0).unwrap();
    assert_eq!(a.reclaim(handle, 0), Err(0xb));
    assert_eq!(a.last_refusal().holders(), [Vmid(0x80)]);
    assert_eq!(a.reclaim(0x1234, 0), Err(7));
    assert_eq!(a.last_refusal().holders(), [], "the next refusal has its own");
}

/// The events that a VM has been told of.
fn events(guest: &Guest<'_>) -> Vec<ParcelEvent> {
    let packets = guest.packets();
    let read = packets.iter().map(|packet| {
        let header = Header::decode(&packet[..]).unwrap();
        assert_eq!((header.kind, header.message), (Kind::Notification, extension::PARCEL_EVENT));
        ParcelEvent::decode(&packet[Header::SIZE..]).expect("an event")
    });
    read.collect()
}

fn event(handle: u32, borrower: u16, kind: EventKind) -> ParcelEvent {
    let reason = EventReason::CALL;
    ParcelEvent { handle: Handle(handle), borrower: Vmid(borrower), kind, reason, tag: 0 }
}

fn subscribe(guest: &Guest<'_>, events: u32) {
    assert_eq!(guest.words(extension::SUBSCRIBE, &events.to_le_bytes()).0, 0);
}

#[test]
fn an_owner_that_subscribed_hears_of_every_accept_and_release() {
    use EventKind::{Accepted, Released};
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let lend = |at| a.offer(Transfer::Lend, &[(4, 6), (5, 4)], &[(at, 1)]).unwrap();
    let handle = lend(PAGE);
    let pass = || {
        b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
        b.release(handle, 0).unwrap();
    };
    pass();
    assert_eq!(events(&a), [], "nobody subscribed");
    subscribe(&a, 3);
    pass();
    c.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
    let told = [event(handle, 4, Accepted), event(handle, 4, Released), event(handle, 5, Accepted)];
    assert_eq!(events(&a), told);
    // A refused call is no event, and what others do among themselves is not A's.
    assert_eq!(b.release(handle, 0), Err(0xc));
    let theirs = b.offer(Transfer::Lend, &[(5, 6)], &[(PAGE, 1)]).unwrap();
    c.accept_contiguous(theirs, Transfer::Lend, (WINDOW + 0x10_0000, 1)).unwrap();
    assert_eq!((events(&a), events(&b), events(&c)), (vec![], vec![], vec![]));
    subscribe(&a, 2);
    pass();
    assert_eq!(events(&a), [event(handle, 4, Released)]);
    subscribe(&a, 0);
    pass();
    assert_eq!(events(&a), []);
}

#[test]
fn an_accept_is_told_once_when_it_is_done() {
    use EventKind::{Accepted, Released};
    for step in [1, rm::operation::STEP] {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        subscribe(&a, 3);
        let runs = [(PAGE, 1), (PAGE + 0x2000, 2)];
        let handle = a.offer(Transfer::Lend, &[(4, 6)], &runs).unwrap();
        let part = |flags, ranges: &[(u64, u64)]| {
            b.words(message::MEM_ACCEPT, &accept(handle, Transfer::Lend, flags, ranges)).0
        };
        assert_eq!(part(AcceptFlags::empty(), &[(WINDOW, 1)]), 0);
        assert_eq!(events(&a), [], "nothing is mapped");
        b.release(handle, 0).unwrap();
        assert_eq!(events(&a), [event(handle, 4, Released)], "it held the parcel");
        assert_eq!(part(AcceptFlags::empty(), &[(WINDOW, 1)]), 0);
        assert_eq!(part(AcceptFlags::DONE, &[(WINDOW + 0x10_0000, 2)]), 0);
        assert_eq!(events(&a), [event(handle, 4, Accepted)]);
        let donated = a.offer(Transfer::Donate, &[(4, 7)], &[(PAGE + 0x10_0000, 1)]).unwrap();
        b.accept_contiguous(donated, Transfer::Donate, (WINDOW + 0x20_0000, 1)).unwrap();
        assert_eq!(events(&a), [event(donated, 4, Accepted)]);
    }
}

#[test]
fn an_event_waits_while_its_owners_queue_is_full() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    subscribe(&a, 3);
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    for _ in 0..6 {
        b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
        b.release(handle, 0).unwrap();
    }
    let told = events(&a);
    // Eight were in the queue; what came then was overtaken by the last, which is how it stands.
    assert_eq!(told.len(), 9);
    assert_eq!(told[8], event(handle, 4, EventKind::Released));
}

#[test]
fn every_rule_that_names_a_resource_names_one_that_clients_know() {
    for resource in Resource::ALL {
        let refusal = rm::refusal::Refusal::Quota(*resource);
        assert_eq!((refusal.rule(), refusal.resource()), (Rule::Quota, Some(*resource)));
    }
    assert_eq!(rm::refusal::Refusal::NoFrame.resource(), Some(Resource::Frames));
}
