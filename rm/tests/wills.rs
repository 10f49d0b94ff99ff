//! NOTIFY_SET: what a VM wants done when its part in a page ends is done once, after it can reach the
//! page no more, however it ended.

use rm::address::{Ipa, Pa, VmIndex};
use rm::audit::AuditReport;
use rm::config::{OwnedParcels, VmConfig};
use rm::machine::Line;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, by_handle, offer, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm_abi::extension::{
    NOTIFY_SET, NotifyActions, NotifySetRequest, REVOKE, Rule, TRIM, TrimFlags, TrimRequest,
};
use rm_abi::{
    AcceptFlags, Attribute, Bytes, Capability, CreateFlags, Handle, Transfer, hypercall, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;
const STEPS: &[u32] = few(&[1, 200, STEP], &[30]);
const CLEAR: NotifyActions = NotifyActions::CLEAR_BYTE;
const RING: NotifyActions = NotifyActions::RING;
const BOTH: NotifyActions = NotifyActions::all();
const NOTHING: NotifyActions = NotifyActions::empty();

/// B's channel 2 leads to A's doorbell 1; a new world each time.
fn world() -> World {
    world_of(&[vm(3), vm(4), vm(5)])
}

fn world_of(vms: &[VmConfig]) -> World {
    let world = World::new(vms);
    world.manager.connect_doorbells((A, 1), (B, 2));
    world
}

/// Pages that do not lie side by side, so that each is an extent.
fn scattered(pages: u64) -> Vec<(u64, u64)> {
    (0..pages).map(|n| (PAGE + n * 0x2000, 1)).collect()
}

/// A parcel of A's pages, all of them 7, that B has mapped at [`WINDOW`].
fn held(world: &World, transfer: Transfer, pages: u64) -> u32 {
    for (at, _) in scattered(pages) {
        world.cpu(A).fill(Ipa(at), 7).unwrap();
    }
    let acl: &[_] = if transfer == SHARED { &[(3, 6), (4, 6)] } else { &[(4, 6)] };
    let handle = world.caller(A).offer(transfer, acl, &scattered(pages)).unwrap();
    world.caller(B).accept_contiguous(handle, transfer, (WINDOW, pages)).unwrap();
    handle
}

fn request(handle: u32, offset: u64, actions: NotifyActions, bell: (u32, u32)) -> Vec<u8> {
    let (doorbell, flag) = bell;
    let request = NotifySetRequest { handle: Handle(handle), actions, offset, doorbell, flag };
    let mut payload = vec![0; NotifySetRequest::SIZE];
    request.encode(&mut payload).unwrap();
    payload
}

/// The error word of a request for byte `offset`, with flag 5 of B's channel.
fn set(guest: &Guest<'_>, handle: u32, offset: u64, actions: NotifyActions) -> u32 {
    guest.words(NOTIFY_SET, &request(handle, offset, actions, (2, 5))).0
}

/// How often A's doorbell has interrupted it.
fn rung(world: &World) -> u64 {
    world.interrupts(A, Line::Doorbell(1))
}

/// The flags of A's doorbell, which are clear then.
fn flags(world: &World) -> u64 {
    let args = [Capability::doorbell_receive(1).0, u64::MAX, 0, 0, 0];
    let results = world.caller(A).hypercall(hypercall::DOORBELL_RECEIVE, args).unwrap();
    assert_eq!(results.x[0], 0);
    results.x[1]
}

/// A's byte in scattered page `page`, in EL2's view.
fn byte(world: &World, page: u64, offset: usize) -> u8 {
    let pa = Pa(World::pa_of(A).0 + (PAGE - RAM.0) + page * 0x2000);
    world.manager.machine().page(pa)[offset]
}

fn settled(world: &World) -> AuditReport {
    while [A, B, C].iter().any(|&vm| world.manager.idle(vm)) {}
    world.check()
}

/// Ends B's mapping of a parcel, in steps of so much.
type End = fn(&World, u32, u32);

/// Ways in which it ends.
const ENDS: [(&str, End); 3] = [
    ("a release", |world, handle, step| {
        let b = world.caller(B);
        b.step.set(step);
        b.release(handle, 0).unwrap();
    }),
    ("a revocation", |world, handle, step| {
        let a = world.caller(A);
        a.step.set(step);
        assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
    }),
    ("B's death", |world, _, step| {
        world.end(B);
        world.settle(B, step);
    }),
];

#[test]
fn the_byte_is_cleared_and_the_bell_rung_once_however_the_mapping_ends() {
    for ((how, end), step) in
        ENDS.into_iter().flat_map(|end| STEPS.iter().map(move |&step| (end, step)))
    {
        let world = world();
        let handle = held(&world, SHARED, 3);
        let b = world.caller(B);
        b.step.set(step);
        assert_eq!(set(&b, handle, 0x1040, BOTH), 0);
        assert_eq!((rung(&world), byte(&world, 1, 0x40)), (0, 7), "not before");
        // The fake panics at the write if a CPU could still use a translation that has ended.
        end(&world, handle, step);
        assert_eq!(rung(&world), 1, "{how} in steps of {step}");
        assert_eq!(flags(&world), 1 << 5);
        let bytes = [0, 0x40, 0x80].map(|at| byte(&world, 1, at));
        assert_eq!((bytes, byte(&world, 0, 0x40)), ([7, 0, 7], 7), "no other byte");
        assert!(world.cpu(B).read(Ipa(WINDOW + 0x1040)).is_err());
        // Nothing is left to be done a second time.
        let a = world.caller(A);
        a.reclaim(handle, 0).unwrap();
        assert_eq!((rung(&world), flags(&world)), (1, 0));
        world.check();
    }
}

#[test]
fn each_page_has_its_own_and_a_new_one_takes_the_place_of_the_old() {
    for &step in STEPS {
        let world = world();
        let before = settled(&world);
        let handle = held(&world, SHARED, 4);
        let b = world.caller(B);
        b.step.set(step);
        for page in 0..4 {
            assert_eq!(set(&b, handle, page * 4096, CLEAR), 0);
        }
        assert_eq!(set(&b, handle, 0x1040, CLEAR), 0, "instead of byte 0 of page 1");
        assert_eq!(set(&b, handle, 0x2000, NOTHING), 0, "called off");
        assert_eq!(set(&b, handle, 0x2000, NOTHING), 0, "nothing is there to call off");
        b.release(handle, 0).unwrap();
        let seen = [(0, 0), (1, 0), (1, 0x40), (2, 0), (3, 0)].map(|(p, at)| byte(&world, p, at));
        assert_eq!(seen, [0, 7, 0, 7, 0]);
        assert_eq!(rung(&world), 0);
        world.caller(A).reclaim(handle, 0).unwrap();
        assert_eq!(settled(&world), before, "all frames are back");
    }
}

#[test]
fn a_place_that_was_called_off_is_used_again() {
    let world = world();
    let handle = held(&world, SHARED, 3);
    let frames = world.manager.frames_used(B);
    let b = world.caller(B);
    for page in [0, 1, 2, 0, 1, 2] {
        assert_eq!(set(&b, handle, page * 4096, CLEAR), 0);
        assert_eq!(set(&b, handle, page * 4096, NOTHING), 0);
    }
    assert_eq!(world.manager.frames_used(B), frames, "one place outside frames is enough");
}

#[test]
fn g4_who_cannot_have_it_is_refused_with_its_reason() {
    let world = world();
    let handle = held(&world, SHARED, 2);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let before = world.check();
    let refused = |guest: &Guest<'_>, payload: &[u8]| {
        let code = guest.words(NOTIFY_SET, payload).0;
        (code, Rule::from_wire(guest.last_refusal().rule).unwrap())
    };
    let wish = |offset, actions, bell| request(handle, offset, actions, bell);
    assert_eq!(refused(&b, &wish(0x2000, CLEAR, (2, 0))), (6, Rule::Outside));
    assert_eq!(refused(&b, &wish(u64::MAX, CLEAR, (2, 0))), (6, Rule::Outside));
    assert_eq!(refused(&b, &wish(1 << 44, CLEAR, (2, 0))), (6, Rule::Outside));
    for bell in [(1, 0), (8, 0), (u32::MAX, 0), (2, 64), (2, u32::MAX)] {
        assert_eq!(refused(&b, &wish(0, RING, bell)), (6, Rule::NotifyBell), "{bell:?}");
    }
    let unknown = [&wish(0, BOTH, (2, 0))[..4], &[4], &wish(0, BOTH, (2, 0))[5..]].concat();
    assert_eq!(refused(&b, &unknown), (6, Rule::UnknownBits));
    assert_eq!(refused(&c, &wish(0, CLEAR, (0, 0))).0, 7, "C is no party");
    assert_eq!(refused(&c, &request(0x1234_0001, 0, CLEAR, (0, 0))).0, 7, "as for no parcel");
    // Who may only read may not have a byte written, and is still told.
    let readable = a.offer(SHARED, &[(3, 6), (4, 4)], &[(PAGE + 0x10_0000, 1)]).unwrap();
    assert_eq!(refused(&b, &request(readable, 0, RING, (2, 0))), (0xc, Rule::NotHeld));
    b.accept(readable, SHARED, &[(WINDOW + 0x10_0000, 1)]).unwrap();
    assert_eq!(refused(&b, &request(readable, 0, CLEAR, (2, 0))), (6, Rule::NotifyByte));
    assert_eq!(set(&b, readable, 0, RING), 0);
    b.release(readable, 0).unwrap();
    assert_eq!(rung(&world), 1);
    a.reclaim(readable, 0).unwrap();
    // An owner cannot reach into what it has lent.
    let lent = a.offer(LENT, &[(4, 6)], &[(PAGE + 0x10_0000, 1)]).unwrap();
    assert_eq!(refused(&a, &request(lent, 0, CLEAR, (1, 0))), (6, Rule::NotifyByte));
    a.reclaim(lent, 0).unwrap();
    let given = a.offer(Transfer::Donate, &[(4, 7)], &[(PAGE + 0x10_0000, 1)]).unwrap();
    assert_eq!(refused(&a, &request(given, 0, RING, (1, 0))), (6, Rule::Kind));
    a.reclaim(given, 0).unwrap();
    while world.manager.idle(A) {}
    while world.manager.idle(B) {}
    let mut now = world.check();
    now.tables = before.tables;
    now.frames = before.frames;
    now.mergeable = before.mergeable;
    assert_eq!(now, before);
}

#[test]
fn g7_records_are_paid_for_by_who_sets_them_and_nothing_fails_afterwards() {
    let tight = Quotas { frames: few(12, 9), frames_reserved: 9, ..Quotas::USUAL };
    for step in some([200, STEP], 2) {
        let world = world_of(&[vm(3), VmConfig { quotas: tight, ..vm(4) }, vm(5)]);
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        if cfg!(miri) {
            // Two tables more, and no frame is left.
            world.manager.give(B, Ipa(1 << 35), Pa(1 << 40), 1).unwrap();
        }
        let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 2048)]).unwrap();
        b.accept_contiguous(handle, SHARED, (WINDOW, 2048)).unwrap();
        let frames = [A, B].map(|vm| world.manager.frames_used(vm));
        let mut set_up_to = 0;
        let word = loop {
            match set(&b, handle, set_up_to * 4096, BOTH) {
                0 => set_up_to += 1,
                word => break word,
            }
        };
        assert_eq!((word, b.last_refusal().rule), (1, Rule::NoFrame as u16));
        // The first needs no frame.
        assert!(set_up_to > few(255, 0), "{set_up_to}");
        assert_eq!(world.manager.frames_used(A), frames[0], "the owner pays nothing");
        assert_eq!(world.manager.frames_used(B) - frames[1], few(5, 0));
        // A B without a frame to its name is taken apart, in bounded steps.
        world.end(B);
        let steps = world.settle(B, step);
        assert!(steps < 4000 * u64::from(STEP / step), "{steps}");
        assert_eq!(rung(&world), set_up_to);
        a.reclaim(handle, 0).unwrap();
        world.check();
    }
}

#[test]
fn the_record_of_a_release_that_is_taken_over_is_executed_once() {
    for stop in some(0..40, 16) {
        let world = world();
        let handle = held(&world, LENT, 4);
        let (a, b) = (world.caller(A), world.caller(B));
        (0..4).for_each(|page| assert_eq!(set(&b, handle, page * 4096, BOTH), 0));
        b.step.set(1);
        let mut turn = b.send(message::MEM_RELEASE, &by_handle(handle, 0));
        for _ in 0..stop {
            if let Turn::More(token) = turn {
                turn = b.resume(token);
            }
        }
        assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
        assert_eq!(rung(&world), 4, "stopped after {stop} steps");
        while let Turn::More(token) = turn {
            turn = b.resume(token);
        }
        assert_eq!(rung(&world), 4);
        a.reclaim(handle, 0).unwrap();
        world.check();
    }
}

#[test]
fn a_trim_executes_what_was_said_of_its_pages() {
    for &step in STEPS {
        let world = world();
        let handle = held(&world, SHARED, 4);
        let (a, b) = (world.caller(A), world.caller(B));
        [&a, &b].iter().for_each(|guest| guest.step.set(step));
        (0..4).for_each(|page| assert_eq!(set(&b, handle, page * 4096, BOTH), 0));
        let bell = |page: u64| request(handle, page * 4096 + 64, CLEAR, (1, 0));
        (0..4).for_each(|page| assert_eq!(a.words(NOTIFY_SET, &bell(page)).0, 0));
        let trim = |guest: &Guest<'_>, first: u64, pages: u64| {
            let (offset, size) = (first * 4096, pages * 4096);
            let flags = TrimFlags::empty();
            let mut payload = [0; TrimRequest::SIZE];
            TrimRequest { handle: Handle(handle), flags, offset, size }
                .encode(&mut payload)
                .unwrap();
            guest.words(TRIM, &payload).0
        };
        assert_eq!(trim(&b, 1, 2), 0);
        let firsts = || [0, 1, 2, 3].map(|page| (byte(&world, page, 0), byte(&world, page, 64)));
        assert_eq!((rung(&world), firsts()), (2, [(7, 7), (0, 7), (0, 7), (7, 7)]));
        assert_eq!(set(&b, handle, 0x1000, BOTH), 0xc, "B has it no more");
        // The owner's page leaves the parcel: what comes later is not this page's business.
        assert_eq!(trim(&a, 1, 1), 0);
        assert_eq!(firsts(), [(7, 7), (0, 0), (0, 7), (7, 7)]);
        world.cpu(A).write(Ipa(PAGE + 0x2000), 7).unwrap();
        world.cpu(A).write(Ipa(PAGE + 0x2040), 7).unwrap();
        b.release(handle, 0).unwrap();
        assert_eq!((rung(&world), firsts()), (4, [(0, 7), (7, 7), (0, 7), (0, 7)]));
        a.reclaim(handle, 0).unwrap();
        assert_eq!(firsts(), [(0, 0), (7, 7), (0, 0), (0, 0)]);
        world.check();
    }
}

#[test]
fn an_owner_s_is_executed_when_it_takes_the_parcel_away_and_while_others_still_have_it() {
    let bell_of_b = |world: &World| world.interrupts(B, Line::Doorbell(2));
    for (step, keep) in STEPS.iter().copied().flat_map(|step| [(step, false), (step, true)]) {
        let owned_parcels = if keep { OwnedParcels::Keep } else { OwnedParcels::Revoke };
        let world = world_of(&[VmConfig { owned_parcels, ..vm(3) }, vm(4), vm(5)]);
        let handle = held(&world, SHARED, 2);
        let a = world.caller(A);
        assert_eq!(a.words(NOTIFY_SET, &request(handle, 0x1040, BOTH, (1, 9))).0, 0);
        assert_eq!(a.words(NOTIFY_SET, &request(handle, 0x80, CLEAR, (1, 9))).0, 0);
        world.end(A);
        world.settle(A, step);
        assert_eq!(bell_of_b(&world), 1, "A died");
        if keep {
            let seen = [0x80, 0x40, 0x1040, 0x1000].map(|at| world.cpu(B).read(Ipa(WINDOW + at)));
            assert_eq!(seen, [Ok(0), Ok(7), Ok(0), Ok(7)]);
            world.caller(B).release(handle, 0).unwrap();
            world.settle(A, step);
        }
        assert_eq!(bell_of_b(&world), 1, "once");
        world.check();
    }
    for (step, revokes) in STEPS.iter().copied().flat_map(|step| [(step, false), (step, true)]) {
        let world = world();
        let handle = held(&world, SHARED, 2);
        let (a, b) = (world.caller(A), world.caller(B));
        assert_eq!(a.words(NOTIFY_SET, &request(handle, 0x1040, BOTH, (1, 9))).0, 0);
        assert_eq!(a.words(NOTIFY_SET, &request(handle, 0x80, CLEAR, (1, 9))).0, 0);
        a.step.set(step);
        if revokes {
            assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
            assert_eq!((bell_of_b(&world), byte(&world, 1, 0x40)), (1, 0));
            assert_eq!(a.words(NOTIFY_SET, &request(handle, 0, BOTH, (1, 9))).0, 3);
        } else {
            b.release(handle, 0).unwrap();
        }
        a.reclaim(handle, 0).unwrap();
        assert_eq!((bell_of_b(&world), byte(&world, 1, 0x40)), (1, 0));
        assert_eq!([0, 0x40, 0x80].map(|at| byte(&world, 0, at)), [7, 7, 0]);
        world.check();
    }
}

#[test]
fn the_byte_of_an_uncached_parcel_is_cleared_in_memory() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let attributes = [(Attribute::Uncached as u16, 4)];
    let payload = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE, 1)], &attributes);
    let (error, handle) = a.words(SHARED.message(), &payload);
    assert_eq!(error, 0);
    b.accept(handle, SHARED, &[(WINDOW, 1)]).unwrap();
    world.cpu(B).write(Ipa(WINDOW + 9), 7).unwrap();
    assert_eq!(set(&b, handle, 9, CLEAR), 0);
    b.release(handle, 0).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(PAGE + 9)), Ok(0), "A bypasses the caches too");
    world.check();
    a.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn a_caller_that_has_released_and_accepted_again_has_no_old_record() {
    let world = world();
    let handle = held(&world, SHARED, 1);
    let b = world.caller(B);
    assert_eq!(set(&b, handle, 0, BOTH), 0);
    b.release(handle, 0).unwrap();
    let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
    let accept = rm::machine::fake::world::accept(handle, SHARED, flags, &[(WINDOW, 1)]);
    assert_eq!(b.call(message::MEM_ACCEPT, &accept)[..].u32_at(0), 0);
    b.release(handle, 0).unwrap();
    assert_eq!(rung(&world), 1);
}

/// Goes on with a call to the error word of its reply.
fn finish(guest: &Guest<'_>, token: u64) -> u32 {
    let mut turn = guest.resume(token);
    loop {
        match turn {
            Turn::More(token) => turn = guest.resume(token),
            Turn::Reply(reply) => return reply[..].u32_at(0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_loses_its_part_while_it_says_what_is_to_be_done_then_has_said_nothing() {
    // The page is the last of many, so looking for it takes steps.
    type Ends = fn(&World, u32);
    let ends: [(&str, Ends, u32); 3] = [
        (
            "a revocation",
            |world, handle| {
                assert_eq!(world.caller(A).words(REVOKE, &by_handle(handle, 0)).0, 0);
            },
            7,
        ),
        (
            "a release",
            |world, handle| {
                world.caller(B).release(handle, 0).unwrap();
            },
            0xc,
        ),
        (
            "a release and another accept",
            |world, handle| {
                let b = world.caller(B);
                b.release(handle, 0).unwrap();
                b.accept_contiguous(handle, SHARED, (WINDOW, 8)).unwrap();
            },
            0xc,
        ),
    ];
    for (how, end, error) in ends {
        let world = world();
        let handle = held(&world, SHARED, 8);
        let b = world.caller(B);
        // Something else is said already, which the end executes.
        assert_eq!(set(&b, handle, 0, CLEAR), 0);
        b.step.set(1);
        let turn = b.send(NOTIFY_SET, &request(handle, 0x7040, BOTH, (2, 5)));
        let Turn::More(token) = turn else { panic!("{turn:?}") };
        end(&world, handle);
        assert_eq!(finish(&b, token), error, "{how}");
        assert_eq!(byte(&world, 0, 0), 0);
        if b.release(handle, 0).is_ok() {
            assert_eq!(how, "a release and another accept");
        }
        assert_eq!((rung(&world), byte(&world, 7, 0x40)), (0, 7), "{how}");
        world.check();
    }
    // An owner whose other vCPU takes the parcel back.
    let world = world();
    let handle = held(&world, SHARED, 8);
    let a = world.caller(A);
    a.step.set(1);
    let turn = a.send(NOTIFY_SET, &request(handle, 0x7040, CLEAR, (1, 9)));
    let Turn::More(token) = turn else { panic!("{turn:?}") };
    world.caller(B).release(handle, 0).unwrap();
    world.caller(A).reclaim(handle, 0).unwrap();
    assert_eq!(finish(&a, token), 7);
    assert_eq!(byte(&world, 7, 0x40), 7);
    world.check();
}
