//! VMS, MAP, COUNTERS, LEAF: who may look, what it sees, and that looking changes nothing.

use rm::address::{Ipa, Pa, VmIndex};
use rm::audit::AuditReport;
use rm::config::{Roles, VmConfig, VmName};
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, Turn, World, accept, by_handle, offer, vm};
use rm::operation::STEP;
use rm::stage2::Access;
use rm_abi::extension::{
    COUNTERS, Count, Counter, CountersRequest, LEAF, LeafInfo, LeafRequest, MAP, MapEntry,
    MapRequest, PageState, Policy, Rule, TRIM, TrimFlags, TrimRequest, VMS, VmEntry, VmRoles,
    VmsRequest,
};
use rm_abi::{
    AcceptFlags, AppendFlags, Attribute, Bytes, CreateFlags, EncodeError, Handle, Rights, Transfer,
    Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const D: VmIndex = VmIndex(3);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const DENIED: u32 = 3;

/// VMs 3, 4 and 5, and 6, which may look at all of them.
fn world() -> World {
    let looks = VmConfig { roles: Roles::INSPECT, name: VmName::new("eye"), ..vm(6) };
    let trusted = VmConfig { roles: Roles::TRUSTED_DMA, ..vm(4) };
    World::new(&[vm(3), trusted, vm(5), looks])
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).unwrap();
    payload.truncate(length);
    payload
}

/// Error word, or data, of a call.
fn ask(guest: &Guest<'_>, message: u32, payload: &[u8]) -> Result<Vec<u8>, u32> {
    let reply = guest.call(message, payload);
    match reply[..].u32_at(0) {
        0 => Ok(reply[4..].to_vec()),
        error => Err(error),
    }
}

fn vms(guest: &Guest<'_>, most: u16) -> Result<Vec<VmEntry>, u32> {
    let (mut cursor, mut all) = (0, vec![]);
    loop {
        let data = ask(guest, VMS, &encoded(|into| VmsRequest { cursor, most }.encode(into)))?;
        let count = usize::from(data[..].u16_at(4));
        assert!(count <= most.into() && data.len() == VmEntry::HEAD + count * VmEntry::SIZE);
        let at = |n| VmEntry::HEAD + n * VmEntry::SIZE;
        all.extend((0..count).map(|n| VmEntry::decode(&data[..], at(n)).unwrap()));
        cursor = data[..].u32_at(0);
        if cursor == 0 {
            return Ok(all);
        }
    }
}

/// All parts of a map, `most` runs at a time.
fn parts(guest: &Guest<'_>, vmid: u16, parcel: u32, most: u16) -> Result<Vec<MapEntry>, u32> {
    let (mut cursor, mut all) = (0, vec![]);
    loop {
        let request = MapRequest { vmid: Vmid(vmid), most, parcel: Handle(parcel), cursor };
        let data = ask(guest, MAP, &encoded(|into| request.encode(into)))?;
        let count = usize::from(data[..].u16_at(8));
        assert!(count <= most.into() && data.len() == MapEntry::HEAD + count * MapEntry::SIZE);
        let at = |n| MapEntry::HEAD + n * MapEntry::SIZE;
        all.extend((0..count).map(|n| MapEntry::decode(&data[..], at(n)).unwrap()));
        cursor = data[..].u64_at(0);
        if cursor == 0 {
            return Ok(all);
        }
        assert_eq!(count, usize::from(most), "only the last part is not full");
    }
}

fn map(guest: &Guest<'_>, vmid: u16) -> Vec<MapEntry> {
    parts(guest, vmid, 0, 200).unwrap()
}

fn counters(guest: &Guest<'_>, vmid: u16) -> Result<Vec<Count>, u32> {
    let request = CountersRequest { vmid: Vmid(vmid) };
    let data = ask(guest, COUNTERS, &encoded(|into| request.encode(into)))?;
    let count = data[..].u32_at(0) as usize;
    assert_eq!(data.len(), Count::HEAD + count * Count::SIZE);
    Ok((0..count)
        .map(|n| Count::decode(&data[..], Count::HEAD + n * Count::SIZE).unwrap())
        .collect())
}

fn value(counts: &[Count], counter: Counter) -> u64 {
    counts.iter().find(|count| count.counter == counter as u16).unwrap().value
}

fn leaf(guest: &Guest<'_>, vmid: u16, ipa: u64) -> Result<LeafInfo, u32> {
    let request = LeafRequest { vmid: Vmid(vmid), ipa };
    ask(guest, LEAF, &encoded(|into| request.encode(into)))
        .map(|data| LeafInfo::decode(&data[..]).unwrap())
}

/// A shares two pages, uncached, with B and lends three in two runs to B and C, of whom B has both.
fn busy(world: &World) -> (u32, u32) {
    let (a, b) = (world.caller(A), world.caller(B));
    let attributes = [(Attribute::Uncached as u16, 3), (Attribute::Uncached as u16, 4)];
    let shared = offer(CreateFlags::empty(), &[(3, 6), (4, 4)], &[(PAGE, 2)], &attributes);
    let (error, shared) = a.words(message::MEM_SHARE, &shared);
    assert_eq!(error, 0);
    let runs = [(PAGE + 0x8000, 1), (PAGE + 0x2000, 2)];
    let lent = a.offer(Transfer::Lend, &[(4, 6), (5, 4)], &runs).unwrap();
    b.accept_contiguous(lent, Transfer::Lend, (WINDOW + 0x10_0000, 3)).unwrap();
    b.accept_contiguous(shared, Transfer::Share, (WINDOW, 2)).unwrap();
    (shared, lent)
}

#[test]
fn looking_at_others_takes_the_role() {
    let world = world();
    let (shared, _) = busy(&world);
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    assert_eq!(vms(&b, 9), Err(DENIED));
    assert_eq!(b.last_refusal().rule, Rule::Role as u16);
    for about in [0, 3, 4, 99] {
        assert_eq!(parts(&b, about, 0, 9), Err(DENIED), "even about itself");
        assert_eq!(leaf(&b, about, RAM.0), Err(DENIED));
    }
    // An owner has INFO and HOLDERS; addresses in the machine are nobody's business.
    assert_eq!(parts(&a, 0, shared, 9), Err(DENIED));
    assert_eq!(counters(&b, 3), Err(DENIED));
    assert_eq!(counters(&b, 99), Err(DENIED), "nor whether there is such a VM");
    assert!(counters(&b, 0).is_ok() && counters(&b, 4).is_ok());
    assert_eq!((parts(&d, 99, 0, 9), leaf(&d, 99, 0)), (Err(0xd), Err(0xd)));
    assert_eq!(counters(&d, 99), Err(0xd));
    // The role makes every VM an acquaintance, and no VM of what is none.
    let state = |vmid: u32| d.words(message::VM_GET_STATE, &vmid.to_le_bytes());
    assert_eq!((state(3), state(5), state(99).0), ((0, 3), (0, 3), 2));
    assert_eq!(parts(&d, 3, 0x7777, 9), Err(7));
    assert_eq!(parts(&d, 4, shared, 9), Err(DENIED), "it is another VM's");
}

#[test]
fn all_vms_are_listed_once_whatever_the_parts() {
    let world = world();
    world.end(C);
    let d = world.caller(D);
    for most in [1, 3, 4, 500] {
        let listed = vms(&d, most).unwrap();
        let vmids: Vec<_> = listed.iter().map(|entry| entry.vmid.0).collect();
        assert_eq!(vmids, [3, 4, 5, 6], "{most} at a time");
        assert_eq!((listed[3].name(), listed[3].roles), (&b"eye"[..], VmRoles::INSPECT));
        assert_eq!((listed[0].name(), listed[0].roles), (&b""[..], VmRoles::empty()));
        assert_eq!(listed[1].roles, VmRoles::TRUSTED_DMA);
        assert_eq!(listed[0].state, rm::life::VmState::Running);
        assert_eq!(listed[2].state, rm::life::VmState::Resetting);
        assert_eq!(listed[1].frames, world.manager.frames_used(B));
    }
    let behind = encoded(|into| VmsRequest { cursor: u32::MAX, most: 1 }.encode(into));
    assert_eq!(ask(&d, VMS, &behind), Ok(vec![0; 8]));
    let queued = d.queue_call(VMS, &encoded(|into| VmsRequest { cursor: 0, most: 9 }.encode(into)));
    assert_eq!(queued[4..].u16_at(4), 4);
}

#[test]
fn a_map_says_what_every_page_is() {
    let world = world();
    let (_, lent) = busy(&world);
    let run = |ipa: u64, pages, state, rights| MapEntry {
        ipa,
        pages,
        pa: World::pa_of(A).0 + (ipa - RAM.0),
        state,
        rights,
        policy: Policy::Cached,
        parcel: Handle(0),
    };
    let (all, none) = (Rights::RWX, Rights::empty());
    let expected = [
        run(RAM.0, 0x100, PageState::Owned, all),
        MapEntry { policy: Policy::Uncached, ..run(PAGE, 2, PageState::Shared, Rights::RW) },
        MapEntry { parcel: Handle(lent), ..run(PAGE + 0x2000, 2, PageState::Lent, none) },
        run(PAGE + 0x4000, 4, PageState::Owned, all),
        MapEntry { parcel: Handle(lent), ..run(PAGE + 0x8000, 1, PageState::Lent, none) },
        run(PAGE + 0x9000, RAM_PAGES - 0x109, PageState::Owned, all),
    ];
    let d = world.caller(D);
    // Neither how many runs a reply has nor how much a step may do changes what is told.
    for step in some([1, 7, STEP], 3) {
        d.step.set(step);
        for most in some([1, 2, 5, 6, 7, 200], 2) {
            assert_eq!(parts(&d, 3, 0, most).as_deref(), Ok(&expected[..]), "{most} by {step}");
        }
    }
    let borrowed: Vec<_> =
        map(&d, 4).into_iter().filter(|run| run.state == PageState::Borrowed).collect();
    let of_a = |ipa: u64, pages, at: u64, rights| MapEntry {
        ipa,
        ..run(at, pages, PageState::Borrowed, rights)
    };
    let expected = [
        MapEntry { policy: Policy::Uncached, ..of_a(WINDOW, 2, PAGE, Rights::R) },
        of_a(WINDOW + 0x10_0000, 1, PAGE + 0x8000, Rights::RW),
        of_a(WINDOW + 0x10_1000, 2, PAGE + 0x2000, Rights::RW),
    ];
    assert_eq!(borrowed, expected);
    world.check();
}

#[test]
fn a_map_may_begin_anywhere() {
    let world = world();
    let d = world.caller(D);
    let from = |cursor| {
        let request = MapRequest { vmid: Vmid(3), most: 9, parcel: Handle(0), cursor };
        ask(&d, MAP, &encoded(|into| request.encode(into))).unwrap()
    };
    let inside = from(RAM.0 + 0x5123);
    let run = MapEntry::decode(&inside[..], MapEntry::HEAD).unwrap();
    assert_eq!((run.ipa, run.pages), (RAM.0 + 0x5000, RAM_PAGES - 5));
    assert_eq!(run.pa, World::pa_of(A).0 + 0x5000);
    for behind in [WINDOW, 1 << 36, 1 << 39, u64::MAX] {
        assert_eq!(from(behind), [0; MapEntry::HEAD], "{behind:#x}");
    }
}

#[test]
fn a_parcel_is_mapped_in_the_order_of_its_list() {
    let world = world();
    let (shared, lent) = busy(&world);
    let d = world.caller(D);
    let ipas = |handle, most| -> Vec<_> {
        let runs = parts(&d, 3, handle, most).unwrap();
        assert!(runs.iter().all(|run| run.parcel == Handle(handle)));
        assert!(runs.iter().all(|run| run.pa == World::pa_of(A).0 + (run.ipa - RAM.0)));
        runs.iter().map(|run| (run.ipa, run.pages, run.state)).collect()
    };
    for (step, most) in [(1, 1), (1, 9), (STEP, 1), (STEP, 9)] {
        d.step.set(step);
        let runs = [(PAGE + 0x8000, 1, PageState::Lent), (PAGE + 0x2000, 2, PageState::Lent)];
        assert_eq!(ipas(lent, most), runs);
        assert_eq!(ipas(shared, most), [(PAGE, 2, PageState::Shared)]);
    }
}

#[test]
fn what_has_left_a_parcel_is_not_in_its_map() {
    let world = world();
    let (a, d) = (world.caller(A), world.caller(D));
    let runs = [(PAGE, 10), (PAGE + 0x2_0000, 3)];
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &runs).unwrap();
    let trim = |offset, pages: u64| {
        let (flags, size) = (TrimFlags::empty(), pages * 0x1000);
        let request = TrimRequest { handle: Handle(handle), flags, offset, size };
        assert_eq!(a.words(TRIM, &encoded(|into| request.encode(into))).0, 0);
    };
    trim(0x4000, 2);
    trim(0x9000, 2);
    for (step, most) in [(1, 1), (STEP, 1), (STEP, 9)] {
        d.step.set(step);
        let told = parts(&d, 3, handle, most).unwrap();
        let told: Vec<_> = told.iter().map(|run| (run.ipa, run.pages, run.state)).collect();
        let lent = |ipa, pages| (ipa, pages, PageState::Lent);
        let left = [lent(PAGE, 4), lent(PAGE + 0x6000, 3), lent(PAGE + 0x2_1000, 2)];
        assert_eq!(told, left, "{most} by {step}");
    }
    world.check();
}

#[test]
fn any_part_of_a_long_parcel_is_found_in_short_steps() {
    let world = world();
    let (a, d) = (world.caller(A), world.caller(D));
    let runs: Vec<_> = (0..1500).map(|run| (RAM.0 + run * 0x2000, 1)).collect();
    let first = offer(CreateFlags::APPEND, &[(4, 6)], &runs[..500], &[]);
    let (_, handle) = a.words(message::MEM_LEND, &first);
    a.append(handle, false, &runs[500..1000]).unwrap();
    let before: Vec<_> = parts(&d, 3, handle, 200).unwrap().iter().map(|run| run.ipa).collect();
    assert_eq!(before.len(), 1000, "an unfinished parcel is as long as it is");
    let last = rm::machine::fake::world::append(handle, AppendFlags::END, &runs[1000..]);
    assert_eq!(a.words(message::MEM_APPEND, &last).0, 0);
    d.step.set(1);
    for from in some([0_u64, 3, 4, 5, 258, 259, 260, 514, 1499, 1500, u64::MAX], 3) {
        let request = MapRequest { vmid: Vmid(3), most: 2, parcel: Handle(handle), cursor: from };
        let data = ask(&d, MAP, &encoded(|into| request.encode(into))).unwrap();
        let count = 1500_u64.saturating_sub(from).min(2);
        assert_eq!(u64::from(data[..].u16_at(8)), count);
        let is_last = from >= 1498;
        assert_eq!(data[..].u64_at(0), if is_last { 0 } else { from + 2 }, "from {from}");
        for n in 0..count as usize {
            let run = MapEntry::decode(&data[..], MapEntry::HEAD + n * MapEntry::SIZE).unwrap();
            assert_eq!(run.ipa, runs[from as usize + n].0, "from {from}");
        }
    }
}

#[test]
fn a_parcel_that_goes_while_it_is_looked_at_ends_the_look() {
    let world = world();
    let (a, d) = (world.caller(A), world.caller(D));
    let runs: Vec<_> = (0..400).map(|run| (RAM.0 + run * 0x2000, 1)).collect();
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &runs).unwrap();
    d.step.set(1);
    let request = MapRequest { vmid: Vmid(3), most: 200, parcel: Handle(handle), cursor: 350 };
    let turn = d.send(MAP, &encoded(|into| request.encode(into)));
    let Turn::More(token) = turn else { panic!("{turn:?}") };
    a.reclaim(handle, 0).unwrap();
    let again = a.offer(Transfer::Lend, &[(5, 6)], &runs).unwrap();
    assert_ne!(handle, again);
    let mut turn = d.resume(token);
    while turn == Turn::More(token) {
        turn = d.resume(token);
    }
    assert_eq!(turn, Turn::Reply(7_u32.to_le_bytes().to_vec()));
    world.check();
}

#[test]
fn the_maps_of_all_vms_add_up_to_what_the_audit_counts() {
    let world = world();
    busy(&world);
    let d = world.caller(D);
    let donated = world.caller(C).offer(Transfer::Donate, &[(4, 7)], &[(PAGE, 1)]).unwrap();
    world.caller(B).accept_contiguous(donated, Transfer::Donate, (WINDOW + 0x20_0000, 1)).unwrap();
    let mut seen = AuditReport::default();
    for entry in vms(&d, 9).unwrap() {
        for run in map(&d, entry.vmid.0) {
            *match run.state {
                PageState::Owned => &mut seen.owned,
                PageState::Shared => &mut seen.shared,
                PageState::Lent => &mut seen.lent,
                PageState::Borrowed => &mut seen.borrowed,
                other => panic!("nobody has {other:?}"),
            } += run.pages;
            let at = world.vms().find(|&vm| world.manager.vmid(vm) == entry.vmid).unwrap();
            let reached = world.manager.allows(at, Ipa(run.ipa), Access::Read).map(|pa| pa.0);
            assert_eq!(reached, run.rights.contains(Rights::R).then_some(run.pa), "{run:x?}");
        }
        let counts = counters(&d, entry.vmid.0).unwrap();
        seen.tables += value(&counts, Counter::Tables);
        seen.mergeable += value(&counts, Counter::Mergeable);
        seen.parcels += value(&counts, Counter::Parcels);
        seen.frames += value(&counts, Counter::Frames);
    }
    assert_eq!(seen, world.check());
}

#[test]
fn counters_count_what_happens() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let of = |vmid, counter| value(&counters(&d, vmid).unwrap(), counter);
    let before = [Counter::Calls, Counter::Refusals, Counter::Invalidations, Counter::PagesZeroed]
        .map(|counter| of(3, counter));
    let sanitized = offer(CreateFlags::SANITIZE, &[(4, 6)], &[(PAGE, 3)], &[]);
    let (_, handle) = a.words(message::MEM_LEND, &sanitized);
    assert_eq!(a.reclaim(handle + 1, 0), Err(7));
    let after = [Counter::Calls, Counter::Refusals, Counter::Invalidations, Counter::PagesZeroed]
        .map(|counter| of(3, counter));
    assert_eq!((after[0] - before[0], after[1] - before[1]), (2, 1));
    assert!(after[2] > before[2], "a lend takes translations away");
    assert_eq!(after[3] - before[3], 3);
    assert_eq!((of(3, Counter::Parcels), of(4, Counter::Parcels)), (1, 0));
    // By the queues, too; and B's own view is the inspector's.
    let calls = of(4, Counter::Calls);
    b.queue_call(message::VM_GET_VMID, &[]);
    assert_eq!(of(4, Counter::Calls), calls + 1);
    let own = counters(&b, 0).unwrap();
    assert_eq!(value(&own, Counter::Calls), calls + 2, "asking is a call");
    assert_eq!(counters(&d, 4).unwrap()[1..], own[1..]);
}

#[test]
fn notices_that_nobody_reads_are_counted() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    assert_eq!(a.words(rm_abi::extension::SUBSCRIBE, &3_u32.to_le_bytes()).0, 0);
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    for _ in 0..6 {
        b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 1)).unwrap();
        b.release(handle, 0).unwrap();
    }
    // Eight of twelve are in the queue, one waits, three made way for it.
    let counts = counters(&d, 3).unwrap();
    assert_eq!(value(&counts, Counter::NoticesReplaced), 3);
    assert_eq!(value(&counts, Counter::NoticesDropped), 0);
}

#[test]
fn a_leaf_is_what_the_hardware_reads() {
    let world = world();
    let d = world.caller(D);
    let block = leaf(&d, 3, RAM.0 + 0x12_3456).unwrap();
    assert_eq!((block.level, block.ipa, block.pages), (2, RAM.0, 512));
    assert_eq!(block.descriptor & 0xffff_ffe0_0000, World::pa_of(A).0);
    assert_eq!(block.descriptor & 3, 1, "a valid block");
    busy(&world);
    let page = leaf(&d, 3, PAGE).unwrap();
    assert_eq!((page.level, page.ipa, page.pages), (3, PAGE, 1));
    assert_eq!(page.descriptor & 3, 3, "a valid page");
    let lent = leaf(&d, 3, PAGE + 0x2fff).unwrap();
    assert_eq!((lent.level, lent.ipa, lent.descriptor & 1), (3, PAGE + 0x2000, 0));
    let nothing = leaf(&d, 3, 1 << 35).unwrap();
    assert_eq!((nothing.level, nothing.descriptor, nothing.pages), (1, 0, 1 << 18));
    for outside in [1 << 36, 1 << 39, u64::MAX] {
        assert_eq!(leaf(&d, 3, outside), Err(6), "{outside:#x}");
        assert_eq!(d.last_refusal().rule, Rule::Address as u16);
    }
}

#[test]
fn a_caller_without_room_for_one_run_is_told_so() {
    let world = world();
    let d = world.caller(D);
    let request = MapRequest { vmid: Vmid(3), most: 9, parcel: Handle(0), cursor: 0 };
    let mut bytes = rm_abi::Header::request(MAP, 1).encode().to_vec();
    bytes.extend(encoded(|into| request.encode(into)));
    d.put_request(&bytes);
    assert_eq!(d.direct(bytes.len() as u64, 59, 0), Turn::Error(2, 0));
    let reply = d.direct(bytes.len() as u64, 60, 0);
    assert!(matches!(reply, Turn::Reply(data) if data.len() == 4 + 16 + 32));
}

#[test]
fn looking_changes_nothing() {
    let world = world();
    let (shared, lent) = busy(&world);
    let before = world.check();
    let d = world.caller(D);
    d.step.set(1);
    for vmid in [0, 3, 4, 5, 6] {
        map(&d, vmid);
        counters(&d, vmid).unwrap();
        leaf(&d, vmid, PAGE).unwrap();
    }
    parts(&d, 3, shared, 1).unwrap();
    parts(&d, 3, lent, 1).unwrap();
    vms(&d, 1).unwrap();
    while world.manager.idle(D) {}
    assert_eq!(world.check(), before);
}

#[test]
fn a_parcel_that_is_being_taken_back_has_no_map() {
    let world = world();
    let (a, d) = (world.caller(A), world.caller(D));
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 3), (PAGE + 0x8000, 1)]).unwrap();
    assert_eq!(parts(&d, 3, handle, 9).unwrap().len(), 2);
    a.step.set(1);
    let mut turn = a.send(message::MEM_RECLAIM, &by_handle(handle, 0));
    while let Turn::More(token) = turn {
        assert_eq!(parts(&d, 3, handle, 9), Err(7));
        turn = a.resume(token);
    }
    assert_eq!(turn, Turn::Reply(vec![0; 4]));
    assert_eq!(parts(&d, 3, handle, 9), Err(7));
    world.check();
}

#[test]
fn a_map_says_what_is_registers_and_what_a_call_at_work_has_taken() {
    const PAGES: u64 = few(40, 5);
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let (registers, pa) = (0x900_0000, Pa(0xa_0000_0000));
    world.manager.give_device(A, Ipa(registers), pa, 2).unwrap();
    world.manager.give_emulated(A, Ipa(registers + 0x2000), 3).unwrap();
    let told = map(&d, 3);
    let parcel = Handle(0);
    let (state, policy, rights) = (PageState::Device, Policy::Device, Rights::RW);
    let driven = MapEntry { ipa: registers, pages: 2, pa: pa.0, state, rights, policy, parcel };
    assert_eq!(told[0], driven);
    let emulated = (told[1].ipa, told[1].pages, told[1].pa, told[1].state, told[1].rights);
    assert_eq!(emulated, (registers + 0x2000, 3, 0, state, Rights::empty()));

    let lent = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE + 0x10_0000, PAGES)]).unwrap();
    let share = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE, PAGES)], &[]);
    let flags = AcceptFlags::DONE;
    let accept = accept(lent, Transfer::Lend, flags, &[(WINDOW, PAGES)]);
    for (guest, message, payload, at, wanted, then) in [
        (&a, message::MEM_SHARE, share, PAGE, PageState::Claimed, PageState::Shared),
        (&b, message::MEM_ACCEPT, accept, WINDOW, PageState::Held, PageState::Borrowed),
    ] {
        guest.step.set(1);
        let vmid = world.manager.vmid(guest.vm).0;
        let run = || {
            let run = map(&d, vmid).into_iter().find(|run| run.ipa == at);
            run.map(|run| (run.state, run.pages))
        };
        let mut turn = guest.send(message, &payload);
        let mut most = 0;
        while let Turn::More(token) = turn {
            if let Some((state, pages)) = run().filter(|(state, _)| *state == wanted) {
                assert!(state == wanted && pages <= PAGES);
                most = most.max(pages);
            }
            turn = guest.resume(token);
        }
        assert_eq!(most, PAGES, "all of it is taken before any of it changes");
        assert_eq!(run(), Some((then, PAGES)));
    }
    world.check();
}
