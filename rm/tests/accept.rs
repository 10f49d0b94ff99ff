//! MEM_ACCEPT in several calls: units get their addresses bit by bit, and nothing is mapped until the
//! last call says DONE.

use rm::address::{Ipa, Pa, VmIndex};
use rm::audit::AuditReport;
use rm::config::VmConfig;
use rm::machine::Features;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, Turn, World, accept, append, offer, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm::stage2::Access;
use rm_abi::extension::Rule;
use rm_abi::memparcel::accept::Accepted;
use rm_abi::{AcceptFlags, AppendFlags, CreateFlags, Header, SglEntry, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const WINDOW: u64 = 0x9000_0000;
const NONE: AcceptFlags = AcceptFlags::empty();
const DONE: AcceptFlags = AcceptFlags::DONE;
const CONTIGUOUS: AcceptFlags = AcceptFlags::MAP_CONTIGUOUS;

fn world() -> World {
    World::new(&[vm(3), vm(4)])
}

/// Which run of a long parcel is where: single pages and pairs, all apart.
fn run(index: u64) -> (u64, u64) {
    (RAM.0 + index * 0x3000, 1 + index % 2)
}

/// A share of `count` runs, made by a creation and appends of at most 500 each.
fn long_share(world: &World, count: u64) -> u32 {
    let a = world.caller(A);
    let runs: Vec<_> = (0..count).map(run).collect();
    let acl = [(3, 6), (4, 6)];
    let (error, handle) =
        a.words(message::MEM_SHARE, &offer(CreateFlags::APPEND, &acl, &runs[..1], &[]));
    assert_eq!(error, 0);
    for part in runs[1..].chunks(500) {
        let request = append(handle, AppendFlags::empty(), part);
        assert_eq!(a.words(message::MEM_APPEND, &request).0, 0);
    }
    let last = (RAM.0 + 0xfa_0000, 1);
    a.append(handle, true, &[last]).unwrap();
    handle
}

/// One call: the ranges of its reply and whether units are left, or the error word.
type Taken = Result<(Vec<SglEntry>, bool), u32>;

fn taken(reply: &[u8]) -> Taken {
    match u32::from_le_bytes(reply[..4].try_into().unwrap()) {
        0 => {
            let data = &reply[4..];
            let accepted = Accepted::decode(data).expect("a reply with ranges");
            Ok((accepted.sgl.iter(data).collect(), accepted.incomplete))
        }
        error => Err(error),
    }
}

/// Lets the manager choose addresses.
fn choose(guest: &Guest<'_>, handle: u32, flags: AcceptFlags) -> Taken {
    let request = accept(handle, Transfer::Share, flags, &[]);
    taken(&guest.call(message::MEM_ACCEPT, &request))
}

/// Names addresses; the result is the error word.
fn name(guest: &Guest<'_>, handle: u32, flags: AcceptFlags, ranges: &[(u64, u64)]) -> u32 {
    let request = accept(handle, Transfer::Share, flags, ranges);
    let reply = guest.call(message::MEM_ACCEPT, &request);
    assert_eq!(reply.len(), 4, "a reply to named addresses has no data");
    u32::from_le_bytes(reply[..4].try_into().unwrap())
}

fn settled(world: &World) -> AuditReport {
    for vm in [A, B] {
        while world.manager.idle(vm) {}
    }
    world.check()
}

/// As [`settled`], where a parcel is long; not under Miri, which takes minutes to look at all of it.
fn settled_long(world: &World) -> Option<AuditReport> {
    (!cfg!(miri)).then(|| settled(world))
}

#[test]
fn a_parcel_of_many_units_is_accepted_in_portions_of_512() {
    let runs = few(1299, 519);
    for (step, queued) in some([(STEP, false), (STEP, true), (1, false)], 3) {
        let world = world();
        let handle = long_share(&world, runs);
        let before = settled_long(&world);
        let b = world.caller(B);
        b.step.set(step);
        let call = |flags| {
            let request = accept(handle, Transfer::Share, flags, &[]);
            let reply = if queued {
                b.queue_call(message::MEM_ACCEPT, &request)
            } else {
                b.call(message::MEM_ACCEPT, &request)
            };
            taken(&reply).expect("an accept without a mistake")
        };
        let mut all = vec![];
        let units = runs as usize + 1;
        for left in (1..=units).rev().step_by(512) {
            let (ranges, more) = call(NONE);
            assert_eq!((ranges.len(), more), (left.min(512), left > 512));
            all.extend(ranges);
            let borrowed = settled_long(&world).map_or(0, |report| report.borrowed);
            assert_eq!(borrowed, 0, "nothing is mapped before DONE");
        }
        assert_eq!(call(NONE), (vec![], false), "no unit is left to choose for");
        assert_eq!(call(DONE), (vec![], false));
        let expected = (0..runs).map(|index| run(index).1).chain([1]);
        assert!(all.iter().map(|range| range.size / 4096).eq(expected), "units in their order");
        // What A writes to a run, B reads at the address it was told.
        for (mark, index) in
            (7..).zip([0, 1, 511, 512, 1023, 1024, 1298]).filter(|(_, run)| *run < runs)
        {
            world.cpu(A).write(Ipa(run(index).0), mark).unwrap();
            let there = Ipa(all[index as usize].ipa);
            assert_eq!(world.cpu(B).read(there), Ok(mark), "unit {index}");
        }
        assert_eq!(settled_long(&world).map(|is| is.borrowed), before.map(|was| was.shared));
        b.release(handle, 0).unwrap();
        assert_eq!(settled_long(&world), before);
        world.caller(A).reclaim(handle, 0).unwrap();
        world.check();
    }
}

#[test]
fn done_without_an_address_for_every_unit_is_refused_and_keeps_what_was_there() {
    let world = world();
    let units = few(600, 515);
    let handle = long_share(&world, units - 1);
    let before = settled_long(&world);
    let b = world.caller(B);
    assert_eq!(choose(&b, handle, DONE), Err(6), "one call chooses for 512");
    assert_eq!(settled_long(&world), before, "G4");
    assert_eq!(choose(&b, handle, NONE).unwrap().0.len(), 512);
    let halfway = settled_long(&world);
    assert_eq!(name(&b, handle, DONE, &[(WINDOW, 1)]), 6, "more than one is left");
    assert_eq!(settled_long(&world), halfway, "G4");
    let (rest, incomplete) = choose(&b, handle, DONE).unwrap();
    assert_eq!((rest.len() as u64, incomplete), (units - 512, false));
    assert_eq!(settled_long(&world).map(|is| is.borrowed), before.map(|was| was.shared));
}

/// A share of runs of 1, 2, 1 and 3 pages.
fn four_runs(world: &World) -> u32 {
    let runs = [1, 2, 1, 3].map(|pages| (RAM.0 + pages * 0x1_0000, pages));
    let runs = [runs[0], runs[1], (RAM.0 + 0x8_0000, 1), runs[3]];
    world.caller(A).offer(Transfer::Share, &[(3, 6), (4, 6)], &runs).unwrap()
}

const PLACES: [(u64, u64); 4] =
    [(WINDOW, 1), (WINDOW + 0x1_0000, 2), (WINDOW + 0x2_0000, 1), (WINDOW + 0x3_0000, 3)];

#[test]
fn addresses_may_be_named_bit_by_bit_and_mixed_with_chosen_ones() {
    let world = world();
    let handle = four_runs(&world);
    let b = world.caller(B);
    assert_eq!(name(&b, handle, NONE, &PLACES[..1]), 0);
    assert_eq!(name(&b, handle, NONE, &PLACES[1..3]), 0);
    assert_eq!(world.check().borrowed, 0);
    assert_eq!(world.caller(A).reclaim(handle, 0), Err(0xb), "B counts as a holder already");
    assert_eq!(name(&b, handle, NONE, &[PLACES[3], PLACES[3]]), 6, "one unit is left");
    assert_eq!(name(&b, handle, NONE, &[(WINDOW + 0x3_0000, 2)]), 6, "it has three pages");
    assert_eq!(name(&b, handle, NONE, &[(WINDOW + 0xf000, 3)]), 2, "where the second unit is");
    let (chosen, incomplete) = choose(&b, handle, DONE).unwrap();
    assert_eq!((chosen.len(), incomplete), (1, false));
    for (at, pages) in PLACES[..3].iter().copied().chain([(chosen[0].ipa, 3)]) {
        let last = Ipa(at + (pages - 1) * 4096);
        assert!(world.manager.allows(B, last, Access::Write).is_some(), "{at:#x}");
    }
    assert_eq!(name(&b, handle, DONE, &PLACES[..1]), 3, "it is mapped");
    world.check();
}

#[test]
fn what_only_has_addresses_can_be_released() {
    let world = world();
    let handle = four_runs(&world);
    let before = settled(&world);
    let b = world.caller(B);
    for (flags, ranges) in [(NONE, &PLACES[..3]), (CONTIGUOUS, &[(WINDOW, 7)])] {
        assert_eq!(name(&b, handle, flags, ranges), 0);
        b.release(handle, 0).unwrap();
        assert_eq!(settled(&world), before);
        assert_eq!(b.release(handle, 0), Err(0xc));
        // The addresses are free again, and the VM may start over.
        assert_eq!(name(&b, handle, DONE, &PLACES), 0);
        b.release(handle, 0).unwrap();
    }
    world.caller(A).reclaim(handle, 0).unwrap();
}

#[test]
fn contiguous_and_piecewise_accepts_do_not_mix_in_either_order() {
    let world = world();
    let handle = four_runs(&world);
    let b = world.caller(B);
    let both = DONE | CONTIGUOUS;
    assert_eq!(name(&b, handle, NONE, &PLACES[..1]), 0);
    assert_eq!(name(&b, handle, both, &[(WINDOW + 0x10_0000, 7)]), 6);
    assert_eq!(choose(&b, handle, both), Err(6));
    b.release(handle, 0).unwrap();

    assert_eq!(name(&b, handle, CONTIGUOUS, &[(WINDOW, 7)]), 0);
    let before = settled(&world);
    assert_eq!(name(&b, handle, DONE, &PLACES), 6);
    assert_eq!(choose(&b, handle, DONE), Err(6));
    assert_eq!(name(&b, handle, both, &[(WINDOW + 0x10_0000, 7)]), 6, "no unit is left");
    assert_eq!(settled(&world), before, "G4");
    assert_eq!(choose(&b, handle, both), Ok((vec![], false)));
    assert!(world.manager.allows(B, Ipa(WINDOW + 6 * 4096), Access::Write).is_some());
    world.check();
}

#[test]
fn a_whole_parcel_is_one_unit_to_a_contiguous_accept() {
    let world = world();
    let handle = long_share(&world, few(1299, 99));
    let b = world.caller(B);
    let pages = world.check().shared;
    assert_eq!(name(&b, handle, DONE | CONTIGUOUS, &[(WINDOW, pages - 1)]), 6);
    let (ranges, incomplete) = choose(&b, handle, DONE | CONTIGUOUS).unwrap();
    assert_eq!((ranges.len(), ranges[0].size, incomplete), (1, pages * 4096, false));
    assert_eq!(world.check().borrowed, pages);
}

#[test]
fn a_donation_can_be_accepted_in_several_calls() {
    let world = world();
    let total = world.check();
    let runs = [(RAM.0, 1), (RAM.0 + 0x2000, 2), (RAM.0 + 0x8000, 1)];
    let handle = world.caller(A).offer(Transfer::Donate, &[(4, 7)], &runs).unwrap();
    let b = world.caller(B);
    let call = |flags, ranges: &[(u64, u64)]| {
        b.words(message::MEM_ACCEPT, &accept(handle, Transfer::Donate, flags, ranges)).0
    };
    assert_eq!(call(NONE, &PLACES[..2]), 0);
    assert_eq!(world.check().lent, 4);
    assert_eq!(call(DONE, &PLACES[2..3]), 0);
    assert_eq!(call(DONE, &[]), 7, "the handle is dead");
    let after = world.check();
    assert_eq!((after.owned, after.lent, after.parcels), (total.owned, 0, 0));
    assert!(world.manager.allows(B, Ipa(PLACES[1].0 + 4096), Access::Execute).is_some());
}

#[test]
fn ranges_that_the_caller_has_no_room_for_are_not_taken() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let runs: Vec<_> = (0..3).map(run).collect();
    let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &runs).unwrap();
    let payload = accept(handle, Transfer::Share, DONE, &[]);
    let bytes = [&Header::request(message::MEM_ACCEPT, 1).encode()[..], &payload].concat();
    let before = settled(&world);
    let ask = |capacity| {
        b.put_request(&bytes);
        b.direct(bytes.len() as u64, capacity, 0)
    };
    // A head of 16 bytes, and as much for each of the three.
    for capacity in [12, 16, 48, 63] {
        assert_eq!(ask(capacity), Turn::Error(2, 0), "{capacity} bytes");
        assert_eq!(settled(&world), before, "G4: {capacity} bytes");
    }
    let Turn::Reply(reply) = ask(64) else { panic!("there is room") };
    assert_eq!(taken(&reply).unwrap().0.len(), 3);
    // Who names its addresses needs no room for them.
    b.release(handle, 0).unwrap();
    let places: Vec<_> = (0..3).map(|n| (WINDOW + n * 0x4000, run(n).1)).collect();
    assert_eq!(name(&b, handle, DONE, &places), 0);
    settled(&world);
}

#[test]
fn where_there_is_no_room_at_all_nothing_is_taken() {
    for step in some([1, STEP], 3) {
        // One page at the end of the address space.
        let small = VmConfig { accept_from: Ipa((1 << 36) - 0x1000), ..vm(4) };
        let world = World::new(&[vm(3), small]);
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        let two = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[run(1)]).unwrap();
        let one = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[run(2), run(4)]).unwrap();
        let before = settled(&world);
        for flags in [DONE, DONE | CONTIGUOUS] {
            for handle in [two, one] {
                assert_eq!(choose(&b, handle, flags), Err(2));
                assert_eq!(b.last_refusal().rule, Rule::NoRange as u16);
                assert_eq!(settled(&world), before, "G4");
            }
        }
        let page = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[run(6)]).unwrap();
        let (ranges, _) = choose(&b, page, DONE).unwrap();
        assert_eq!(ranges, [SglEntry { ipa: (1 << 36) - 0x1000, size: 0x1000 }]);
        settled(&world);
    }
}

#[test]
fn an_accept_without_a_frame_for_its_reply_changes_nothing() {
    let quotas = Quotas { frames: 10, frames_reserved: 10, ..vm(4).quotas };
    let vms = [vm(3), VmConfig { quotas, ..vm(4) }];
    let world = World::without_memory(&vms, Features::default());
    world.manager.give(A, RAM, World::pa_of(A), RAM_PAGES).unwrap();
    // Pages everywhere, whose tables leave B fewer frames than the reply of many ranges takes.
    let mut at = RAM;
    while world.manager.give(B, at, Pa(World::pa_of(B).0 + at.0), 1).is_ok() {
        at = Ipa(at.0 + (1 << 30));
    }
    let (a, b) = (world.caller(A), world.caller(B));
    let runs: Vec<_> = (0..few(500, 260)).map(|n| (RAM.0 + n * 0x2000, 1)).collect();
    let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &runs).unwrap();
    let before = settled_long(&world);
    assert_eq!(choose(&b, handle, DONE), Err(1));
    assert_eq!(b.last_refusal().rule, Rule::NoFrame as u16);
    assert_eq!(settled_long(&world), before, "G4: not even its charge");
    assert_eq!(a.reclaim(handle, 0), Ok(0), "it has never held it");
    // Through the queue too.
    let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &runs).unwrap();
    let before = settled_long(&world);
    let request = accept(handle, Transfer::Share, DONE, &[]);
    assert_eq!(taken(&b.queue_call(message::MEM_ACCEPT, &request)), Err(1));
    assert_eq!(settled_long(&world), before);
    assert_eq!(a.reclaim(handle, 0), Ok(0));
}

#[test]
fn a_donation_in_many_pieces_ends_the_same_in_steps_of_any_size() {
    // More places than fit one frame, so that giving them back takes many units of work.
    let runs: Vec<_> = (0..512).map(|n| (RAM.0 + n * 0x2000, 1)).collect();
    let mut wanted = None;
    for step in some([1, 3, STEP], 3) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        let handle = a.offer(Transfer::Donate, &[(4, 7)], &runs).unwrap();
        let places: Vec<_> = (0..512).map(|n| (WINDOW + n * 0x3000, 1)).collect();
        b.accept(handle, Transfer::Donate, &places).unwrap();
        assert_eq!(b.release(handle, 0), Err(7), "there is no parcel any more");
        let counts = settled(&world);
        assert_eq!(*wanted.get_or_insert(counts), counts, "steps of {step}");
        assert_eq!((counts.parcels, counts.owned), (0, 2 * RAM_PAGES));
        assert!(world.cpu(B).write(Ipa(WINDOW + 511 * 0x3000), 1).is_ok());
        assert!(world.cpu(A).write(Ipa(runs[511].0), 1).is_err());
    }
}
