//! MEM_APPEND: parcels that are made in several calls.

use rm::address::{Ipa, Pa, VmIndex};
use rm::config::VmConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, World, append, offer, vm};
use rm::quota::Quotas;
use rm::stage2::Access;
use rm_abi::extension::Rule;
use rm_abi::{AppendFlags, CreateFlags, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

/// A parcel of one page for B, to be continued.
fn unfinished(guest: &Guest<'_>, transfer: Transfer, flags: CreateFlags) -> u32 {
    let acl: &[(u16, u8)] = match transfer {
        Transfer::Share => &[(3, 4), (4, 6)],
        Transfer::Lend => &[(4, 6)],
        Transfer::Donate => &[(4, 7)],
    };
    let request = offer(flags | CreateFlags::APPEND, acl, &[(PAGE, 1)], &[]);
    let (error, handle) = guest.words(transfer.message(), &request);
    assert_eq!(error, 0);
    handle
}

/// What A may do at an address.
fn reach(world: &World, at: u64) -> (bool, bool) {
    let can = |access| world.manager.allows(A, Ipa(at), access).is_some();
    (can(Access::Read), can(Access::Write))
}

#[test]
fn appends_are_refused_by_the_first_rule_they_break() {
    let world = world();
    let a = world.caller(A);
    let handle = unfinished(&a, Transfer::Lend, CreateFlags::empty());
    let before = world.check();
    let next = PAGE + 0x2000;
    let good = append(handle, AppendFlags::END, &[(next, 1)]);
    let list = |range: (u64, u64)| append(handle, AppendFlags::END, &[(next, 1), range]);
    let sized = |size: u64| [&good[..20], &size.to_le_bytes()].concat();
    let at = |ipa: u64| [&good[..12], &ipa.to_le_bytes(), &good[20..]].concat();
    let count = |count: u16| [&good[..8], &count.to_le_bytes(), &good[10..]].concat();
    let none = |handle: u32| append(handle, AppendFlags::END, &[]);
    let rows = [
        ("nothing", vec![], 4),
        ("eleven bytes", good[..11].to_vec(), 4),
        ("half an entry", good[..20].to_vec(), 4),
        ("bytes behind the list", [&good[..], &[0; 4]].concat(), 4),
        ("a list of 513", count(513), 2),
        ("a list that runs past the end", count(2), 4),
        ("no page", none(handle), 6),
        ("no page comes before the handle", none(0x1234), 6),
        ("no such parcel", append(0x1234, AppendFlags::END, &[(next, 1)]), 7),
        ("an unaligned address", at(next + 8), 6),
        ("an address of 45 bits", at(1 << 44), 6),
        ("an unaligned size", sized(4097), 6),
        ("a size of 45 bits", sized(1 << 44), 6),
        ("a size of nothing", sized(0), 0xa),
        ("memory that nobody mapped", at(WINDOW), 0xa),
        ("a page of the parcel itself", at(PAGE), 0xa),
        ("the second range is nobody's", list((WINDOW, 1)), 0xa),
        ("the second range is the first again", list((next, 1)), 0xa),
    ];
    for (rule, payload, error) in rows {
        assert_eq!(a.words(message::MEM_APPEND, &payload).0, error, "{rule}");
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "G4: {rule}");
    }
    assert_eq!(world.caller(B).append(handle, true, &[(next, 1)]), Err(7), "not known yet (G6)");
    assert_eq!(world.caller(C).append(handle, true, &[(next, 1)]), Err(7));
    // Flags without a meaning do not end the list.
    assert_eq!(a.words(message::MEM_APPEND, &append(handle, AppendFlags(0xfe), &[(next, 1)])).0, 0);
    a.append(handle, true, &[(next + 0x2000, 1)]).unwrap();
    assert_eq!(a.append(handle, false, &[(next + 0x4000, 1)]), Err(3), "it is finished");
    assert_eq!(world.caller(B).append(handle, true, &[(next, 1)]), Err(3), "only the owner may");
    let why = world.caller(B).last_refusal();
    assert_eq!(
        (why.message, why.rule),
        (message::MEM_APPEND, Rule::NotOwner as u16),
        "whatever else"
    );
    assert_eq!(world.caller(C).append(handle, true, &[(next, 1)]), Err(7));
    a.reclaim(handle, 0).unwrap();
    assert_eq!(a.append(handle, true, &[(next, 1)]), Err(7), "it is gone");
}

#[test]
fn a_parcel_made_without_more_to_come_cannot_grow() {
    let world = world();
    let handle = world.caller(A).offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    assert_eq!(world.caller(A).append(handle, true, &[(PAGE + 0x2000, 1)]), Err(3));
}

#[test]
fn appended_pages_change_hands_at_once() {
    let cases = [
        (Transfer::Lend, (false, false)),
        (Transfer::Share, (true, false)),
        (Transfer::Donate, (false, false)),
    ];
    for (transfer, left) in cases {
        let world = world();
        let a = world.caller(A);
        let handle = unfinished(&a, transfer, CreateFlags::empty());
        let appended = [PAGE + 0x2000, PAGE + 0x8000];
        a.append(handle, false, &[(appended[0], 1)]).unwrap();
        a.append(handle, true, &[(appended[1], 1), (PAGE + 0xa000, 3)]).unwrap();
        for at in appended {
            assert_eq!(reach(&world, at), left, "{transfer:?}");
        }
        let before = world.check();
        assert_eq!((before.lent + before.shared, before.parcels), (6, 1));
        world.caller(B).accept_contiguous(handle, transfer, (WINDOW, 6)).unwrap();
        world.check();
    }
}

#[test]
fn a_refused_append_leaves_the_parcel_as_it_was() {
    for step in some([1, 40, rm::operation::STEP], 3) {
        let world = world();
        let a = world.caller(A);
        a.step.set(step);
        let handle = unfinished(&a, Transfer::Lend, CreateFlags::empty());
        let many: Vec<_> = (0..300).map(|page| (PAGE + 0x10_0000 + page * 0x2000, 1)).collect();
        a.append(handle, false, &many[..8]).unwrap();
        let before = world.check();
        let bad = [&many[8..], &[(WINDOW, 1)]].concat();
        assert_eq!(a.append(handle, true, &bad), Err(0xa));
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "G4, with a step of {step}");
        // Nothing of the bad one is kept: the parcel's size is that of the good ones alone.
        a.append(handle, true, &many[8..20]).unwrap();
        world.caller(B).accept_contiguous(handle, Transfer::Lend, (WINDOW, 21)).unwrap();
        world.check();
    }
}

#[test]
fn a_long_parcel_is_made_mapped_and_reclaimed_in_steps_of_one_unit() {
    let world = world();
    let idle = world.check();
    let a = world.caller(A);
    a.step.set(1);
    let b = world.caller(B);
    b.step.set(1);
    let handle = unfinished(&a, Transfer::Lend, CreateFlags::SANITIZE);
    // Three appends of 100 runs, over the end of a frame of extents.
    let run = |index: u64| (RAM.0 + 0x20_0000 + index * 0x4000, 1 + index % 2);
    let each = few(100, 3);
    for part in 0..3 {
        let ranges: Vec<_> = (part * each..part * each + each).map(run).collect();
        a.append(handle, part == 2, &ranges).unwrap();
    }
    let mut units = vec![(WINDOW, 1)];
    units.extend((0..3 * each).map(|index| (WINDOW + 0x10_0000 + index * 0x8000, run(index).1)));
    b.accept(handle, Transfer::Lend, &units).unwrap();
    let pages = units.iter().map(|(_, pages)| pages).sum();
    assert_eq!(world.check().borrowed, pages);
    b.release(handle, 0).unwrap();
    b.accept_contiguous(handle, Transfer::Lend, (WINDOW, pages)).unwrap();
    assert_eq!(world.check().borrowed, pages);
    assert_eq!(
        world.cpu(B).read(Ipa(WINDOW + (pages - 1) * 4096)),
        Ok(0),
        "zeroed when it was appended"
    );
    b.release(handle, 0).unwrap();
    a.reclaim(handle, 0).unwrap();
    for vm in [A, B] {
        while world.manager.idle(vm) {}
    }
    assert_eq!(world.check(), idle);
}

#[test]
fn a_parcel_can_be_abandoned_between_appends() {
    let world = world();
    let idle = world.check();
    let a = world.caller(A);
    let handle = unfinished(&a, Transfer::Share, CreateFlags::empty());
    a.append(handle, false, &[(PAGE + 0x2000, 2), (PAGE + 0x6000, 1)]).unwrap();
    a.append(handle, false, &[(PAGE + 0x10_0000, 600)]).unwrap();
    a.reclaim(handle, 0).unwrap();
    while world.manager.idle(A) {}
    assert_eq!(world.check(), idle);
    assert_eq!(reach(&world, PAGE + 0x2000), (true, true));
}

#[test]
fn appended_pages_are_zero_where_the_creation_said_so_and_kept_otherwise() {
    for (flags, kept) in [(CreateFlags::SANITIZE, 0), (CreateFlags::empty(), 7)] {
        let world = world();
        let a = world.caller(A);
        let at = PAGE + 0x2000;
        world.cpu(A).write(Ipa(at), 7).unwrap();
        let handle = unfinished(&a, Transfer::Lend, flags);
        a.append(handle, true, &[(at, 1)]).unwrap();
        world.caller(B).accept_contiguous(handle, Transfer::Lend, (WINDOW, 2)).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW + 4096)), Ok(kept));
    }
}

#[test]
fn appends_are_charged_and_refunded() {
    let quotas = Quotas { unfinished: 1, pages_lent: 6, extents: 4, ..vm(3).quotas };
    let world = World::new(&[VmConfig { quotas, ..vm(3) }, vm(4), vm(5)]);
    let a = world.caller(A);
    let handle = unfinished(&a, Transfer::Lend, CreateFlags::empty());
    let before = world.check();
    let second = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE + 0x20_0000, 1)], &[]);
    assert_eq!(a.words(message::MEM_LEND, &second).0, 2, "one creation may be unfinished");
    let apart =
        |count: u64| (0..count).map(|i| (PAGE + 0x2000 + i * 0x2000, 1)).collect::<Vec<_>>();
    assert_eq!(a.append(handle, false, &[(PAGE + 0x2000, 6)]), Err(2), "pages, at once");
    assert_eq!(a.append(handle, false, &[(PAGE + 0x2000, 5), (PAGE + 0x8000, 1)]), Err(2), "pages");
    assert_eq!(a.append(handle, false, &apart(4)), Err(2), "extents");
    while world.manager.idle(A) {}
    assert_eq!(world.check(), before);
    a.append(handle, true, &apart(3)).expect("what was refused was refunded");
    assert_eq!(a.words(message::MEM_LEND, &second).0, 2, "extents are used up");
    a.reclaim(handle, 0).unwrap();
    let (error, second) = a.words(message::MEM_LEND, &second);
    assert_eq!(error, 0, "the finished one counts no more");
    a.append(second, true, &[(PAGE, 5)]).unwrap();
}

#[test]
fn an_append_zeroes_its_own_pages_only() {
    for step in some([1, rm::operation::STEP], 3) {
        let world = world();
        let a = world.caller(A);
        a.step.set(step);
        let acl = [(3, 6), (4, 6)];
        let flags = CreateFlags::APPEND | CreateFlags::SANITIZE;
        let handle = a.words(message::MEM_SHARE, &offer(flags, &acl, &[(PAGE, 1)], &[])).1;
        let written = |at| world.cpu(A).read(Ipa(at));
        for at in [PAGE, PAGE + 0x2000] {
            world.cpu(A).write(Ipa(at), 7).unwrap();
        }
        a.append(handle, true, &[(PAGE + 0x2000, 1)]).unwrap();
        assert_eq!((written(PAGE), written(PAGE + 0x2000)), (Ok(7), Ok(0)), "step {step}");
    }
}

#[test]
fn a_range_that_lies_in_many_places_of_the_machine_is_offered_piece_by_piece() {
    for pieces in 3..8 {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let apart: Vec<_> = (0..pieces).map(|page| (PAGE + page * 0x2000, 1)).collect();
        let given = a.offer(Transfer::Donate, &[(4, 7)], &apart).unwrap();
        b.accept_contiguous(given, Transfer::Donate, (WINDOW, pieces)).unwrap();
        for page in 0..pieces {
            world.cpu(B).write(Ipa(WINDOW + page * 0x1000), 10 + page as u8).unwrap();
        }
        let before = world.check();
        let lent = b.offer(Transfer::Lend, &[(3, 6)], &[(WINDOW, pieces)]).unwrap();
        let report = world.check();
        assert_eq!((report.lent, report.parcels), (pieces, 1));
        assert!(world.manager.allows(B, Ipa(WINDOW), Access::Read).is_none());
        // As many units as there are pieces.
        let places: Vec<_> = (0..pieces).map(|page| (WINDOW + page * 0x2000, 1)).collect();
        assert_eq!(a.accept(lent, Transfer::Lend, &places[1..]), Err(6), "one is missing");
        a.accept(lent, Transfer::Lend, &places).unwrap();
        for (value, (at, _)) in (10..).zip(places) {
            assert_eq!(world.cpu(A).read(Ipa(at)), Ok(value));
        }
        a.release(lent, 0).unwrap();
        b.reclaim(lent, 0).unwrap();
        while world.manager.idle(A) || world.manager.idle(B) {}
        assert_eq!(world.check().owned, before.owned);
        // A donation of two of its pages, which is no longer.
        let back = b.offer(Transfer::Donate, &[(3, 7)], &[(WINDOW + 0x1000, 2)]).unwrap();
        a.accept_contiguous(back, Transfer::Donate, (WINDOW, 2)).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(WINDOW)), Ok(11));
        world.check();
    }
}

#[test]
fn the_last_pages_of_an_address_space_are_offered_like_any_others() {
    const END: u64 = 1 << 36;
    for (first, pages) in [(END - 0x1000, 1), (END - 0x3000, 3), (END - 0x20_0000, 512)] {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let pa = Pa(World::pa_of(A).0 + 0x8000_0000);
        world.manager.give(A, Ipa(END - 0x40_0000), pa, 1024).unwrap();
        let before = world.check();
        assert_eq!(a.offer(Transfer::Lend, &[(4, 6)], &[(first, pages + 1)]), Err(0xa));
        let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(first, pages)]).unwrap();
        assert!(!reach(&world, END - 0x1000).0);
        assert!(reach(&world, first - 0x1000).1, "what is before them stays");
        b.accept_contiguous(handle, Transfer::Lend, (first, pages)).unwrap();
        assert!(world.cpu(B).write(Ipa(END - 1), 7).is_ok());
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(END - 1)), Ok(7));
        while world.manager.idle(A) || world.manager.idle(B) {}
        assert_eq!(world.check(), before);
    }
}
