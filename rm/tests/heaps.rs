//! Named heaps: who may take what, and that it comes and goes as zeros.

use rm::address::{Ipa, VmIndex};
use rm::config::{BootError, Roles, VmConfig, VmName};
use rm::heap::HeapConfig;
use rm::machine::fake::effort::{effort, few, some};
use rm::machine::fake::world::{Guest, HEAPS, RAM, Turn, World, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm_abi::extension::{
    HEAP, HEAP_ALLOC, HEAP_FREE, HeapAllocRequest, HeapFeatures, HeapFreeRequest, HeapInfo,
    HeapRequest, LEAF, LIMITS, LeafInfo, LeafRequest, Limit, LimitsRequest, MAP, MapEntry,
    MapRequest, Resource, Rule,
};
use rm_abi::{Bytes, Handle, Transfer, Vmid};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const AT: u64 = 0x9000_0000;
const WINDOW: u64 = 0xa000_0000;
const ANYWHERE: u64 = HeapAllocRequest::ANYWHERE;
const BLOCK: u64 = 2 << 20;
const STEPS: &[u32] = few(&[1, 200, STEP], &[300]);

/// "all" has four blocks for A and B, "b only" one for B.
fn world() -> World {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    world.add_heap("all", 0b11, 4);
    world.add_heap("b only", 0b10, 1);
    world
}

fn alloc(guest: &Guest<'_>, heap: u32, size: u64, address: u64) -> Result<(u64, u64), u32> {
    said(&guest.call(HEAP_ALLOC, &alloc_request(heap, size, address)))
}

/// Address and size that a reply says, or its error.
fn said(reply: &[u8]) -> Result<(u64, u64), u32> {
    match reply.u32_at(0) {
        0 => Ok((reply[4..].u64_at(0), reply[4..].u64_at(8))),
        error => Err(error),
    }
}

fn free(guest: &Guest<'_>, address: u64, size: u64) -> u32 {
    guest.words(HEAP_FREE, &free_request(address, size)).0
}

/// The bytes of a request.
fn encoded<const N: usize, E: std::fmt::Debug>(
    encode: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> [u8; N] {
    let mut payload = [0; N];
    assert_eq!(encode(&mut payload).unwrap(), N);
    payload
}

fn alloc_request(heap: u32, size: u64, address: u64) -> [u8; HeapAllocRequest::SIZE] {
    encoded(|into| HeapAllocRequest { heap, size, address }.encode(into))
}

fn free_request(address: u64, size: u64) -> [u8; HeapFreeRequest::SIZE] {
    encoded(|into| HeapFreeRequest { address, size }.encode(into))
}

/// How a VM stands with the pages of heaps.
fn limit(guest: &Guest<'_>) -> Limit {
    let request: [u8; 8] = encoded(|into| LimitsRequest { vmid: Vmid(0) }.encode(into));
    let reply = guest.call(LIMITS, &request);
    let at = 4 + Limit::HEAD + Limit::SIZE * (Resource::PagesOfHeaps as usize - 1);
    let limit = Limit::decode(&reply[..], at).unwrap();
    assert_eq!(limit.resource, Resource::PagesOfHeaps as u16);
    limit
}

fn ask(guest: &Guest<'_>, from: u32) -> Option<HeapInfo> {
    let request: [u8; HeapRequest::SIZE] = encoded(|into| HeapRequest { from }.encode(into));
    let reply = guest.call(HEAP, &request);
    (reply[..].u32_at(0) == 0).then(|| HeapInfo::decode(&reply[4..]).unwrap())
}

fn merge_all(world: &World) {
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
}

#[test]
fn a_vm_sees_and_uses_the_heaps_that_it_may_and_no_others() {
    let world = world();
    let [a, b, c] = [0, 1, 2].map(|vm| world.caller(VmIndex(vm)));
    let all = ask(&a, 0).unwrap();
    assert_eq!((all.number, &all.name[..4], all.size), (0, &b"all\0"[..], 4 * BLOCK));
    assert_eq!((all.free, all.largest), (4 * BLOCK, 4 * BLOCK));
    assert_eq!(all.features, HeapFeatures::CONTIGUOUS);
    assert_eq!((ask(&a, 1), ask(&c, 0)), (None, None));
    assert_eq!((ask(&b, 0), ask(&b, 1).unwrap().number, ask(&b, 2)), (Some(all), 1, None));
    let mut said_of = None;
    for unknown in [1, 2, 16, u32::MAX] {
        assert_eq!(alloc(&a, unknown, 4096, ANYWHERE), Err(7), "heap {unknown}");
        let last = a.last_refusal();
        assert_eq!(last.rule, Rule::NoHeap as u16);
        // Heap 1 is another VM's, and the rest are none.
        assert_eq!(said_of.get_or_insert(last), &last, "heap {unknown}");
    }
    assert_eq!(alloc(&c, 0, 4096, ANYWHERE), Err(7));
    assert!(alloc(&b, 1, 4096, ANYWHERE).is_ok());
    world.check();
}

#[test]
fn sizes_are_rounded_to_pages_and_from_2_mib_on_to_blocks() {
    let world = world();
    let a = world.caller(A);
    for (size, rounded) in
        [(1, 4096), (4096, 4096), (4097, 8192), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK)]
    {
        let (at, got) = alloc(&a, 0, size, ANYWHERE).unwrap();
        assert_eq!(got, rounded);
        assert!(size < BLOCK || at.is_multiple_of(BLOCK));
        let left = ask(&a, 0).unwrap();
        assert_eq!(left.free, 4 * BLOCK - rounded);
        world.check();
        assert_eq!(free(&a, at, got), 0);
        world.check();
    }
    for size in [0, u64::MAX, 1 << 60] {
        assert_eq!(alloc(&a, 0, size, ANYWHERE), Err(6), "{size:#x}");
    }
    assert_eq!(alloc(&a, 0, 4096, AT + 1), Err(6));
}

#[test]
fn an_exhausted_heap_refuses_and_its_count_stays_exact() {
    for &step in STEPS {
        let world = world();
        let before = world.check();
        let a = world.caller(A);
        a.step.set(step);
        assert_eq!(alloc(&a, 0, 4 * BLOCK + 1, ANYWHERE).unwrap_err(), 1);
        assert_eq!(a.last_refusal().rule, Rule::HeapFull as u16);
        let (page, _) = alloc(&a, 0, 4096, ANYWHERE).unwrap();
        let (big, _) = alloc(&a, 0, 3 * BLOCK, ANYWHERE).unwrap();
        assert_eq!(alloc(&a, 0, BLOCK, ANYWHERE), Err(1), "all blocks have something");
        let left = ask(&a, 0).unwrap();
        assert_eq!((left.free, left.largest), (BLOCK - 4096, BLOCK - 4096));
        let (rest, _) = alloc(&a, 0, BLOCK - 4096, ANYWHERE).unwrap();
        assert_eq!(alloc(&a, 0, 1, ANYWHERE), Err(1));
        assert_eq!(ask(&a, 0).unwrap().free, 0);
        world.check();
        // In parts, the middle first.
        assert_eq!(free(&a, big + BLOCK + 4096, 4096), 0);
        assert_eq!(ask(&a, 0).unwrap().largest, 4096);
        world.check();
        for (at, size) in [
            (big, BLOCK + 4096),
            (big + BLOCK + 8192, 2 * BLOCK - 8192),
            (rest, BLOCK - 4096),
            (page, 4096),
        ] {
            assert_eq!(free(&a, at, size), 0);
        }
        merge_all(&world);
        assert_eq!(world.check(), before, "in steps of {step}");
    }
}

#[test]
fn g4_a_refused_call_changes_nothing() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let (at, size) = alloc(&a, 0, 8 * 4096, AT).unwrap();
    assert_eq!((at, size), (AT, 8 * 4096));
    let own = RAM.0;
    let lent = a.offer(Transfer::Lend, &[(4, 6)], &[(AT + 4 * 4096, 1)]).unwrap();
    merge_all(&world);
    let before = world.check();
    assert_eq!(alloc(&a, 0, 4096, AT), Err(2), "an address that is taken");
    assert_eq!(alloc(&a, 0, 4096, 4096), Err(2), "an address of devices");
    for (address, size, code, rule) in [
        (AT, size, 0xa, Rule::NotOwned),
        (AT + 4 * 4096, 4096, 0xa, Rule::NotOwned),
        (AT + size, 4096, 0xa, Rule::NotOwned),
        (own, 4096, 0xa, Rule::NotOfHeap),
        (AT + 1, 4096, 6, Rule::Address),
        (AT, 0, 6, Rule::Address),
        (AT, u64::MAX - 4095, 6, Rule::Address),
    ] {
        assert_eq!(free(&a, address, size), code, "{address:#x}");
        assert_eq!(a.last_refusal().rule, rule as u16);
        merge_all(&world);
        assert_eq!(world.check(), before, "{address:#x}");
    }
    assert_eq!(free(&b, AT, 4096), 0xa, "another VM's");
    a.reclaim(lent, 0).unwrap();
    assert_eq!(free(&a, AT, size), 0);
    world.check();
}

/// The idea of Linux's selftest of dma-heaps, between two VMs.
#[test]
fn g5_a_piece_is_shared_with_a_peer_and_comes_back_from_the_heap_as_zeros() {
    for (step, size) in STEPS.iter().copied().flat_map(|step| [(step, 4096), (step, BLOCK)]) {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        [&a, &b].iter().for_each(|guest| guest.step.set(step));
        alloc(&a, 0, size, AT).unwrap();
        let shared = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(AT, size / 4096)]).unwrap();
        b.accept_contiguous(shared, Transfer::Share, (WINDOW, size / 4096)).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(0));
        world.cpu(A).write(Ipa(AT), 0xff).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(0xff));
        world.cpu(B).write(Ipa(WINDOW + size - 4096), 0xee).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(AT + size - 4096)), Ok(0xee));
        assert_eq!(free(&a, AT, size), 0xa, "it is shared");
        b.release(shared, 0).unwrap();
        a.reclaim(shared, 0).unwrap();
        world.cpu(A).write(Ipa(AT), 0xff).unwrap();
        assert_eq!(free(&a, AT, size), 0);
        assert!(world.cpu(A).read(Ipa(AT)).is_err());
        // The same memory, for another VM.
        alloc(&b, 0, size, WINDOW).unwrap();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(0));
        assert_eq!(world.cpu(B).read(Ipa(WINDOW + size - 4096)), Ok(0));
        assert_eq!(free(&b, WINDOW, size), 0);
        merge_all(&world);
        assert_eq!(world.check(), before, "{size:#x} in steps of {step}");
    }
}

#[test]
fn g5_what_a_vm_that_ends_has_of_a_heap_goes_back_as_zeros() {
    for &step in STEPS {
        let world = world();
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        alloc(&a, 0, 2 * BLOCK, AT).unwrap();
        alloc(&a, 0, 3 * 4096, AT + 0x100_0000).unwrap();
        world.cpu(A).write(Ipa(AT), 0xff).unwrap();
        let ids = [ask(&b, 0), ask(&b, 1)].map(|heap| heap.unwrap().number);
        // Half a block is lent, and a piece is shared.
        let lent = a.offer(Transfer::Lend, &[(4, 6)], &[(AT, 256)]).unwrap();
        b.accept_contiguous(lent, Transfer::Lend, (WINDOW, 256)).unwrap();
        let piece = AT + 0x100_0000;
        let shared = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(piece, 3)]).unwrap();
        b.accept_contiguous(shared, Transfer::Share, (WINDOW + 0x100_0000, 3)).unwrap();
        world.cpu(B).write(Ipa(WINDOW + 0x100_0000), 0xee).unwrap();
        world.end(A);
        world.settle(A, step);
        assert_eq!(world.check(), before, "in steps of {step}");
        assert!(world.cpu(B).read(Ipa(WINDOW + 0x100_0000)).is_err());
        world.start(A);
        let a = world.caller(A);
        assert_eq!(ask(&a, 0).unwrap().number, ids[0], "the numbers are the same");
        assert_eq!([ask(&b, 0), ask(&b, 1)].map(|heap| heap.unwrap().number), ids);
        alloc(&a, 0, 4 * BLOCK, AT).unwrap();
        for page in [0, 1, 2, BLOCK / 4096, 2 * BLOCK / 4096 + 1, 4 * BLOCK / 4096 - 1] {
            assert_eq!(world.cpu(A).read(Ipa(AT + page * 4096)), Ok(0));
        }
    }
}

#[test]
fn memory_of_a_heap_is_not_given_away() {
    for ranges in [&[(AT, 2)][..], &[(RAM.0, 1), (AT, 1)], &[(AT + 4096, 1), (RAM.0, 1)]] {
        let world = world();
        let a = world.caller(A);
        alloc(&a, 0, BLOCK, AT).unwrap();
        let before = world.check();
        assert_eq!(a.offer(Transfer::Donate, &[(4, 7)], ranges), Err(0xa));
        assert_eq!(a.last_refusal().rule, Rule::OfHeap as u16);
        merge_all(&world);
        assert_eq!(world.check(), before);
    }
}

#[test]
fn a_vm_takes_what_it_may_and_nothing_that_others_are_sure_of() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let name = VmName::new("quota");
    world.try_add_heap(HeapConfig { name, vms: 0b11, guaranteed: 600, limit: 1400 }, 4).unwrap();
    world.add_heap("free", 0b1, 1);
    let (a, b) = (world.caller(A), world.caller(B));
    let start = Limit { resource: 9, used: 0, guaranteed: 600, limit: 1400 + 512 };
    assert_eq!(limit(&a), start);
    assert_eq!(limit(&b), Limit { limit: 1400, ..start });
    assert_eq!(limit(&world.caller(VmIndex(2))), Limit { guaranteed: 0, limit: 0, ..start });
    let (big, _) = alloc(&a, 0, 2 * BLOCK, ANYWHERE).unwrap();
    let (other, _) = alloc(&a, 1, 4096, ANYWHERE).unwrap();
    assert_eq!(limit(&a).used, 1025);
    let stands = ask(&a, 0).unwrap();
    assert_eq!((stands.used, stands.guaranteed), (2 * BLOCK, 600 * 4096));
    assert_eq!(stands.limit, 1400 * 4096);
    let before = world.check();
    // Its own limit is the first to be reached.
    assert_eq!(alloc(&a, 0, 400 * 4096, ANYWHERE), Err(2));
    let last = a.last_refusal();
    assert_eq!((last.rule, last.resource), (Rule::Quota as u16, Resource::PagesOfHeaps as u16));
    assert_eq!((last.used, last.limit), (1024, 1400), "of the heap that was asked");
    assert_eq!(world.check(), before);
    // 424 pages are free for it, since B is sure of 600.
    alloc(&a, 0, 376 * 4096, ANYWHERE).unwrap();
    let (first, _) = alloc(&b, 0, 400 * 4096, ANYWHERE).unwrap();
    for pages in [136, 112] {
        alloc(&b, 0, pages * 4096, ANYWHERE).unwrap();
    }
    assert_eq!(alloc(&b, 0, 4096, ANYWHERE), Err(1));
    assert_eq!(b.last_refusal().rule, Rule::HeapFull as u16);
    assert_eq!(ask(&b, 0).unwrap().free, 0);
    // What B gives back of its guarantee is B's.
    assert_eq!(free(&b, first, 400 * 4096), 0);
    assert_eq!(free(&a, big, 4096), 0);
    let (page, _) = alloc(&a, 0, 4096, ANYWHERE).unwrap();
    assert_eq!(alloc(&b, 0, 400 * 4096, ANYWHERE).map(|_| ()), Ok(()));
    assert_eq!(free(&a, page, 4096), 0);
    assert_eq!(free(&a, other, 4096), 0);
    world.check();
}

#[test]
fn nobody_takes_the_guarantee_of_another_however_he_asks() {
    let world = World::new(&[vm(3), vm(4)]);
    let name = VmName::new("quota");
    world.try_add_heap(HeapConfig { name, vms: 0b11, guaranteed: 512, limit: 2048 }, 4).unwrap();
    let (a, b) = (world.caller(A), world.caller(B));
    alloc(&a, 0, 3 * BLOCK, ANYWHERE).unwrap();
    for size in [4096, BLOCK, 511 * 4096] {
        assert_eq!(alloc(&a, 0, size, ANYWHERE), Err(1));
    }
    alloc(&b, 0, BLOCK, ANYWHERE).unwrap();
    world.check();
}

#[test]
fn a_piece_of_blocks_is_contiguous_and_mapped_in_blocks() {
    let world = World::new(&[VmConfig { roles: Roles::all(), ..vm(3) }, vm(4)]);
    world.add_heap("all", 0b11, 8);
    let (a, b) = (world.caller(A), world.caller(B));
    let (at, size) = alloc(&a, 0, 2 * BLOCK, ANYWHERE).unwrap();
    assert!(at.is_multiple_of(BLOCK) && size == 2 * BLOCK);
    for page in [at, at + 4096, at + BLOCK, at + 2 * BLOCK - 4096] {
        let request: [u8; LeafRequest::SIZE] =
            encoded(|into| LeafRequest { vmid: Vmid(3), ipa: page }.encode(into));
        let leaf = LeafInfo::decode(&a.call(LEAF, &request)[4..]).unwrap();
        assert_eq!((leaf.level, leaf.pages), (2, 512), "{page:#x}");
    }
    let request: [u8; MapRequest::SIZE] = encoded(|into| {
        MapRequest { vmid: Vmid(3), parcel: Handle(0), cursor: at, most: 1 }.encode(into)
    });
    let entry = MapEntry::decode(&a.call(MAP, &request)[4..], MapEntry::HEAD).unwrap();
    assert_eq!((entry.ipa, entry.pages), (at, 1024), "one range of the machine");
    let shared = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(at, 1024)]).unwrap();
    b.accept_contiguous(shared, Transfer::Share, (WINDOW, 1024)).unwrap();
    world.check();
}

/// Its tables decide how far an allocation comes: none of the ways to fail leaves anything.
#[test]
fn an_allocation_that_fails_changes_nothing_wherever_it_fails() {
    let mut refused = 0;
    for &step in STEPS {
        for frames in some(Quotas::MIN_FRAMES..few(40, 20), 20) {
            let quotas = Quotas { frames, frames_reserved: Quotas::MIN_FRAMES, ..Quotas::USUAL };
            let world = World::new(&[VmConfig { quotas, ..vm(3) }, vm(4)]);
            world.add_heap("all", 0b11, few(16, 7));
            let a = world.caller(A);
            a.step.set(step);
            let (before, stands) = (world.check(), ask(&a, 0));
            // Not aligned, so each of its blocks takes a table.
            match alloc(&a, 0, few(14, 6) * BLOCK, AT + 4096) {
                Ok((at, size)) => assert_eq!(free(&a, at, size), 0),
                Err(error) => {
                    assert_eq!(error, 1, "{frames} frames");
                    refused += 1;
                }
            }
            merge_all(&world);
            assert_eq!((world.check(), ask(&a, 0)), (before, stands), "{frames} frames");
        }
    }
    assert!(refused > 0);
    // No address is free: one is, for half of it.
    let ipa_pages = RAM.page() + 4096 + 600;
    let world = World::new(&[VmConfig { ipa_pages, ..vm(3) }]);
    world.add_heap("all", 0b1, 4);
    let a = world.caller(A);
    for &step in STEPS {
        a.step.set(step);
        let before = world.check();
        for address in [ANYWHERE, RAM.0 + (4096 << 12)] {
            assert_eq!(alloc(&a, 0, 2 * BLOCK, address), Err(2));
            assert_eq!(a.last_refusal().rule, Rule::NoRange as u16);
            assert_eq!(world.check(), before);
        }
        assert_eq!(alloc(&a, 0, 8192, RAM.0 + (4095 << 12)), Err(2), "its first page is taken");
        assert_eq!(world.check(), before);
    }
}

/// The fake denies the call one thing after the other, until none is left that it asks for.
#[test]
fn what_is_denied_a_heap_call_leaves_everything_as_it_was() {
    let mut refused = 0;
    for &step in STEPS {
        let world = world();
        let a = world.caller(A);
        let machine = world.manager.machine();
        a.step.set(step);
        let kept = alloc(&a, 0, BLOCK, WINDOW + 4096).unwrap();
        for first in some(1.., 12) {
            let (before, stands) = (world.check(), ask(&a, 0));
            machine.refuse(first, 1);
            let made = alloc(&a, 0, 2 * BLOCK, AT + 4096);
            let denied = machine.refused();
            let Ok((at, size)) = made else {
                refused += 1;
                assert!(denied > 0);
                merge_all(&world);
                assert_eq!((world.check(), ask(&a, 0)), (before, stands), "denied {first}");
                continue;
            };
            // A part of a block of it takes a table.
            assert_eq!(free(&a, at, size), 0);
            if denied == 0 {
                break;
            }
        }
        assert_eq!(free(&a, kept.0, kept.1), 0);
        let blocks = alloc(&a, 0, BLOCK, WINDOW).unwrap();
        merge_all(&world);
        for first in some(1.., 12) {
            let before = world.check();
            machine.refuse(first, 1);
            let freed = free(&a, blocks.0 + 4096, 4096);
            if machine.refused() == 0 {
                assert_eq!(freed, 0);
                break;
            }
            if freed != 0 {
                refused += 1;
                merge_all(&world);
                assert_eq!(world.check(), before, "denied {first}");
            }
        }
    }
    assert!(refused >= few(6, 2), "{refused}");
}

#[test]
fn a_vm_dies_at_every_step_of_an_allocation_and_of_a_return() {
    let (size, part) = few((BLOCK + 1, AT + BLOCK - 8192), (6 * 4096, AT + 4096));
    for returns in [false, true] {
        let mut steps = 0;
        loop {
            let world = world();
            let before = world.check();
            let (a, b) = (world.caller(A), world.caller(B));
            if returns {
                alloc(&b, 0, size, AT).unwrap();
                world.cpu(B).write(Ipa(AT), 0xff).unwrap();
            }
            b.step.set(1);
            let mut turn = if returns {
                b.send(HEAP_FREE, &free_request(part, 4 * 4096))
            } else {
                b.send(HEAP_ALLOC, &alloc_request(0, size, AT))
            };
            for _ in 0..steps {
                let Turn::More(token) = turn else { break };
                turn = b.resume(token);
            }
            world.end(B);
            world.settle(B, 1);
            merge_all(&world);
            assert_eq!(world.check(), before, "after {steps} steps");
            let (at, got) = alloc(&a, 0, few(4, 1) * BLOCK, ANYWHERE).unwrap();
            for page in [at, at + BLOCK - 4096, at + got - 4096] {
                assert_eq!(world.cpu(A).read(Ipa(page)), Ok(0));
            }
            if matches!(turn, Turn::Reply(_)) {
                break;
            }
            steps += few(1, 9);
        }
        assert!(steps > 5, "{steps} are too few to show anything");
    }
}

/// Calls of the same VM take the addresses that the search has seen free.
#[test]
fn an_allocation_whose_address_is_taken_meanwhile_finds_another() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let before = world.check();
    let lent = b.offer(Transfer::Lend, &[(3, 6)], &[(RAM.0, 1)]).unwrap();
    let mut met = false;
    for steps in 0..30 {
        a.step.set(1);
        let mut turn = a.send(HEAP_ALLOC, &alloc_request(0, 2 * 4096, ANYWHERE));
        for _ in 0..steps {
            let Turn::More(token) = turn else { break };
            turn = a.resume(token);
        }
        // The lowest free addresses: where the search looks.
        a.step.set(STEP);
        let place = RAM.0 + (4096 << 12);
        let taken = a.accept(lent, Transfer::Lend, &[(place + 4096, 1)]);
        while let Turn::More(token) = turn {
            turn = a.resume(token);
        }
        let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
        let (at, size) = said(&reply).unwrap();
        met |= taken.is_ok() && at > place + 4096;
        assert_eq!(free(&a, at, size), 0);
        if taken.is_ok() {
            a.release(lent, 0).unwrap();
        }
    }
    assert!(met, "the addresses were never taken meanwhile");
    b.reclaim(lent, 0).unwrap();
    merge_all(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn a_vm_whose_addresses_are_the_machines_has_a_piece_there() {
    let direct = VmConfig { direct_mapped: true, ipa_pages: 1 << 24, ..vm(3) };
    let world = World::new(&[direct, vm(4)]);
    let low = Ipa(0x8_0000_0000);
    let heap = |name| {
        let name = VmName::new(name);
        HeapConfig { name, vms: 0b11, guaranteed: 0, limit: 1024 }
    };
    world.manager.add_heap(heap("low"), &[(rm::address::Pa(low.0), 1024)]).unwrap();
    // Beyond the addresses of the VM.
    world.add_heap("high", 0b1, 1);
    let a = world.caller(A);
    let before = world.check();
    for (size, address) in [(4096, ANYWHERE), (BLOCK, ANYWHERE), (2 * BLOCK, low.0)] {
        let (at, size) = alloc(&a, 0, size, address).unwrap();
        assert_eq!(at, low.0);
        assert_eq!(free(&a, at, size), 0);
    }
    for (heap, address) in [(0, low.0 + 4096), (0, AT), (1, ANYWHERE)] {
        assert_eq!(alloc(&a, heap, 4096, address), Err(2));
        assert_eq!(a.last_refusal().rule, Rule::NoRange as u16);
    }
    merge_all(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn g7_vms_take_and_return_pieces_all_at_once() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let name = VmName::new("all");
    world.try_add_heap(HeapConfig { name, vms: 0b111, guaranteed: 512, limit: 2048 }, 6).unwrap();
    let before = world.check();
    std::thread::scope(|scope| {
        for own in 0..3u8 {
            let world = &world;
            scope.spawn(move || {
                let guest = world.caller(VmIndex(own));
                for round in 0..few(60, 1) * effort::<u64>() {
                    guest.step.set([1, 30, STEP][round as usize % 3]);
                    // Within the guarantee, so it is never refused for want of pages.
                    let small = 4096 * (1 + (round * 7 + u64::from(own)) % 100);
                    let (at, size) = alloc(&guest, 0, small, ANYWHERE).unwrap();
                    let big = alloc(&guest, 0, BLOCK + round % 2, ANYWHERE);
                    for (at, size) in [Ok((at, size)), big].into_iter().flatten() {
                        for page in [at, at + size - 4096] {
                            assert_eq!(world.cpu(guest.vm).read(Ipa(page)), Ok(0));
                        }
                        for page in [at, at + size - 4096] {
                            world.cpu(guest.vm).write(Ipa(page), own + 1).unwrap();
                        }
                    }
                    for (at, size) in [Ok((at, size)), big].into_iter().flatten() {
                        for page in [at, at + size - 4096] {
                            let value = own + 1;
                            assert_eq!(world.cpu(guest.vm).read(Ipa(page)), Ok(value));
                        }
                        assert_eq!(free(&guest, at, size), 0);
                    }
                }
            });
        }
    });
    merge_all(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn boot_makes_one_of_two_heaps_of_one_name_that_come_at_once() {
    for _ in 0..few(50, 2) {
        let world = World::new(&[vm(3)]);
        let name = VmName::new("video");
        let config = HeapConfig { name, vms: 1, guaranteed: 0, limit: 512 };
        let made = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| world.try_add_heap(config, 1)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
        assert_eq!(made.iter().filter(|made| **made == Err(BootError::HeapName)).count(), 3);
        assert_eq!(ask(&world.caller(A), 1), None);
        world.check();
    }
}

#[test]
fn boot_refuses_heaps_that_cannot_be() {
    let world = World::new(&[vm(3)]);
    let config = |name| {
        let name = VmName::new(name);
        HeapConfig { name, vms: 1, guaranteed: 0, limit: 512 }
    };
    world.add_heap("name", 1, 1);
    assert_eq!(world.try_add_heap(config("name"), 1), Err(BootError::HeapName));
    assert_eq!(world.try_add_heap(config(""), 1), Err(BootError::HeapName));
    assert_eq!(world.try_add_heap(config("empty"), 0), Err(BootError::Heap));
    let sure = HeapConfig { guaranteed: 300, vms: 0b11, ..config("sure") };
    assert_eq!(world.try_add_heap(sure, 1), Err(BootError::Heap), "300 pages for each of two");
    let more = HeapConfig { guaranteed: 11, limit: 10, ..config("more") };
    assert_eq!(world.try_add_heap(more, 1), Err(BootError::Heap));
    let strangers = HeapConfig { vms: 1 << 16, ..config("strangers") };
    assert_eq!(world.try_add_heap(strangers, 1), Err(BootError::Heap));
    let pa = World::heap_pa(VmName::new("part"));
    for range in [(pa, 511), (pa.add_pages(1), 512), (pa, 0)] {
        assert_eq!(world.manager.add_heap(config("part"), &[range]), Err(BootError::Heap));
    }
    let many = HeapConfig { limit: 4 << 18, ..config("many") };
    assert_eq!(world.try_add_heap(many, 4 << 9), Err(BootError::Heap), "more words than there are");
    for name in "abcdefghijklopq".split("").filter(|name| !name.is_empty()) {
        world.add_heap(name, 1, 1);
    }
    assert_eq!(world.try_add_heap(config("r"), 1), Err(BootError::Heap));
    let a = world.caller(A);
    assert_eq!(ask(&a, HEAPS as u32 - 1).unwrap().name(), "q");
    assert_eq!(ask(&a, HEAPS as u32), None);
    world.check();
}
