//! TRIM: some pages leave a parcel that stays mapped around them.

use rm::address::{Ipa, VmIndex};
use rm::config::VmConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, offer, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm_abi::extension::{REVOKE, Rule, TRIM, TrimFlags, TrimRequest};
use rm_abi::{AcceptFlags, Attribute, CreateFlags, Handle, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
/// A whole block of 2 MiB, and pages that are in another one.
const BLOCK: u64 = RAM.0 + 0x40_0000;
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;
const STEPS: &[u32] = few(&[1, 200, STEP], &[30]);
const WIPE: TrimFlags = TrimFlags::SANITIZE;
const KEEP: TrimFlags = TrimFlags::empty();

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5), vm(6)])
}

fn request(handle: u32, (first, pages): (u64, u64), flags: TrimFlags) -> Vec<u8> {
    let (offset, size) = (first * 4096, pages * 4096);
    let mut payload = vec![0; TrimRequest::SIZE];
    TrimRequest { handle: Handle(handle), flags, offset, size }.encode(&mut payload).unwrap();
    payload
}

/// The error word of a trim of some pages.
fn trim(guest: &Guest<'_>, handle: u32, range: (u64, u64), flags: TrimFlags) -> u32 {
    guest.words(TRIM, &request(handle, range, flags)).0
}

/// An access list for B and C, with A where its kind wants it.
fn acl(transfer: Transfer) -> &'static [(u16, u8)] {
    let all = &[(3, 6), (4, 6), (5, 6)];
    if transfer == SHARED { all } else { &all[1..] }
}

fn merge_all(world: &World) {
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
}

fn reads(world: &World, vm: VmIndex, at: u64) -> Option<u8> {
    world.cpu(vm).read(Ipa(at)).ok()
}

/// Writes as a VM whose abort handler asks once more.
fn writes(world: &World, vm: VmIndex, at: u64, value: u8) -> bool {
    world.cpu(vm).forget(Ipa(at));
    world.cpu(vm).write(Ipa(at), value).is_ok()
}

#[test]
fn g2_the_middle_page_of_a_block_comes_home_while_both_sides_stay_mapped() {
    for (transfer, step) in
        some([LENT, SHARED], 2).flat_map(|kind| STEPS.iter().map(move |&s| (kind, s)))
    {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        [&a, &b].iter().for_each(|guest| guest.step.set(step));
        let handle = a.offer(transfer, acl(transfer), &[(BLOCK, 512)]).unwrap();
        b.accept_contiguous(handle, transfer, (WINDOW, 512)).unwrap();
        let whole = world.check();
        for page in 99..=101 {
            world.cpu(B).write(Ipa(WINDOW + page * 4096), page as u8).unwrap();
        }
        assert_eq!(trim(&a, handle, (100, 1), KEEP), 0xb);
        assert_eq!(a.last_refusal().holders()[0].0, 4);
        assert_eq!(trim(&b, handle, (100, 1), KEEP), 0);
        let page =
            |n: u64| (reads(&world, A, BLOCK + n * 4096), reads(&world, B, WINDOW + n * 4096));
        let owners = |n| if transfer == LENT { None } else { Some(n) };
        assert_eq!(
            [99, 100, 101].map(page),
            [(owners(99), Some(99)), (owners(100), None), (owners(101), Some(101))]
        );
        assert_eq!(trim(&a, handle, (100, 1), KEEP), 0);
        assert_eq!(
            [99, 100, 101].map(page),
            [(owners(99), Some(99)), (Some(100), None), (owners(101), Some(101))]
        );
        assert!(writes(&world, A, BLOCK + 100 * 4096, 1));
        let audit = world.check();
        assert_eq!((audit.owned, audit.borrowed), (whole.owned + 1, whole.borrowed - 1));
        // It is A's own again, and may go into another parcel.
        let other = a.offer(LENT, &[(5, 6)], &[(BLOCK + 100 * 4096, 1)]).unwrap();
        world.check();
        a.reclaim(other, 0).unwrap();
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        merge_all(&world);
        assert_eq!(world.check(), before, "{transfer:?} in steps of {step}");
    }
}

#[test]
fn g5_only_what_is_trimmed_is_wiped() {
    for &step in STEPS {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        [&a, &b].iter().for_each(|guest| guest.step.set(step));
        let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 4)]).unwrap();
        b.accept_contiguous(handle, LENT, (WINDOW, 4)).unwrap();
        (0..4).for_each(|n| world.cpu(B).write(Ipa(WINDOW + n * 4096), 7).unwrap());
        assert_eq!(trim(&b, handle, (0, 1), WIPE), 0);
        assert_eq!(trim(&b, handle, (1, 1), KEEP), 0);
        assert_eq!(trim(&b, handle, (2, 1), KEEP), 0);
        assert_eq!(trim(&a, handle, (0, 2), KEEP), 0);
        assert_eq!(trim(&a, handle, (2, 1), WIPE), 0);
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        let seen = [0, 1, 2, 3].map(|n| reads(&world, A, PAGE + n * 4096).unwrap());
        assert_eq!(seen, [0, 7, 0, 7]);
        world.check();
    }
}

#[test]
fn g5_what_must_be_zero_at_the_reclaim_is_zero_at_a_trim() {
    for &step in STEPS {
        let always = VmConfig { sanitize_always: true, ..vm(4) };
        let world = World::new(&[vm(3), always, vm(5)]);
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 3)]).unwrap();
        b.accept_contiguous(handle, LENT, (WINDOW, 3)).unwrap();
        world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
        assert_eq!(trim(&b, handle, (0, 1), KEEP), 0);
        assert_eq!(trim(&a, handle, (0, 1), KEEP), 0);
        assert_eq!(reads(&world, A, PAGE), Some(0));
    }
}

#[test]
fn an_uncached_parcel_gives_pages_back_that_are_write_back_and_keep_their_content() {
    for (transfer, flags) in
        some([LENT, SHARED].into_iter().flat_map(|k| [(k, KEEP), (k, WIPE)]), 4)
    {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        let attributes = [(Attribute::Uncached as u16, 4)];
        let payload = offer(CreateFlags::empty(), acl(transfer), &[(BLOCK, 512)], &attributes);
        let (error, handle) = a.words(transfer.message(), &payload);
        assert_eq!(error, 0);
        b.accept_contiguous(handle, transfer, (WINDOW, 512)).unwrap();
        world.cpu(B).write(Ipa(WINDOW + 0x5000), 7).unwrap();
        assert_eq!(trim(&b, handle, (4, 3), flags), 0);
        assert_eq!(trim(&a, handle, (5, 1), KEEP), 0);
        let expected = if flags == WIPE { 0 } else { 7 };
        assert_eq!(reads(&world, A, BLOCK + 0x5000), Some(expected));
        assert!(writes(&world, A, BLOCK + 0x5000, 9));
        world.check();
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        assert_eq!(reads(&world, A, BLOCK + 0x5000), Some(9));
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

#[test]
fn g4_a_refused_trim_changes_nothing() {
    for &step in STEPS {
        let world = world();
        let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
        [&a, &b, &c].iter().for_each(|guest| guest.step.set(step));
        let handle = a.offer(SHARED, &[(3, 6), (4, 4), (5, 6)], &[(PAGE, 20)]).unwrap();
        b.accept_contiguous(handle, SHARED, (WINDOW, 20)).unwrap();
        assert_eq!(trim(&b, handle, (3, 2), KEEP), 0);
        let before = world.check();
        let refused = |guest: &Guest<'_>, range, flags, code, rule: Rule| {
            assert_eq!(trim(guest, handle, range, flags), code, "{range:?}");
            assert_eq!(guest.last_refusal().rule, rule as u16, "{range:?}");
            assert_eq!(world.check(), before, "{range:?}");
        };
        for guest in [&a, &b] {
            for range in [(0, 0), (20, 1), (19, 2), (1 << 51, 1), (1, (1 << 52) - 1)] {
                refused(guest, range, KEEP, 6, Rule::TrimRange);
            }
            for (offset, size) in [(1, 4096), (0, 4097), (u64::MAX, 1), (4096, u64::MAX)] {
                let mut payload = request(handle, (0, 0), KEEP);
                payload[8..16].copy_from_slice(&u64::to_le_bytes(offset));
                payload[16..].copy_from_slice(&u64::to_le_bytes(size));
                assert_eq!(guest.words(TRIM, &payload).0, 6, "{offset} {size}");
            }
        }
        refused(&b, (0, 1), WIPE, 6, Rule::SanitizeRights);
        refused(&b, (4, 2), KEEP, 0xc, Rule::Trimmed);
        refused(&c, (0, 1), KEEP, 0xc, Rule::NotHeld);
        refused(&a, (4, 2), KEEP, 0xb, Rule::Held);
        let stranger = world.caller(VmIndex(3));
        assert_eq!(trim(&stranger, handle, (0, 1), KEEP), 7);
        assert_eq!(trim(&a, handle + 0x2000, (0, 1), KEEP), 7);
        assert_eq!(a.words(TRIM, &handle.to_le_bytes()).0, 4, "too short");
        assert_eq!(trim(&a, handle, (0, 1), TrimFlags(2)), 6, "an unknown flag");
        assert_eq!(world.check(), before);
        // C's addresses are assigned, not mapped.
        let assign = accept(handle, SHARED, AcceptFlags::MAP_CONTIGUOUS, &[(WINDOW, 20)]);
        assert_eq!(c.words(message::MEM_ACCEPT, &assign).0, 0);
        assert_eq!(trim(&c, handle, (0, 1), KEEP), 0xc);
        assert_eq!(trim(&a, handle, (3, 2), KEEP), 0xb);
        assert_eq!(a.last_refusal().holders()[0].0, 5);
        c.release(handle, 0).unwrap();
        assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
        assert_eq!(trim(&b, handle, (0, 1), KEEP), 7);
        assert_eq!(trim(&a, handle, (0, 1), KEEP), 3);
        a.reclaim(handle, 0).unwrap();
        world.check();
    }
}

#[test]
fn g4_a_trim_without_frames_for_its_cuts_is_refused_on_either_side() {
    let quotas = Quotas { frames: 9, frames_reserved: 9, ..vm(3).quotas };
    // A has its root and one table below it, B another one for its window. Each page that either lends
    // out of a block takes one more, and cutting both blocks of the parcel takes two.
    let cases = [(A, 6, true), (A, 5, false), (B, 6, true), (B, 5, true), (B, 4, false)];
    for (side, lent, refused) in some(cases, 4) {
        let mut vms = [vm(3), vm(4), vm(5)];
        vms[usize::from(side.0)].quotas = quotas;
        let world = World::new(&vms);
        let guest = world.caller(side);
        let handle = world.caller(A).offer(LENT, &[(4, 6)], &[(BLOCK, 1024)]).unwrap();
        if side == B {
            world.caller(B).accept_contiguous(handle, LENT, (WINDOW, 1024)).unwrap();
        }
        for block in [0, 1, 4, 5, 6, 7].into_iter().take(lent) {
            guest.offer(LENT, &[(5, 6)], &[(RAM.0 + block * 0x20_0000, 1)]).unwrap();
        }
        let before = world.check();
        let answer = trim(&guest, handle, (500, 100), KEEP);
        if !refused {
            assert_eq!(answer, 0, "{side:?} {lent}");
            assert_eq!(world.check().tables, before.tables + 2);
            continue;
        }
        assert_eq!((answer, guest.last_refusal().rule), (1, Rule::NoFrame as u16), "{side:?}");
        assert_eq!(world.check(), before);
        assert_eq!(trim(&guest, handle, (0, 512), KEEP), 0, "that takes no table");
        world.check();
    }
}

#[test]
fn the_holders_that_are_in_the_way_are_named() {
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let handle = a.offer(LENT, acl(LENT), &[(PAGE, 4)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 4)).unwrap();
    c.accept_contiguous(handle, LENT, (WINDOW, 4)).unwrap();
    let holders = || {
        assert_eq!(trim(&a, handle, (1, 2), KEEP), 0xb);
        a.last_refusal().holders().iter().map(|vmid| vmid.0).collect::<Vec<_>>()
    };
    assert_eq!(holders(), [4, 5]);
    assert_eq!(trim(&b, handle, (0, 3), KEEP), 0);
    assert_eq!(holders(), [5]);
    assert_eq!(trim(&c, handle, (1, 1), KEEP), 0);
    assert_eq!(holders(), [5], "it has the second page still");
    assert_eq!(trim(&c, handle, (2, 1), KEEP), 0);
    assert_eq!(trim(&a, handle, (1, 2), KEEP), 0);
    world.check();
}

#[test]
fn g3_who_accepts_later_finds_nothing_in_the_holes() {
    let ranges: Vec<_> = (0..5).map(|n| (PAGE + n * 0x4000, 3)).collect();
    for &step in STEPS {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        [&a, &b].iter().for_each(|guest| guest.step.set(step));
        let handle = a.offer(LENT, &[(4, 6)], &ranges).unwrap();
        // The end of the first unit, all of the second, the middle of the fourth.
        assert_eq!(trim(&a, handle, (2, 4), KEEP), 0);
        assert_eq!(trim(&a, handle, (10, 1), KEEP), 0);
        let mapped = |at: &dyn Fn(u64) -> u64| -> Vec<u64> {
            (0..15).filter(|&page| reads(&world, B, at(page)).is_some()).collect()
        };
        let left = [0, 1, 6, 7, 8, 9, 11, 12, 13, 14];
        b.accept_contiguous(handle, LENT, (WINDOW, 15)).unwrap();
        assert_eq!(mapped(&|page| WINDOW + page * 4096), left);
        world.check();
        b.release(handle, 0).unwrap();
        world.check();
        let places: Vec<_> = (0..5).map(|n| (WINDOW + n * 0x1_0000, 3)).collect();
        b.accept(handle, LENT, &places).unwrap();
        let at = |page: u64| WINDOW + page / 3 * 0x1_0000 + page % 3 * 4096;
        assert_eq!(mapped(&at), left);
        // Another parcel may lie in a hole of B's window.
        let other = a.offer(LENT, &[(4, 6)], &[(ranges[1].0, 3)]).unwrap();
        b.accept_contiguous(other, LENT, (at(3), 3)).unwrap();
        assert_eq!(trim(&b, handle, (12, 3), KEEP), 0);
        world.check();
        b.release(handle, 0).unwrap();
        assert!(reads(&world, B, at(4)).is_some(), "that is the other parcel's");
        a.reclaim(handle, 0).unwrap();
        b.release(other, 0).unwrap();
        a.reclaim(other, 0).unwrap();
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

#[test]
fn all_of_a_parcel_may_be_trimmed_and_the_parcel_stays() {
    let world = world();
    let before = world.check();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, acl(SHARED), &[(PAGE, 3), (PAGE + 0x8000, 3)]).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 6)).unwrap();
    assert_eq!(trim(&b, handle, (0, 6), KEEP), 0);
    assert_eq!(a.reclaim(handle, 0), Err(0xb), "B has not released it");
    assert_eq!(trim(&a, handle, (0, 6), KEEP), 0);
    b.release(handle, 0).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 6)).unwrap();
    world.check();
    b.release(handle, 0).unwrap();
    a.reclaim(handle, 0).unwrap();
    merge_all(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn holes_that_touch_count_once_and_too_many_are_refused() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 40)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 40)).unwrap();
    for n in 0..4 {
        assert_eq!(trim(&b, handle, (4 * n, 1), KEEP), 0);
    }
    assert_eq!((trim(&b, handle, (30, 1), KEEP), b.last_refusal().rule), (2, 52));
    assert_eq!(trim(&b, handle, (1, 3), KEEP), 0, "that joins two");
    assert_eq!(trim(&b, handle, (30, 1), KEEP), 0);
    b.release(handle, 0).unwrap();
    for n in 0..8 {
        assert_eq!(trim(&a, handle, (4 * n, 1), KEEP), 0);
    }
    assert_eq!((trim(&a, handle, (38, 1), KEEP), a.last_refusal().rule), (2, 52));
    assert_eq!(trim(&a, handle, (29, 1), KEEP), 0);
    // Everything that B had given up is forgotten: it accepts what is left, and has holes to make.
    b.accept_contiguous(handle, LENT, (WINDOW, 40)).unwrap();
    assert_eq!(trim(&b, handle, (30, 1), KEEP), 0);
    world.check();
}

#[test]
fn an_unfinished_parcel_and_a_donation_can_be_trimmed_too() {
    for &step in STEPS {
        let world = world();
        let a = world.caller(A);
        let b = world.caller(B);
        a.step.set(step);
        let payload = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE, 4)], &[]);
        let (error, handle) = a.words(message::MEM_LEND, &payload);
        assert_eq!((error, trim(&a, handle, (2, 1), KEEP)), (0, 0));
        // What is appended begins where the parcel ended, not in the hole.
        a.append(handle, false, &[(BLOCK, 4), (BLOCK + 0x8000, 1)]).unwrap();
        a.append(handle, true, &[(BLOCK + 0xa000, 1)]).unwrap();
        assert_eq!(trim(&a, handle, (3, 2), KEEP), 0);
        b.accept_contiguous(handle, LENT, (WINDOW, 10)).unwrap();
        let mapped = |page: &u64| reads(&world, B, WINDOW + page * 4096).is_some();
        assert_eq!((0..10).filter(mapped).collect::<Vec<_>>(), [0, 1, 5, 6, 7, 8, 9]);
        world.check();

        let payload = offer(CreateFlags::empty(), &[(4, 7)], &[(BLOCK + 0x2_0000, 3)], &[]);
        let given = a.words(message::MEM_DONATE, &payload);
        assert_eq!((given.0, trim(&a, given.1, (1, 1), KEEP)), (0, 0));
        b.accept_contiguous(given.1, Transfer::Donate, (WINDOW + 0x10_0000, 3)).unwrap();
        assert!(writes(&world, A, BLOCK + 0x2_1000, 1) && !writes(&world, A, BLOCK + 0x2_2000, 1));
        assert!(writes(&world, B, WINDOW + 0x10_2000, 1));
        assert!(!writes(&world, B, WINDOW + 0x10_1000, 1));
        world.check();
    }
}

#[test]
fn a_lookup_describes_what_is_left() {
    for &step in STEPS {
        let world = world();
        let a = world.caller(A);
        a.step.set(step);
        let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 4), (PAGE + 0x8000, 1)]).unwrap();
        assert_eq!(trim(&a, handle, (1, 1), KEEP), 0);
        let look = |ranges: &[(u64, u64)]| {
            let payload = offer(CreateFlags::empty(), &[(4, 6)], ranges, &[]);
            a.words(message::MEM_LOOKUP, &payload)
        };
        assert_eq!(look(&[(PAGE, 4), (PAGE + 0x8000, 1)]).0, 0xe);
        assert_eq!(look(&[(PAGE, 1), (PAGE + 0x2000, 2)]).0, 0xe);
        let left = [(PAGE, 1), (PAGE + 0x2000, 2), (PAGE + 0x8000, 1)];
        assert_eq!(look(&left), (0, handle));
        assert_eq!(look(&[&left[..], &[(PAGE + 0xa000, 1)]].concat()).0, 0xe);
    }
}

#[test]
fn between_two_steps_of_an_owners_trim_its_parcel_waits() {
    let ranges: Vec<_> = (0..8).map(|n| (PAGE + n * 0x2000, 1)).collect();
    for steps in some(1..30, 5) {
        let world = world();
        let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
        let handle = a.offer(LENT, acl(LENT), &ranges).unwrap();
        c.accept_contiguous(handle, LENT, (WINDOW, 8)).unwrap();
        assert_eq!(trim(&c, handle, (2, 3), KEEP), 0);
        a.step.set(1);
        let mut turn = a.send(TRIM, &request(handle, (2, 3), WIPE));
        for _ in 1..steps {
            if let Turn::More(token) = turn {
                turn = a.resume(token);
            }
        }
        let Turn::More(token) = turn else { return assert!(steps > 8, "{steps}") };
        assert_eq!(a.reclaim(handle, 0), Err(5));
        assert_eq!(b.accept_contiguous(handle, LENT, (WINDOW, 8)), Err(5));
        assert_eq!(trim(&a, handle, (0, 1), KEEP), 5);
        // Who has the rest of it is not held up.
        assert_eq!(trim(&c, handle, (7, 1), KEEP), 0);
        if steps % 2 == 0 {
            c.release(handle, 0).unwrap();
        }
        let mut turn = a.resume(token);
        while let Turn::More(token) = turn {
            turn = a.resume(token);
        }
        assert_eq!(turn, Turn::Reply(vec![0; 4]));
        b.accept_contiguous(handle, LENT, (WINDOW, 8)).unwrap();
        world.check();
    }
    panic!("the trim does not end");
}

#[test]
fn g5_a_borrowers_trim_is_taken_over_wherever_it_stands() {
    let ranges: Vec<_> = (0..8).map(|n| (PAGE + n * 0x2000, 1)).collect();
    for (transfer, flags) in [LENT, SHARED].into_iter().flat_map(|k| [(k, KEEP), (k, WIPE)]) {
        for steps in some(few(0, 7)..40, 40) {
            let world = world();
            let before = world.check();
            let (a, b) = (world.caller(A), world.caller(B));
            let handle = a.offer(transfer, acl(transfer), &ranges).unwrap();
            b.accept_contiguous(handle, transfer, (WINDOW, 8)).unwrap();
            assert_eq!(trim(&b, handle, (6, 1), KEEP), 0);
            world.cpu(B).write(Ipa(WINDOW + 0x3000), 7).unwrap();
            b.step.set(1);
            let mut turn = b.send(TRIM, &request(handle, (2, 3), flags));
            for _ in 0..steps {
                if let Turn::More(token) = turn {
                    turn = b.resume(token);
                }
            }
            // B does nothing any more, and neither does anybody for it.
            a.step.set(1);
            assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
            assert!(reads(&world, B, WINDOW + 0x3000).is_none());
            a.reclaim(handle, 0).unwrap();
            let seen = reads(&world, A, PAGE + 3 * 0x2000);
            // A trim that was not decided has wiped nothing.
            let zero = transfer == LENT || flags == WIPE && steps > 8;
            assert!(seen == Some(0) || !zero && seen == Some(7), "{seen:?} after {steps} steps");
            if let Turn::More(token) = turn {
                assert_eq!(b.resume(token), Turn::Reply(7_u32.to_le_bytes().to_vec()));
            }
            merge_all(&world);
            assert_eq!(world.check(), before, "{transfer:?} {flags:?} {steps} steps");
        }
    }
}

#[test]
fn a_vm_that_ends_leaves_nothing_of_what_it_trimmed_or_was_trimming() {
    for (dying, steps) in
        [A, B].into_iter().flat_map(|vm| some(few(0, 6)..20, 16).map(move |n| (vm, n)))
    {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        let handle = a.offer(LENT, &[(4, 6)], &[(BLOCK, 512), (PAGE, 1), (PAGE + 0x4000, 4)]);
        let handle = handle.unwrap();
        b.accept_contiguous(handle, LENT, (WINDOW, 517)).unwrap();
        assert_eq!(trim(&b, handle, (510, 5), KEEP), 0);
        assert_eq!(trim(&a, handle, (511, 2), KEEP), 0);
        let guest = if dying == A { &a } else { &b };
        let range = if dying == A { (513, 2) } else { (9, 3) };
        guest.step.set(1);
        let mut turn = guest.send(TRIM, &request(handle, range, WIPE));
        for _ in 0..steps {
            if let Turn::More(token) = turn {
                turn = guest.resume(token);
            }
        }
        world.end(dying);
        world.settle(dying, 50);
        world.check();
        if dying == B {
            a.reclaim(handle, 0).unwrap();
        }
        merge_all(&world);
        assert_eq!(world.check(), before, "{dying:?} after {steps} steps");
    }
}
