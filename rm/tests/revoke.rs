//! REVOKE: taking memory back from borrowers that do not cooperate.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, offer, vm};
use rm::operation::budget::Budget;
use rm_abi::extension::REVOKE;
use rm_abi::{AcceptFlags, CreateFlags, Header, Transfer, message};

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
    for step in [1, 200, rm::operation::STEP] {
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
    assert_eq!(a.words(REVOKE, &by_handle(handle, 1)).0, 6, "an unknown flag");
    assert!(world.cpu(B).read(Ipa(WINDOW)).is_ok(), "G4: nothing was revoked");
    let unfinished = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE + 0x8_0000, 1)], &[]);
    let unfinished = a.words(message::MEM_LEND, &unfinished).1;
    assert_eq!(revoke(&a, unfinished), 0, "nobody has it");
    a.reclaim(unfinished, 0).unwrap();
}

/// Each call of a borrower that is cut off by a revocation after any number of its steps.
#[test]
fn a_call_that_is_at_work_ends_before_it_is_taken_away() {
    type Request = fn(u32) -> (u32, Vec<u8>);
    let payloads: [Request; 3] = [
        |handle| {
            let places: Vec<_> = (0..6).map(|n| (WINDOW + n * 0x3000, 1)).collect();
            (message::MEM_ACCEPT, accept(handle, LENT, AcceptFlags::DONE, &places))
        },
        |handle| {
            let flags = AcceptFlags::empty();
            (message::MEM_ACCEPT, accept(handle, LENT, flags, &[]))
        },
        |handle| (message::MEM_RELEASE, by_handle(handle, 0)),
    ];
    for (case, payload) in payloads.iter().enumerate() {
        for steps in 0..25 {
            let world = world();
            let before = world.check();
            let (a, b) = (world.caller(A), world.caller(B));
            let ranges: Vec<_> = (0..6).map(|n| (PAGE + n * 0x2000, 1)).collect();
            let handle = a.offer(LENT, &[(4, 6)], &ranges).unwrap();
            if case == 2 {
                b.accept_contiguous(handle, LENT, (WINDOW, 6)).unwrap();
            }
            b.step.set(1);
            let (message, payload) = payload(handle);
            let mut turn = b.send(message, &payload);
            for _ in 0..steps {
                if let Turn::More(token) = turn {
                    turn = b.resume(token);
                }
            }
            // Both VMs go on, step by step; the borrower's caller never comes back.
            a.step.set(1);
            let mut own = a.send(REVOKE, &by_handle(handle, 0));
            while let Turn::More(token) = own {
                world.manager.step(B, &mut Budget::new(1));
                own = a.resume(token);
            }
            assert_eq!(own, Turn::Reply(vec![0; 4]), "case {case}, {steps} steps");
            assert_eq!(a.reclaim(handle, 0), Ok(0), "case {case}, {steps} steps");
            for vm in world.vms() {
                while world.manager.idle(vm) {}
            }
            // A reply that nobody fetches keeps its frames until the slot is wanted.
            let _ = b
                .offer(LENT, &[(3, 6)], &[(PAGE, 1), (PAGE + 0x4000, 1)])
                .map(|own| b.reclaim(own, 0));
            while world.manager.idle(B) {}
            assert_eq!(world.check(), before, "case {case}, {steps} steps");
        }
    }
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
