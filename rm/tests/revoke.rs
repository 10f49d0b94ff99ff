//! REVOKE: taking memory back from borrowers that do not cooperate.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, offer, vm};
use rm_abi::extension::{REVOKE, RevokeFlags, RevokeRequest, Rule};
use rm_abi::{AcceptFlags, CreateFlags, Handle, Header, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5), vm(6)])
}

fn revoke(guest: &Guest<'_>, handle: u32) -> u32 {
    guest.words(REVOKE, &by_handle(handle, 0)).0
}

/// A parcel of VM 3 of `pages` scattered pages, which VMs 4 and 5 have mapped.
fn held(world: &World, transfer: Transfer, pages: u64) -> u32 {
    let ranges: Vec<_> = (0..pages).map(|n| (PAGE + n * 0x2000, 1)).collect();
    let acl = [(3, 6), (4, 6), (5, 4)];
    let acl = if transfer == SHARED { &acl[..] } else { &acl[1..] };
    let handle = world.caller(A).offer(transfer, acl, &ranges).unwrap();
    world.caller(B).accept_contiguous(handle, transfer, (WINDOW, pages)).unwrap();
    let places: Vec<_> = (0..pages).map(|n| (WINDOW + n * 0x3000, 1)).collect();
    world.caller(C).accept(handle, transfer, &places).unwrap();
    handle
}

#[test]
fn g5_the_owner_takes_a_lend_back_from_all_borrowers_and_gets_zeros() {
    for step in some([1, 200, rm::operation::STEP], 3) {
        let world = world();
        let before = world.check();
        let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
        a.step.set(step);
        let handle = held(&world, LENT, 5);
        world.cpu(B).write(Ipa(WINDOW + 0x2000), 7).unwrap();
        assert_eq!(a.reclaim(handle, 0), Err(0xb));
        assert_eq!(revoke(&a, handle), 0);
        assert!(world.cpu(B).read(Ipa(WINDOW)).is_err() && world.cpu(C).read(Ipa(WINDOW)).is_err());
        for guest in [&b, &c] {
            assert_eq!(guest.release(handle, 0), Err(7), "it is none of theirs any more");
            let again = guest.accept_contiguous(handle, LENT, (WINDOW, 5));
            assert_eq!(again, Err(7), "and stays so");
            let packets = guest.packets();
            assert_eq!(packets.len(), 1);
            assert_eq!(Header::decode(&packets[0][..]).unwrap().message, message::MEM_RECALL);
        }
        assert_eq!(revoke(&a, handle), 0, "nothing is left to take");
        assert_eq!(a.reclaim(handle, 0), Ok(0));
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x4000)), Ok(0), "B's data is not A's");
        while [A, B, C].iter().any(|&vm| world.manager.idle(vm)) {}
        assert_eq!(world.check(), before);
    }
}

#[test]
fn a_share_keeps_what_is_in_it() {
    let world = world();
    let a = world.caller(A);
    let handle = held(&world, SHARED, 2);
    world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
    assert_eq!(revoke(&a, handle), 0);
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(7));
    assert_eq!(a.reclaim(handle, 0), Ok(0));
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(7));
    world.check();
}

#[test]
fn who_may_not_revoke_is_refused_with_its_code() {
    let world = world();
    let handle = held(&world, LENT, 1);
    assert_eq!(revoke(&world.caller(B), handle), 3, "a borrower");
    assert_eq!(revoke(&world.caller(VmIndex(3)), handle), 7, "a stranger");
    assert_eq!(revoke(&world.caller(A), handle + 0x2000), 7, "no parcel");
    let a = world.caller(A);
    assert_eq!(a.words(REVOKE, &handle.to_le_bytes()).0, 4, "too short");
    assert_eq!(a.words(REVOKE, &by_handle(handle, 2)).0, 6, "an unknown flag");
    assert!(world.cpu(B).read(Ipa(WINDOW)).is_ok(), "G4: nothing was revoked");
    let unfinished = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE + 0x8_0000, 1)], &[]);
    let unfinished = a.words(message::MEM_LEND, &unfinished).1;
    assert_eq!(revoke(&a, unfinished), 0, "nobody has it");
    a.reclaim(unfinished, 0).unwrap();
}

/// Each call of a borrower that is cut off by a revocation after any number of its steps.
/// What B is doing while the parcel is taken away from it.
type Request = fn(u32) -> (u32, Vec<u8>);

fn at_work(handle: u32, flags: AcceptFlags, places: &[(u64, u64)]) -> (u32, Vec<u8>) {
    (message::MEM_ACCEPT, accept(handle, LENT, flags, places))
}

const CALLS: [Request; 5] = [
    |handle| {
        let places: Vec<_> = (0..6).map(|n| (WINDOW + n * 0x3000, 1)).collect();
        at_work(handle, AcceptFlags::DONE, &places)
    },
    |handle| at_work(handle, AcceptFlags::empty(), &[]),
    // Refused at its end, because the last place is B's own memory.
    |handle| {
        let place = |n: u64| if n < 5 { (WINDOW + n * 0x3000, 1) } else { (RAM.0, 1) };
        at_work(handle, AcceptFlags::DONE, &(0..6).map(place).collect::<Vec<_>>())
    },
    // As that one, after an accept of the first two units.
    |handle| {
        let place = |n: u64| if n < 3 { (WINDOW + n * 0x3000, 1) } else { (RAM.0, 1) };
        at_work(handle, AcceptFlags::DONE, &(0..4).map(place).collect::<Vec<_>>())
    },
    |handle| (message::MEM_RELEASE, by_handle(handle, 0)),
];

#[test]
fn a_call_that_is_at_work_is_taken_over_wherever_it_stands() {
    for (case, payload) in CALLS.iter().enumerate() {
        for steps in some(few(0, 5)..30, 30) {
            let world = world();
            let before = world.check();
            let (a, b) = (world.caller(A), world.caller(B));
            let ranges: Vec<_> = (0..6).map(|n| (PAGE + n * 0x2000, 1)).collect();
            let handle = a.offer(LENT, &[(4, 6)], &ranges).unwrap();
            match case {
                3 => {
                    let two = [(WINDOW + 0x10_0000, 1), (WINDOW + 0x20_0000, 1)];
                    let payload = accept(handle, LENT, AcceptFlags::empty(), &two);
                    assert_eq!(b.words(message::MEM_ACCEPT, &payload), (0, 0));
                }
                4 => drop(b.accept_contiguous(handle, LENT, (WINDOW, 6)).unwrap()),
                _ => {}
            }
            b.step.set(1);
            let (message, payload) = payload(handle);
            let mut turn = b.send(message, &payload);
            for _ in 0..steps {
                if let Turn::More(token) = turn {
                    turn = b.resume(token);
                }
            }
            // B does nothing any more, and neither does anybody for it.
            a.step.set(1);
            assert_eq!(revoke(&a, handle), 0, "case {case}, {steps} steps");
            assert_eq!(a.reclaim(handle, 0), Ok(0), "case {case}, {steps} steps");
            if let Turn::More(token) = turn {
                let over = Turn::Reply(7_u32.to_le_bytes().to_vec());
                assert_eq!(b.resume(token), over, "case {case}, {steps} steps");
            }
            for vm in world.vms() {
                while world.manager.idle(vm) {}
            }
            assert_eq!(world.check(), before, "case {case}, {steps} steps");
        }
    }
}

#[test]
fn g7_a_borrower_that_accepts_and_releases_for_ever_holds_nobody_up() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let ranges: Vec<_> = (0..40).map(|n| (PAGE + n * 0x2000, 1)).collect();
    let handle = a.offer(LENT, &[(4, 6)], &ranges).unwrap();
    a.step.set(20);
    b.step.set(20);
    let mut own = a.send(REVOKE, &by_handle(handle, 0));
    let (mut turns, mut calls) = (0, 0);
    while let Turn::More(token) = own {
        // Between any two steps of the owner B calls again.
        let request = if calls % 2 == 0 {
            at_work(handle, AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS, &[(WINDOW, 40)])
        } else {
            (message::MEM_RELEASE, by_handle(handle, 0))
        };
        let _ = b.send(request.0, &request.1);
        calls += 1;
        own = a.resume(token);
        turns += 1;
        assert!(turns < 100, "the owner waits for B");
    }
    assert_eq!(a.reclaim(handle, 0), Ok(0));
    world.check();
}

#[test]
fn a_recall_lets_nobody_begin_and_everybody_end() {
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let handle = a.offer(LENT, &[(4, 6), (5, 4)], &[(PAGE, 2)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 2)).unwrap();
    let recall = RevokeRequest { handle: Handle(handle), flags: RevokeFlags::RECALL };
    let mut payload = [0; RevokeRequest::SIZE];
    recall.encode(&mut payload).unwrap();
    assert_eq!(a.words(REVOKE, &payload), (0, 0));
    assert_eq!(b.packets().len(), 1, "B is asked");
    assert_eq!(c.packets().len(), 0, "C has nothing and was told nothing");
    assert_eq!(c.accept_contiguous(handle, LENT, (WINDOW, 2)), Err(3));
    assert_eq!(c.last_refusal().rule, Rule::Closing as u16);
    assert_eq!(b.release(handle, 0), Ok(0));
    assert_eq!(b.accept_contiguous(handle, LENT, (WINDOW, 2)), Err(3), "not again");
    assert_eq!(a.reclaim(handle, 0), Ok(0));
    world.check();
}

#[test]
fn a_borrower_that_accepts_and_releases_all_the_time_holds_nobody_up() {
    let world = world();
    let handle = world.caller(A).offer(LENT, &[(4, 6)], &[(PAGE, 3)]).unwrap();
    std::thread::scope(|scope| {
        let world = &world;
        scope.spawn(move || {
            let b = world.caller(B);
            b.step.set(1);
            while b.accept_contiguous(handle, LENT, (WINDOW, 3)) != Err(7) {
                let _ = b.release(handle, 0);
            }
        });
        std::thread::yield_now();
        let a = world.caller(A);
        assert_eq!(revoke(&a, handle), 0);
        a.reclaim(handle, 0).unwrap();
    });
    world.check();
}

#[test]
fn a_revocation_whose_parcel_is_reclaimed_meanwhile_has_nothing_left_to_do() {
    for polite in [false, true] {
        let world = world();
        let a = world.caller(A);
        let acl: Vec<_> = (4..7).map(|vmid| (vmid, 6)).collect();
        let handle = a.offer(LENT, &acl, &[(PAGE, 1)]).unwrap();
        a.step.set(1);
        let flags = if polite { RevokeFlags::RECALL } else { RevokeFlags::empty() };
        let mut payload = vec![0; RevokeRequest::SIZE];
        RevokeRequest { handle: Handle(handle), flags }.encode(&mut payload).unwrap();
        let turn = a.send(REVOKE, &payload);
        let Turn::More(token) = turn else { panic!("{turn:?}") };
        // Nobody holds it, so another vCPU may end it, and its record become another parcel's.
        let second = world.caller(A);
        second.reclaim(handle, 0).unwrap();
        let next = second.offer(LENT, &acl, &[(PAGE, 1)]).unwrap();
        let b = world.caller(B);
        b.accept_contiguous(next, LENT, (WINDOW, 1)).unwrap();
        let before = world.cpu(B).read(Ipa(WINDOW));
        assert_eq!(a.resume(token), Turn::Reply(vec![0; 4]));
        assert_eq!(
            (world.cpu(B).read(Ipa(WINDOW)), before),
            (Ok(0), Ok(0)),
            "another parcel stays"
        );
        world.check();
    }
}
