//! Calls in steps of one unit, with everything between the steps that may come between.
//!
//! Each long call is run once undisturbed. Then it is run again in the smallest steps, with another
//! call between any two of them, by a caller that comes back and by one that never does; the system
//! must end as in the undisturbed run, and no CPU may at any moment use what no table grants.

use rm::address::{Ipa, VmIndex};
use rm::audit::AuditReport;
use rm::config::VmConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, append, by_handle, offer, vm};
use rm::operation::budget::Budget;
use rm::stage2::Access;
use rm_abi::extension::{
    HEAP, HEAP_ALLOC, HEAP_FREE, HeapAllocRequest, HeapFreeRequest, HeapRequest, Policy, Rule,
    SET_POLICY, SetPolicyRequest,
};
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, CreateFlags, Handle, Header, HypercallError, MemoryKind,
    Rights, SglEntry, Transfer, Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x20_7000;
const WINDOW: u64 = 0x9000_0000;
/// A block cut at both ends, single pages, and a run.
const RANGES: [(u64, u64); 3] =
    [(RAM.0 + 0x1f_e000, 516), (RAM.0 + 0x80_0000, 1), (RAM.0 + 0x80_3000, 5)];
const PAGES: u64 = 522;

/// A long call: what happens before it, and the request.
struct Case {
    name: &'static str,
    caller: VmIndex,
    prepare: fn(&World) -> u32,
    request: fn(u32) -> (u32, Vec<u8>),
    error: u32,
}

fn nothing(_: &World) -> u32 {
    0
}

fn lent(world: &World) -> u32 {
    world.caller(A).offer(Transfer::Lend, &[(4, 6), (5, 4)], &RANGES).unwrap()
}

fn shared_uncached(world: &World) -> u32 {
    let request = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &RANGES, &[(2, 3), (2, 4)]);
    world.caller(A).words(message::MEM_SHARE, &request).1
}

fn donated(world: &World) -> u32 {
    world.caller(A).offer(Transfer::Donate, &[(4, 7)], &RANGES).unwrap()
}

fn accepted(world: &World) -> u32 {
    let handle = lent(world);
    world.caller(B).accept_contiguous(handle, Transfer::Lend, (WINDOW, PAGES)).unwrap();
    handle
}

/// The description of what [`lent`] makes.
fn lookup() -> Vec<u8> {
    let entry = |(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) };
    let request = Lookup {
        memory: MemoryKind::NORMAL,
        label: 0,
        acl: &[(4, 6), (5, 4)].map(entry),
        sgl: &RANGES.map(|(ipa, pages)| SglEntry { ipa, size: pages * 4096 }),
        attributes: &[],
    };
    let mut payload = vec![0; 100];
    let length = request.encode(&mut payload).expect("three ranges fit");
    payload.truncate(length);
    payload
}

fn set_policy(handle: u32, policy: Policy) -> Vec<u8> {
    let mut payload = vec![0; SetPolicyRequest::SIZE];
    SetPolicyRequest { handle: Handle(handle), policy }.encode(&mut payload).expect("it fits");
    payload
}

/// A lend of whose three units B has given one an address.
fn partly_accepted(world: &World) -> u32 {
    let handle = lent(world);
    let first = accept(handle, Transfer::Lend, AcceptFlags::empty(), &scattered(WINDOW)[..1]);
    assert_eq!(world.caller(B).words(message::MEM_ACCEPT, &first).0, 0);
    handle
}

/// A lend that is not finished, of one page and then five.
fn unfinished(world: &World) -> u32 {
    let (flags, first) = (CreateFlags::APPEND | CreateFlags::SANITIZE, &RANGES[1..2]);
    let a = world.caller(A);
    let handle = a.words(message::MEM_LEND, &offer(flags, &[(4, 6), (5, 4)], first, &[])).1;
    a.append(handle, false, &RANGES[2..]).unwrap();
    handle
}

/// As [`unfinished`], but so many pages that the list of extents has a frame.
fn unfinished_long(world: &World) -> u32 {
    let handle = unfinished(world);
    let pages: Vec<_> = (0..20).map(|page| (RAM.0 + 0x90_0000 + page * 0x2000, 1)).collect();
    world.caller(A).append(handle, false, &pages).unwrap();
    handle
}

fn scattered(at: u64) -> Vec<(u64, u64)> {
    vec![(at, 516), (at + 0x40_1000, 1), (at + 0x40_3000, 5)]
}

fn heap_alloc(pages: u64, address: u64) -> Vec<u8> {
    let mut payload = vec![0; HeapAllocRequest::SIZE];
    let request = HeapAllocRequest { heap: 0, size: pages * 4096, address };
    request.encode(&mut payload).expect("it fits");
    payload
}

fn heap_free(address: u64, pages: u64) -> Vec<u8> {
    let mut payload = vec![0; HeapFreeRequest::SIZE];
    HeapFreeRequest { address, size: pages * 4096 }.encode(&mut payload).expect("it fits");
    payload
}

/// Two blocks of a heap.
fn has_piece(world: &World) -> u32 {
    assert_eq!(world.caller(A).words(HEAP_ALLOC, &heap_alloc(1024, WINDOW)).0, 0);
    0
}

const CASES: &[Case] = &[
    Case {
        name: "lend",
        caller: A,
        prepare: nothing,
        request: |_| (message::MEM_LEND, offer(CreateFlags::empty(), &[(4, 6)], &RANGES, &[])),
        error: 0,
    },
    Case {
        name: "share, sanitized, demoting its owner",
        caller: A,
        prepare: nothing,
        request: |_| {
            (message::MEM_SHARE, offer(CreateFlags::SANITIZE, &[(3, 4), (4, 6)], &RANGES[1..], &[]))
        },
        error: 0,
    },
    Case {
        name: "share uncached",
        caller: A,
        prepare: nothing,
        request: |_| {
            let attributes = [(2, 3), (2, 4)];
            (
                message::MEM_SHARE,
                offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &RANGES[1..], &attributes),
            )
        },
        error: 0,
    },
    Case {
        name: "lend refused at its last page",
        caller: A,
        prepare: nothing,
        request: |_| {
            let ranges = [RANGES[0], RANGES[1], RANGES[2], (RAM.0 + 0x1f_f000, 1)];
            (message::MEM_LEND, offer(CreateFlags::empty(), &[(4, 6)], &ranges, &[]))
        },
        error: 0xa,
    },
    Case {
        name: "lookup",
        caller: A,
        prepare: |world| {
            let handle = lent(world);
            world.caller(A).offer(Transfer::Lend, &[(4, 6)], &[(RAM.0 + 0xe0_0000, 2)]).unwrap();
            handle
        },
        request: |_| (message::MEM_LOOKUP, lookup()),
        error: 0,
    },
    Case {
        name: "append",
        caller: A,
        prepare: unfinished,
        request: |handle| {
            let ranges = [(RAM.0 + 0x1f_e000, 5), (RAM.0 + 0x20_5000, 6)];
            (message::MEM_APPEND, append(handle, AppendFlags::empty(), &ranges))
        },
        error: 0,
    },
    Case {
        name: "append the last pages, behind a frame of extents",
        caller: A,
        prepare: unfinished_long,
        request: |handle| (message::MEM_APPEND, append(handle, AppendFlags::END, &RANGES[..1])),
        error: 0,
    },
    Case {
        name: "append refused at its last page",
        caller: A,
        prepare: unfinished,
        request: |handle| {
            let ranges = [(RAM.0 + 0x1f_e000, 5), (RAM.0 + 0x20_5000, 6), RANGES[1]];
            (message::MEM_APPEND, append(handle, AppendFlags::END, &ranges))
        },
        error: 0xa,
    },
    Case {
        name: "append refused with a frame of extents",
        caller: A,
        prepare: unfinished,
        request: |handle| {
            let pages = (0..300).map(|page| (RAM.0 + 0x40_0000 + page * 0x2000, 1));
            let ranges: Vec<_> = pages.chain([RANGES[1]]).collect();
            (message::MEM_APPEND, append(handle, AppendFlags::END, &ranges))
        },
        error: 0xa,
    },
    Case {
        name: "accept at chosen addresses",
        caller: B,
        prepare: lent,
        request: |handle| {
            (
                message::MEM_ACCEPT,
                accept(handle, Transfer::Lend, AcceptFlags::DONE, &scattered(WINDOW)),
            )
        },
        error: 0,
    },
    Case {
        name: "accept where there is room",
        caller: B,
        prepare: lent,
        request: |handle| {
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, &[]))
        },
        error: 0,
    },
    Case {
        name: "accept contiguously, uncached",
        caller: B,
        prepare: shared_uncached,
        request: |handle| {
            let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
            (message::MEM_ACCEPT, accept(handle, Transfer::Share, flags, &[(WINDOW, PAGES)]))
        },
        error: 0,
    },
    Case {
        name: "accept refused at its last unit",
        caller: B,
        prepare: lent,
        request: |handle| {
            let mut ranges = scattered(WINDOW);
            ranges[2].0 = RAM.0 + 0x1000;
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, &ranges))
        },
        error: 2,
    },
    Case {
        name: "accept refused for a missing unit",
        caller: B,
        prepare: lent,
        request: |handle| {
            let ranges = &scattered(WINDOW)[..2];
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, ranges))
        },
        error: 6,
    },
    Case {
        name: "accept the last units",
        caller: B,
        prepare: partly_accepted,
        request: |handle| {
            let ranges = &scattered(WINDOW)[1..];
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, ranges))
        },
        error: 0,
    },
    Case {
        name: "accept some more units where there is room",
        caller: B,
        prepare: partly_accepted,
        request: |handle| {
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::empty(), &[]))
        },
        error: 0,
    },
    Case {
        name: "accept the last units, refused",
        caller: B,
        prepare: partly_accepted,
        request: |handle| {
            let ranges = [scattered(WINDOW)[1], (WINDOW + 0x1000, 5)];
            (message::MEM_ACCEPT, accept(handle, Transfer::Lend, AcceptFlags::DONE, &ranges))
        },
        error: 2,
    },
    Case {
        name: "release what only has addresses",
        caller: B,
        prepare: partly_accepted,
        request: |handle| (message::MEM_RELEASE, by_handle(handle, 0)),
        error: 0,
    },
    Case {
        name: "accept a donation",
        caller: B,
        prepare: donated,
        request: |handle| {
            let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
            (message::MEM_ACCEPT, accept(handle, Transfer::Donate, flags, &[(WINDOW, PAGES)]))
        },
        error: 0,
    },
    Case {
        name: "release",
        caller: B,
        prepare: accepted,
        request: |handle| (message::MEM_RELEASE, by_handle(handle, 0)),
        error: 0,
    },
    Case {
        name: "reclaim, sanitized",
        caller: A,
        prepare: lent,
        request: |handle| (message::MEM_RECLAIM, by_handle(handle, 1)),
        error: 0,
    },
    Case {
        name: "make a share uncached",
        caller: A,
        prepare: |world| {
            world.caller(A).offer(Transfer::Share, &[(3, 6), (4, 6)], &RANGES).unwrap()
        },
        request: |handle| (SET_POLICY, set_policy(handle, Policy::Uncached)),
        error: 0,
    },
    Case {
        name: "make a share cached",
        caller: A,
        prepare: shared_uncached,
        request: |handle| (SET_POLICY, set_policy(handle, Policy::Cached)),
        error: 0,
    },
    Case {
        name: "make a lend uncached",
        caller: A,
        prepare: lent,
        request: |handle| (SET_POLICY, set_policy(handle, Policy::Uncached)),
        error: 0,
    },
    Case {
        name: "reclaim of uncached memory",
        caller: A,
        prepare: shared_uncached,
        request: |handle| (message::MEM_RECLAIM, by_handle(handle, 0)),
        error: 0,
    },
    Case {
        name: "a question about a heap",
        caller: A,
        prepare: nothing,
        request: |_| (HEAP, vec![0; HeapRequest::SIZE]),
        error: 0,
    },
    Case {
        name: "a piece of a heap where there is room",
        caller: A,
        prepare: nothing,
        request: |_| (HEAP_ALLOC, heap_alloc(3, HeapAllocRequest::ANYWHERE)),
        error: 0,
    },
    Case {
        name: "blocks of a heap at an address",
        caller: A,
        prepare: nothing,
        request: |_| (HEAP_ALLOC, heap_alloc(2 * 512, WINDOW)),
        error: 0,
    },
    Case {
        name: "a piece of a heap at an address that is taken at its end",
        caller: A,
        prepare: nothing,
        request: |_| (HEAP_ALLOC, heap_alloc(6, RAM.0 - 5 * 4096)),
        error: 2,
    },
    Case {
        name: "return of a piece of a heap",
        caller: A,
        prepare: has_piece,
        request: |_| (HEAP_FREE, heap_free(WINDOW + 4096, 514)),
        error: 0,
    },
    Case {
        name: "return of more than a piece of a heap",
        caller: A,
        prepare: has_piece,
        request: |_| (HEAP_FREE, heap_free(WINDOW + 1020 * 4096, 5)),
        error: 0xa,
    },
];

/// A VM, an address, and whether it may read, write and execute there.
type Reach = (u8, u64, bool, bool, bool);

/// What a VM can notice: its accesses to the pages of the stories, and the books.
fn state(world: &World) -> (Vec<Reach>, AuditReport) {
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
    let pages = (0..1100).map(|page| RAM.0 + 0x1f_0000 + page * 4096);
    let windows = (0..1100).map(|page| WINDOW + page * 4096);
    let spots: Vec<u64> = some(pages.chain(windows), 41).collect();
    let view = world.vms().flat_map(|vm| {
        spots.iter().map(move |&at| {
            let can = |access| world.manager.allows(vm, Ipa(at), access).is_some();
            (vm.0, at, can(Access::Read), can(Access::Write), can(Access::Execute))
        })
    });
    (view.collect(), world.check())
}

fn world() -> World {
    // Room below the memory of the VMs.
    let vm = |vmid| VmConfig { accept_from: Ipa(RAM.0 - 0x10_0000), ..vm(vmid) };
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    world.add_heap("all", 0b1, 3);
    world
}

fn finish(guest: &Guest<'_>, mut turn: Turn) -> Vec<u8> {
    loop {
        match turn {
            Turn::Reply(reply) => return reply,
            Turn::More(token) => turn = guest.resume(token),
            other => panic!("a call ended with {other:?}"),
        }
    }
}

fn undisturbed(case: &Case) -> (Vec<u8>, (Vec<Reach>, AuditReport)) {
    let world = world();
    let handle = (case.prepare)(&world);
    let (message, payload) = (case.request)(handle);
    let reply = world.caller(case.caller).call(message, &payload);
    assert_eq!(reply[..4], case.error.to_le_bytes(), "{}", case.name);
    (reply, state(&world))
}

/// Runs a case in steps of one unit with `between` after each.
fn disturbed(case: &Case, returns: bool, mut between: impl FnMut(&World, u32)) {
    let (reply, end) = undisturbed(case);
    let world = world();
    let handle = (case.prepare)(&world);
    let (message, payload) = (case.request)(handle);
    let guest = world.caller(case.caller);
    guest.step.set(1);
    let mut turn = guest.send(message, &payload);
    let Turn::More(token) = turn else { panic!("{} is not long: {turn:?}", case.name) };
    for step in 0.. {
        if !world.manager.pending(case.caller) {
            break;
        }
        if step % few(1, 64) == 0 {
            world.manager.machine().check_no_stale();
            between(&world, handle);
        }
        if returns {
            turn = guest.resume(token);
        } else {
            world.manager.step(case.caller, &mut Budget::new(1));
        }
    }
    let last = if returns { finish(&guest, turn) } else { finish(&guest, guest.resume(token)) };
    assert_eq!(last, reply, "{}", case.name);
    assert!(state(&world) == end, "{} ended differently", case.name);
}

/// All cases, and under Miri two or three, others for each test.
fn cases(first: usize) -> impl Iterator<Item = &'static Case> {
    some(CASES.iter().skip(few(0, first)), 15)
}

#[test]
fn every_call_ends_the_same_in_steps_of_one_unit() {
    cases(0).for_each(|case| disturbed(case, true, |_, _| {}));
}

#[test]
fn every_call_ends_without_its_caller() {
    cases(4).for_each(|case| disturbed(case, false, |_, _| {}));
}

#[test]
fn calls_of_a_stranger_between_the_steps_change_nothing() {
    for case in cases(8) {
        disturbed(case, true, |world, _| {
            let c = world.caller(C);
            let own = c.offer(Transfer::Lend, &[(3, 4)], &[(PAGE, 3)]).unwrap();
            c.reclaim(own, 0).unwrap();
        });
    }
}

#[test]
fn a_short_call_of_another_vcpu_runs_beside_a_long_one() {
    for case in cases(12) {
        disturbed(case, true, |world, _| {
            let second = world.caller(case.caller);
            let far = RAM.0 + 0xc0_0000;
            let own = second.offer(Transfer::Lend, &[(5, 4)], &[(far, 1)]).unwrap();
            second.reclaim(own, 0).unwrap();
        });
    }
}

#[test]
fn a_second_long_call_of_the_same_vm_is_busy() {
    for case in cases(16) {
        disturbed(case, true, |world, _| {
            let second = world.caller(case.caller);
            second.step.set(1);
            let ranges = [(RAM.0 + 0xc0_0000, 1), (RAM.0 + 0xc1_0000, 1)];
            let request = offer(CreateFlags::empty(), &[(5, 4)], &ranges, &[]);
            assert_eq!(second.send(message::MEM_LEND, &request), Turn::Error(31, 0));
        });
    }
}

#[test]
fn a_handle_is_nobodys_until_its_creation_and_after_its_reclaim_are_decided() {
    let others = |name: &str| name.starts_with("append") || name.starts_with("make");
    let creations =
        cases(1).filter(|case| case.caller == A && !others(case.name) && case.name != "lookup");
    for case in creations {
        disturbed(case, true, |world, handle| {
            let guess = if handle == 0 { 1 } else { handle };
            for vm in [A, B, C] {
                let caller = world.caller(vm);
                assert_eq!(caller.release(guess, 0), Err(7), "{}", case.name);
                assert_eq!(caller.reclaim(guess, 0), Err(7), "{}", case.name);
            }
        });
    }
}

#[test]
fn while_an_append_is_at_work_its_parcel_is_busy_and_nobody_elses() {
    for case in some(CASES.iter().filter(|case| case.name.contains("append")), 3) {
        disturbed(case, true, |world, handle| {
            let second = world.caller(A);
            assert_eq!(second.reclaim(handle, 0), Err(5), "{}", case.name);
            let far = [(RAM.0 + 0xf0_0000, 1)];
            assert_eq!(second.append(handle, true, &far), Err(5), "{}", case.name);
            assert_eq!(second.release(handle, 0), Err(7), "{}", case.name);
            let b = world.caller(B);
            assert_eq!(b.reclaim(handle, 0), Err(7), "{}", case.name);
            assert_eq!(b.append(handle, true, &far), Err(7), "{}", case.name);
            assert_eq!(b.accept(handle, Transfer::Lend, &[]), Err(7), "{}", case.name);
        });
    }
}

#[test]
fn the_owner_waits_while_an_accept_or_release_is_at_work() {
    let borrowings = cases(3).filter(|case| case.caller == B && case.name != "accept a donation");
    for case in borrowings {
        disturbed(case, true, |world, handle| {
            assert_eq!(world.caller(A).reclaim(handle, 0), Err(0xb), "{}", case.name);
            assert_eq!(world.caller(B).release(handle, 0), Err(5), "{}", case.name);
        });
    }
}

#[test]
fn claimed_pages_stay_the_vms_own_until_the_commit() {
    let world = world();
    let guest = world.caller(A);
    guest.step.set(1);
    let request = offer(CreateFlags::empty(), &[(4, 6)], &[(PAGE, 40)], &[]);
    let Turn::More(token) = guest.send(message::MEM_LEND, &request) else { panic!("not long") };
    for _ in 0..20 {
        guest.resume(token);
    }
    world.cpu(A).write(Ipa(PAGE), 1).expect("a claim is invisible");
    let second = world.caller(A);
    assert_eq!(second.offer(Transfer::Lend, &[(5, 4)], &[(PAGE, 1)]), Err(5), "claimed by a call");
    assert_eq!(second.last_refusal().rule, Rule::InProgress as u16);
    finish(&guest, guest.resume(token));
    assert!(world.cpu(A).write(Ipa(PAGE), 1).is_err());
    world.check();
}

#[test]
fn a_reply_that_waits_outlives_a_short_call_of_another_vcpu() {
    let world = world();
    let first = world.caller(A);
    first.step.set(1);
    let request = offer(CreateFlags::empty(), &[(4, 6)], &[(PAGE, 40)], &[]);
    let Turn::More(token) = first.send(message::MEM_LEND, &request) else { panic!("not long") };
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(1000));
    }
    let second = world.caller(A);
    let own = second.offer(Transfer::Lend, &[(5, 4)], &[(RAM.0 + 0xc0_0000, 1)]).unwrap();
    second.reclaim(own, 0).unwrap();
    assert!(matches!(first.resume(token), Turn::Reply(_)), "the first vCPU's reply is gone");
    world.check();
}

/// A long call of `vm`, in steps of one unit; its reply is there and not fetched.
fn with_reply_left<'w>(world: &'w World, request: &[u8]) -> (Guest<'w>, u64) {
    let caller = world.caller(A);
    caller.step.set(1);
    let Turn::More(token) = caller.send(message::MEM_LEND, request) else { panic!("not long") };
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(1000));
    }
    (caller, token)
}

/// A request to lend so many of A's pages to B.
fn lend(first: u64, pages: u64) -> Vec<u8> {
    offer(CreateFlags::empty(), &[(4, 6)], &[(first, pages)], &[])
}

#[test]
fn a_reply_that_waits_outlives_a_long_call_of_another_vcpu() {
    let world = world();
    let (first, token) = with_reply_left(&world, &lend(PAGE, 40));
    let second = world.caller(A);
    second.step.set(1);
    let other = lend(RAM.0 + 0xc0_0000, 40);
    for _ in 0..100 {
        assert_eq!(second.send(message::MEM_LEND, &other), Turn::Error(HypercallError::BUSY, 0));
    }
    assert!(matches!(first.resume(token), Turn::Reply(_)), "the first vCPU's reply is gone");
    finish(&second, second.send(message::MEM_LEND, &other));
    world.check();
}

#[test]
fn a_reply_whose_caller_does_not_come_gives_way_after_a_second() {
    let world = world();
    let (first, token) = with_reply_left(&world, &lend(PAGE, 40));
    let second = world.caller(A);
    second.step.set(1);
    let other = lend(RAM.0 + 0xc0_0000, 40);
    // Time that nobody wanted the place does not count.
    world.manager.machine().pass(5000);
    assert_eq!(second.send(message::MEM_LEND, &other), Turn::Error(HypercallError::BUSY, 0));
    world.manager.machine().pass(998);
    assert_eq!(second.send(message::MEM_LEND, &other), Turn::Error(HypercallError::BUSY, 0));
    finish(&second, second.send(message::MEM_LEND, &other));
    assert_eq!(first.resume(token), Turn::Error(HypercallError::ARGUMENT_INVALID, 0));
    world.check();
}

#[test]
fn a_reply_that_its_caller_could_not_take_twice_gives_way_at_once() {
    let world = world();
    let (first, token) = with_reply_left(&world, &lend(PAGE, 40));
    let second = world.caller(A);
    second.step.set(1);
    let other = lend(RAM.0 + 0xc0_0000, 40);
    first.lose_reply_page(true);
    assert_eq!(first.resume(token), Turn::Error(HypercallError::ADDR_INVALID, token));
    // It tries once more, as the client does.
    assert_eq!(second.send(message::MEM_LEND, &other), Turn::Error(HypercallError::BUSY, 0));
    assert_eq!(first.resume(token), Turn::Error(HypercallError::ADDR_INVALID, token));
    finish(&second, second.send(message::MEM_LEND, &other));
    assert_eq!(first.resume(token), Turn::Error(HypercallError::ARGUMENT_INVALID, 0));
    world.check();
}

/// A request to lend a hundred pages, which is longer than a packet.
fn long_lend() -> Vec<u8> {
    let ranges: Vec<_> = (0..100).map(|page| (RAM.0 + 0xc0_0000 + page * 0x2000, 1)).collect();
    offer(CreateFlags::empty(), &[(4, 6)], &ranges, &[])
}

#[test]
fn a_long_request_beside_a_call_at_work_is_busy_and_leaves_nothing() {
    let world = world();
    let first = world.caller(A);
    first.step.set(1);
    let Turn::More(token) = first.send(message::MEM_LEND, &lend(PAGE, 40)) else {
        panic!("not long")
    };
    let second = world.caller(A);
    let before = world.manager.frames_used(A);
    let busy = Turn::Error(HypercallError::BUSY, 0);
    assert_eq!(second.send(message::MEM_LEND, &long_lend()), busy);
    assert_eq!(world.manager.frames_used(A), before, "it keeps no frames");
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(1000));
    }
    assert_eq!(second.send(message::MEM_LEND, &long_lend()), busy, "the reply waits");
    let Turn::Reply(reply) = first.resume(token) else { panic!("the reply is gone") };
    assert_eq!(reply[..4], [0; 4]);
    assert_eq!(finish(&second, second.send(message::MEM_LEND, &long_lend()))[..4], [0; 4]);
    world.check();
}

#[test]
fn a_request_whose_pages_are_gone_half_way_is_no_request() {
    let world = world();
    let a = world.caller(A);
    let before = world.check();
    let bytes = [&Header::request(message::MEM_LEND, 1).encode()[..], &long_lend()].concat();
    // What the guest has of it ends within the first packet, behind it, and a byte before its end.
    for there in [8, 239, 240, 241, 1500, bytes.len() - 1] {
        a.put_request(&bytes[..there]);
        let invalid = Turn::Error(HypercallError::ADDR_INVALID, 0);
        assert_eq!(a.direct(bytes.len() as u64, 4096, 0), invalid, "{there} bytes");
        assert_eq!(world.check(), before, "{there} bytes");
    }
    assert_eq!(finish(&a, a.send_bytes(&bytes))[..4], [0; 4]);
}

#[test]
fn a_reply_that_its_caller_has_too_little_room_for_waits_until_it_has() {
    let world = world();
    let a = world.caller(A);
    a.step.set(1);
    let Turn::More(token) = a.send(message::MEM_LEND, &lend(PAGE, 40)) else { panic!("not long") };
    while world.manager.pending(A) {
        world.manager.step(A, &mut Budget::new(1000));
    }
    let lent = world.check().lent;
    for room in [0, 8, 15] {
        assert_eq!(a.direct(0, room, token), Turn::Error(HypercallError::ARGUMENT_SIZE, token));
    }
    let Turn::Reply(reply) = a.direct(0, 16, token) else { panic!("there is room for the handle") };
    assert_eq!((reply[..4].to_vec(), world.check().lent), (vec![0; 4], lent));
}
