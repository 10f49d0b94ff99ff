//! The end of VMs: what it takes apart, in which order, and who is told.

use rm::address::{Ipa, VmIndex};
use rm::config::{AfterEnd, OwnedParcels, Roles, VmConfig};
use rm::life::VmState;
use rm::machine::fake::Wish;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, offer, vm};
use rm::operation::STEP;
use rm_abi::extension::{
    EventKind, EventReason, Events, LastRefusal, ParcelEvent, Rule, SUBSCRIBE, SubscribeRequest,
};
use rm_abi::vm::{
    ExitKind, StopFlags, VmExitRequest, VmExited, VmRequest, VmStatus, VmStopRequest,
};
use rm_abi::{AcceptFlags, Bytes, CreateFlags, Header, Transfer, Vmid, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;
const GIVEN: Transfer = Transfer::Donate;

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5), vm(6)])
}

/// A is the first VM, and manages the others, which wait for it when they end.
fn managed() -> World {
    let waits = |vmid| VmConfig { after_end: AfterEnd::Wait, ..vm(vmid) };
    World::new(&[VmConfig { roles: Roles::MANAGE, ..vm(3) }, waits(4), waits(5)])
}

fn merge_all(world: &World) {
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
}

/// Ids of the notifications that wait for a VM.
fn heard(guest: &Guest<'_>) -> Vec<u32> {
    let packets = guest.packets();
    packets.iter().map(|packet| Header::decode(&packet[..]).unwrap().message).collect()
}

/// States of VMs that a VM was told.
fn states(packets: &[Vec<u8>]) -> Vec<VmState> {
    let status = |packet: &Vec<u8>| {
        let header = Header::decode(&packet[..])?;
        let payload = &packet[Header::SIZE..];
        (header.message == message::VM_STATUS).then(|| VmStatus::decode(payload).unwrap().state)
    };
    packets.iter().filter_map(status).collect()
}

fn about(vmid: u16) -> Vec<u8> {
    let mut payload = vec![0; VmRequest::SIZE];
    VmRequest { vmid: Vmid(vmid) }.encode(&mut payload).unwrap();
    payload
}

fn stop(vmid: u16, flags: StopFlags) -> Vec<u8> {
    let mut payload = vec![0; VmStopRequest::SIZE];
    VmStopRequest { vmid: Vmid(vmid), flags, reason: 9 }.encode(&mut payload).unwrap();
    payload
}

fn scattered(pages: u64) -> Vec<(u64, u64)> {
    (0..pages).map(|n| (PAGE + n * 0x2000, 1)).collect()
}

#[test]
fn g5_a_dead_borrower_leaves_zeros_in_a_lend_and_the_owner_hears_of_it() {
    for step in some([1, 100, STEP], 3) {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        let lent = a.offer(LENT, &[(4, 6)], &scattered(5)).unwrap();
        b.accept_contiguous(lent, LENT, (WINDOW, 5)).unwrap();
        let shared = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE + 0x1000, 1)]).unwrap();
        b.accept_contiguous(shared, SHARED, (WINDOW + 0x10_0000, 1)).unwrap();
        world.cpu(B).write(Ipa(WINDOW + 0x2000), 7).unwrap();
        world.cpu(B).write(Ipa(WINDOW + 0x10_0000), 8).unwrap();
        world.end(B);
        assert_eq!(world.manager.state(B), VmState::Resetting);
        world.settle(B, step);
        assert_eq!(world.manager.state(B), VmState::Reset);
        assert!(world.cpu(B).read(Ipa(WINDOW)).is_err());
        assert_eq!(heard(&a), [message::MEM_RELEASED; 2]);
        assert_eq!((a.reclaim(lent, 0), a.reclaim(shared, 0)), (Ok(0), Ok(0)));
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x4000)), Ok(0), "what B wrote is gone");
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x1000)), Ok(8), "a share was both VMs' all along");
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

#[test]
fn g5_a_dead_owner_s_parcels_are_taken_back_and_zeroed() {
    for step in some([1, 100, STEP], 3) {
        let world = world();
        let before = world.check();
        let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
        let lent = a.offer(LENT, &[(4, 6), (5, 4)], &scattered(5)).unwrap();
        b.accept_contiguous(lent, LENT, (WINDOW, 5)).unwrap();
        let given = a.offer(GIVEN, &[(5, 7)], &[(PAGE + 0x20_0000, 3)]).unwrap();
        let open = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE + 0x30_0000, 1)], &[]);
        assert_eq!(a.words(message::MEM_LEND, &open).0, 0);
        world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
        world.end(A);
        world.settle(A, step);
        assert!(world.cpu(B).read(Ipa(WINDOW)).is_err());
        assert_eq!((heard(&b), heard(&c)), (vec![message::MEM_RECALL], vec![]));
        for (guest, handle) in [(&b, lent), (&c, lent), (&c, given)] {
            assert_eq!(guest.release(handle, 0), Err(7));
        }
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0));
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

/// What the dying VM is doing, as borrower or as owner: made by a function that gets a parcel of the other
/// VM and gives the request.
type Request = fn(u32) -> (u32, Vec<u8>);

const CALLS: [Request; 9] = [
    |_| (message::MEM_LEND, offer(CreateFlags::empty(), &[(3, 6)], &scattered(6), &[])),
    |_| (message::MEM_SHARE, offer(CreateFlags::SANITIZE, &[(3, 6), (4, 6)], &scattered(6), &[])),
    |_| (message::MEM_DONATE, offer(CreateFlags::empty(), &[(3, 7)], &scattered(6), &[])),
    // Refused at its last range.
    |_| {
        let mut ranges = scattered(5);
        ranges.push((0x1000, 1));
        (message::MEM_LEND, offer(CreateFlags::empty(), &[(3, 6)], &ranges, &[]))
    },
    |handle| {
        let places: Vec<_> = (0..6).map(|n| (WINDOW + n * 0x3000, 1)).collect();
        (message::MEM_ACCEPT, accept(handle, LENT, AcceptFlags::DONE, &places))
    },
    |handle| (message::MEM_ACCEPT, accept(handle, LENT, AcceptFlags::empty(), &[])),
    |handle| {
        let place = |n: u64| if n < 5 { (WINDOW + n * 0x3000, 1) } else { (RAM.0, 1) };
        let places: Vec<_> = (0..6).map(place).collect();
        (message::MEM_ACCEPT, accept(handle, LENT, AcceptFlags::DONE, &places))
    },
    |handle| (message::MEM_RELEASE, by_handle(handle, 0)),
    |handle| (rm_abi::extension::REVOKE, by_handle(handle, 0)),
];

#[test]
fn a_vm_may_die_at_every_step_of_every_call() {
    for (case, request) in some(CALLS.iter().enumerate(), 4) {
        for steps in some(few(0, 6)..40, 19) {
            let world = world();
            let before = world.check();
            let (a, b) = (world.caller(A), world.caller(B));
            // The last call is an owner's.
            let handle = if case == 8 {
                let handle = b.offer(LENT, &[(3, 6)], &scattered(6)).unwrap();
                a.accept_contiguous(handle, LENT, (WINDOW, 6)).unwrap();
                handle
            } else {
                a.offer(LENT, &[(4, 6)], &scattered(6)).unwrap()
            };
            if case == 7 {
                b.accept_contiguous(handle, LENT, (WINDOW, 6)).unwrap();
            }
            b.step.set(1);
            let (message, payload) = request(handle);
            let mut turn = b.send(message, &payload);
            for _ in 0..steps {
                if let Turn::More(token) = turn {
                    turn = b.resume(token);
                }
            }
            world.end(B);
            world.settle(B, 1);
            if case != 8 {
                assert_eq!(a.reclaim(handle, 0), Ok(0), "case {case}, {steps} steps");
            }
            merge_all(&world);
            assert_eq!(world.check(), before, "case {case}, {steps} steps");
        }
    }
}

#[test]
fn what_is_in_a_dead_vm_s_mailbox_is_dropped() {
    let world = world();
    let before = world.check();
    let (a, b) = (world.caller(A), world.caller(B));
    // Replies and news fill B's queue, a request waits in pieces, and a long reply in frames.
    let handles: Vec<_> = (0..few(20, 9))
        .map(|n| a.offer(LENT, &[(4, 6)], &[(PAGE + n * 0x1000, 1)]).unwrap())
        .collect();
    for _ in 0..12 {
        b.queue_send(&Guest::fragments(Header::request(message::VM_GET_VMID, 1), &[])[0], false);
    }
    let long = offer(CreateFlags::empty(), &[(3, 6)], &scattered(100), &[]);
    let pieces = Guest::fragments(Header::request(message::MEM_LEND, 2), &long);
    b.queue_send(&pieces[0], false);
    for &handle in &handles {
        let revoke = by_handle(handle, 0);
        b.accept_contiguous(handle, LENT, (WINDOW, 1)).unwrap();
        assert_eq!(a.words(rm_abi::extension::REVOKE, &revoke).0, 0);
        a.reclaim(handle, 0).unwrap();
    }
    world.end(B);
    world.settle(B, 1);
    merge_all(&world);
    assert_eq!(world.check(), before);
    world.start(B);
    assert_eq!(b.packets(), Vec::<Vec<u8>>::new(), "the next life begins with empty queues");
    assert_eq!(b.queue_call(message::VM_GET_VMID, &[]), [0, 0, 0, 0, 4, 0, 0, 0]);
}

#[test]
fn two_hundred_lives_leave_the_counts_of_the_first() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let mut first = None;
    for life in 0..few(200, 3) {
        let lent = b.offer(LENT, &[(3, 6), (5, 4)], &scattered(40)).unwrap();
        a.accept_contiguous(lent, LENT, (WINDOW, 40)).unwrap();
        let shared = a.offer(SHARED, &[(3, 6), (4, 6)], &scattered(30)).unwrap();
        let places: Vec<_> = (0..30).map(|n| (WINDOW + n * 0x3000, 1)).collect();
        b.accept(shared, SHARED, &places).unwrap();
        world.cpu(B).write(Ipa(WINDOW), life).unwrap();
        world.end(B);
        world.settle(B, 500);
        assert_eq!(a.reclaim(shared, 0), Ok(0), "life {life}");
        a.packets();
        merge_all(&world);
        let counts = world.check();
        assert_eq!(*first.get_or_insert(counts), counts, "life {life}");
        world.start(B);
    }
}

#[test]
fn a_vm_dies_with_thousands_of_parcels_and_each_step_is_short() {
    const COUNT: u32 = few(4096, 40);
    let mut owner = vm(3);
    owner.quotas.parcels = COUNT;
    owner.quotas.frames = few(3000, 60);
    let mut borrower = vm(4);
    borrower.quotas.frames = few(3000, 60);
    for dying in [A, B] {
        let world = World::new(&[owner, borrower]);
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        for n in 0..u64::from(COUNT) - 1 {
            let handle = a.offer(LENT, &[(4, 6)], &[(RAM.0 + n * 0x1000, 1)]).unwrap();
            b.accept_contiguous(handle, LENT, (WINDOW + n * 0x1000, 1)).unwrap();
        }
        world.end(dying);
        let machine = world.manager.machine();
        let mut most = 0;
        while world.manager.pending(dying) {
            let writes = machine.counters().table_writes;
            world.manager.step(dying, &mut rm::operation::budget::Budget::new(STEP));
            most = most.max(machine.counters().table_writes - writes);
        }
        // A merge clears a table, and no other unit writes as much.
        assert!(most <= 8 * 514, "{most} descriptors in one step");
        if dying == B {
            a.packets();
            world.end(A);
            world.settle(A, STEP);
        }
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

#[test]
fn a_kept_parcel_stays_with_its_borrower_until_it_lets_go() {
    let keeps = VmConfig { owned_parcels: OwnedParcels::Keep, ..vm(3) };
    let world = World::new(&[keeps, vm(4), vm(5)]);
    let before = world.check();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let lent = a.offer(LENT, &[(4, 6), (5, 6)], &scattered(3)).unwrap();
    b.accept_contiguous(lent, LENT, (WINDOW, 3)).unwrap();
    world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
    world.end(A);
    world.settle(A, 1);
    assert_eq!(world.manager.state(A), VmState::Resetting, "it waits, without a step to do");
    assert_eq!(heard(&b), [message::MEM_RECALL]);
    assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(7));
    assert_eq!(c.accept_contiguous(lent, LENT, (WINDOW, 3)), Err(3), "nobody else gets it");
    assert_eq!(b.release(lent, 0), Ok(0));
    assert!(world.manager.pending(A), "the last release wakes it");
    world.settle(A, 1);
    assert_eq!(world.manager.state(A), VmState::Reset);
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0));
    merge_all(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn a_donation_that_is_being_accepted_is_decided_when_its_owner_dies() {
    for steps in some(0..40, 13) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let given = a.offer(GIVEN, &[(4, 7)], &scattered(4)).unwrap();
        b.step.set(1);
        let payload =
            accept(given, GIVEN, AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS, &[(WINDOW, 4)]);
        let mut turn = b.send(message::MEM_ACCEPT, &payload);
        for _ in 0..steps {
            if let Turn::More(token) = turn {
                turn = b.resume(token);
            }
        }
        world.end(A);
        while world.manager.pending(A) || world.manager.pending(B) {
            world.settle(A, 1);
            world.manager.step(B, &mut rm::operation::budget::Budget::new(1));
        }
        assert_eq!(world.manager.state(A), VmState::Reset, "{steps} steps");
        let mine = world.cpu(B).read(Ipa(WINDOW)).is_ok();
        assert_eq!(mine, world.cpu(A).read(Ipa(PAGE)).is_err(), "one of both owns it");
        world.check();
    }
}

#[test]
fn the_manager_hears_of_an_end_and_a_reset_in_the_order_of_the_original() {
    let world = managed();
    let (a, b) = (world.caller(A), world.caller(B));
    let older = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    let newer = a.offer(LENT, &[(4, 6)], &[(PAGE + 0x1000, 1)]).unwrap();
    for (handle, at) in [(older, WINDOW), (newer, WINDOW + 0x1000)] {
        b.accept_contiguous(handle, LENT, (at, 1)).unwrap();
    }
    world.end(B);
    assert_eq!(world.settle(B, STEP), 0, "it keeps what it has");
    let packets = a.packets();
    assert_eq!(states(&packets), [VmState::Exited]);
    let exited = VmExited::decode(&packets[1][Header::SIZE..]).unwrap();
    assert_eq!((exited.vmid, exited.kind), (Vmid(4), ExitKind::Fault));
    assert_eq!(a.reclaim(older, 0), Err(0xb));

    let request = Guest::fragments(Header::request(message::VM_RESET, 1), &about(4));
    a.queue_send(&request[0], false);
    world.settle(B, 1);
    let packets = a.packets();
    let ids: Vec<_> =
        packets.iter().map(|packet| Header::decode(&packet[..]).unwrap().message).collect();
    let (status, released) = (message::VM_STATUS, message::MEM_RELEASED);
    assert_eq!(ids, [status, message::VM_RESET, released, released, status]);
    assert_eq!(states(&packets), [VmState::Resetting, VmState::Reset]);
    let handle = |packet: &[u8]| packet[Header::SIZE..].u32_at(0);
    assert_eq!((handle(&packets[2]), handle(&packets[3])), (newer, older), "newest first");
    assert_eq!((a.reclaim(older, 0), a.reclaim(newer, 0)), (Ok(0), Ok(0)));
    world.check();
}

#[test]
fn a_manager_stops_resets_and_starts_a_vm() {
    let world = managed();
    let (a, b) = (world.caller(A), world.caller(B));
    let machine = world.manager.machine();
    assert_eq!(a.words(message::VM_STOP, &stop(4, StopFlags::empty())), (0, 0));
    assert_eq!(heard(&b), [message::VM_SHUTDOWN]);
    assert_eq!(machine.wishes(), [], "it may end by itself");
    assert_eq!(a.words(message::VM_RESET, &about(4)).0, 0x14, "it runs");
    assert_eq!(a.words(message::VM_START, &about(4)).0, 0x14);
    assert_eq!(a.words(message::VM_STOP, &stop(4, StopFlags::FORCE)), (0, 0));
    assert_eq!(machine.wishes(), [(B, Wish::Stop)]);
    assert_eq!(a.words(message::VM_GET_ID, &about(4)).0, 0);
    world.end(B);
    assert_eq!(a.words(message::VM_GET_ID, &about(4)).0, 0x14, "the name of one that has ended");
    assert_eq!(a.last_refusal().rule, Rule::VmState as u16);
    assert_eq!(a.words(message::VM_STOP, &stop(4, StopFlags::FORCE)).0, 0x14);
    assert_eq!(a.words(message::VM_RESET, &about(4)), (0, 0));
    world.settle(B, STEP);
    assert_eq!(a.words(message::VM_GET_STATE, &about(4)), (0, VmState::Reset as u32));
    assert_eq!(a.words(message::VM_START, &about(4)), (0, 0));
    assert_eq!(machine.wishes(), [(B, Wish::Start)]);
    world.manager.started(B);
    let seen = [VmState::Exited, VmState::Resetting, VmState::Reset, VmState::Init];
    assert_eq!(states(&a.packets()), [&seen[..], &[VmState::Running]].concat());
}

#[test]
fn who_has_no_role_cannot_stop_reset_or_start() {
    let world = managed();
    let b = world.caller(B);
    let before = world.check();
    for (message, payload, code) in [
        (message::VM_STOP, stop(5, StopFlags::FORCE), 0xd),
        (message::VM_RESET, about(5), 0xd),
        (message::VM_START, about(5), 3),
        (message::VM_START, about(99), 3),
        (message::VM_START, vec![0; 3], 4),
        (message::VM_GET_STATE, about(99), 2),
        (message::VM_GET_STATE, about(5), 2),
        (message::VM_GET_ID, about(5), 2),
    ] {
        assert_eq!(b.words(message, &payload).0, code, "{message:#x} {payload:?}");
    }
    assert_eq!(world.manager.machine().wishes(), []);
    let a = world.caller(A);
    assert_eq!(a.words(message::VM_START, &about(99)).0, 0xd);
    assert_eq!(world.check(), before);
}

#[test]
fn g6_a_vm_that_is_nobodys_business_is_refused_as_one_that_is_not_there() {
    let world = managed();
    let b = world.caller(B);
    for (message, request) in [
        (message::VM_GET_STATE, &about as &dyn Fn(u16) -> Vec<u8>),
        (message::VM_GET_ID, &about),
        (message::VM_START, &about),
        (message::VM_STOP, &|vmid| stop(vmid, StopFlags::FORCE)),
        (message::VM_STOP, &|vmid| stop(vmid, StopFlags::empty())),
        (message::VM_RESET, &about),
    ] {
        let [there, none] = [5, 99].map(|vmid| {
            let reply = b.call(message, &request(vmid));
            let why = b.last_refusal();
            assert_eq!(why.message, message);
            (reply, LastRefusal { sequence: 0, ..why })
        });
        assert_eq!(there, none, "{message:#x}");
    }
}

#[test]
fn a_vm_knows_itself_its_owner_and_its_peers() {
    let world = managed();
    let (a, b) = (world.caller(A), world.caller(B));
    assert_eq!(b.words(message::VM_GET_OWNER, &[]), (0, 3));
    assert_eq!(b.call(message::VM_GET_PEERS, &[]), [[0; 4], [1, 0, 0, 0], [3, 0, 0, 0]].concat());
    let all = [[0; 4], [2, 0, 0, 0], [4, 0, 0, 0], [5, 0, 0, 0]].concat();
    assert_eq!(a.call(message::VM_GET_PEERS, &[]), all);
    assert_eq!(a.queue_call(message::VM_GET_PEERS, &[]), all);
    assert_eq!(b.words(message::VM_GET_STATE, &about(0)), (0, 3));
    assert_eq!(b.words(message::VM_GET_STATE, &about(3)), (0, 3));
    let name = b.call(message::VM_GET_ID, &about(0));
    assert_eq!(name, [&[0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0][..]].concat(), "it has none");
}

#[test]
fn a_vm_that_restarts_is_loaded_again_without_being_asked() {
    let world = World::new(&[vm(3), VmConfig { after_end: AfterEnd::Restart, ..vm(4) }]);
    world.end(B);
    world.settle(B, 1);
    assert_eq!(world.manager.machine().wishes(), [(B, Wish::Start)]);
    assert_eq!(world.manager.state(B), VmState::Init);
    world.manager.started(B);
    let b = world.caller(B);
    assert_eq!(b.words(message::VM_GET_VMID, &[]), (0, 4));
}

#[test]
fn an_owner_that_subscribed_is_told_why_its_parcel_was_released() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let lent = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    b.accept_contiguous(lent, LENT, (WINDOW, 1)).unwrap();
    let events = SubscribeRequest { events: Events::RELEASED };
    let mut payload = [0; SubscribeRequest::SIZE];
    events.encode(&mut payload).unwrap();
    assert_eq!(a.words(SUBSCRIBE, &payload), (0, 0));
    world.end(B);
    world.settle(B, STEP);
    let packets = a.packets();
    assert_eq!(packets.len(), 1, "this instead of MEM_RELEASED");
    let event = ParcelEvent::decode(&packets[0][Header::SIZE..]).unwrap();
    let expected = (lent, Vmid(4), EventKind::Released, EventReason::DEATH);
    assert_eq!((event.handle.0, event.borrower, event.kind, event.reason), expected);
}

#[test]
fn what_a_vm_says_as_it_ends_reaches_its_manager() {
    let world = managed();
    let (a, b) = (world.caller(A), world.caller(B));
    let mut payload = [0; VmExitRequest::SIZE];
    VmExitRequest { flags: 0x12, code: 2 }.encode(&mut payload).unwrap();
    assert_eq!(b.send(message::VM_EXIT, &payload), Turn::Exit(2));
    world.manager.ended(B, ExitKind::Call);
    let packets = a.packets();
    let exited = VmExited::decode(&packets[1][Header::SIZE..]).unwrap();
    assert_eq!((exited.kind, exited.flags, exited.code), (ExitKind::Call, 0x12, 2));
}

#[test]
fn a_vm_is_not_restarted_when_it_has_done_its_work() {
    let restarts = VmConfig { after_end: AfterEnd::Restart, ..vm(4) };
    for (code, state) in [(0, VmState::Reset), (1, VmState::Init)] {
        let world = World::new(&[vm(3), restarts]);
        let mut payload = [0; VmExitRequest::SIZE];
        VmExitRequest { flags: 0, code }.encode(&mut payload).unwrap();
        assert_eq!(world.caller(B).send(message::VM_EXIT, &payload), Turn::Exit(code));
        world.manager.ended(B, ExitKind::Call);
        world.settle(B, STEP);
        assert_eq!(world.manager.state(B), state);
    }
}

#[test]
fn a_vm_that_cannot_be_loaded_stays_reset_and_is_told_nothing() {
    let world = managed();
    let (a, b) = (world.caller(A), world.caller(B));
    world.end(B);
    assert_eq!(a.words(message::VM_RESET, &about(4)), (0, 0));
    world.settle(B, STEP);
    assert_eq!(a.words(message::VM_START, &about(4)), (0, 0));
    assert_eq!(a.words(message::VM_STOP, &stop(4, StopFlags::empty())).0, 0x14, "it does not run");
    world.manager.not_started(B);
    assert_eq!(a.words(message::VM_GET_STATE, &about(4)), (0, VmState::Reset as u32));
    let parcel = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    assert_eq!(a.words(rm_abi::extension::REVOKE, &by_handle(parcel, 0)), (0, 0));
    assert_eq!(a.words(message::VM_START, &about(4)), (0, 0), "it may be tried again");
    world.manager.started(B);
    assert_eq!(heard(&b), []);
}
