//! Pages that the machine does not vouch for when they are to come home.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::world::{Guest, RAM, World, by_handle, vm};
use rm::operation::STEP;
use rm::stage2::Access;
use rm_abi::extension::{
    HEAP_ALLOC, HEAP_FREE, HeapAllocRequest, HeapFreeRequest, INFO, ParcelFlags, ParcelInfo,
    ParcelPhase, Rule, TRIM, TrimFlags, TrimRequest,
};
use rm_abi::{Bytes, Handle, Transfer};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;

/// A parcel of three pages that B has had and whose second page is not sound.
fn spoiled(world: &World, step: u32) -> u32 {
    let (a, b) = (world.caller(A), world.caller(B));
    a.step.set(step);
    let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 3)]).unwrap();
    b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 3)).unwrap();
    world.manager.machine().spoil(rm::address::Pa(World::pa_of(A).0 + 0x10_1000));
    b.release(handle, 0).unwrap();
    handle
}

#[test]
fn g5_a_page_that_cannot_be_vouched_for_is_given_to_nobody_again() {
    for step in [1, STEP] {
        let world = World::new(&[vm(3), vm(4)]);
        let handle = spoiled(&world, step);
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        for _ in 0..2 {
            assert_eq!(a.reclaim(handle, 0), Err(0xa));
            assert_eq!(a.last_refusal().rule, Rule::Poisoned as u16);
        }
        assert!(world.cpu(A).read(Ipa(PAGE)).is_err(), "the sound pages stay with it");
        assert_eq!(b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 3)), Err(7));
        let info = ParcelInfo::decode(&a.call(INFO, &by_handle(handle, 0))[4..]).unwrap();
        assert_eq!(info.phase, ParcelPhase::Closing);
        assert!(info.flags.contains(ParcelFlags::POISONED));
        let report = world.check();
        assert_eq!((report.poisoned, report.lent), (3, 3), "it is counted");
        // Everything else goes on.
        let other = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE + 0x8000, 1)]).unwrap();
        assert_eq!(a.reclaim(other, 0), Ok(0));
    }
}

#[test]
fn an_owner_that_dies_leaves_what_is_poisoned_behind_and_is_reset() {
    let world = World::new(&[vm(3), vm(4)]);
    let handle = spoiled(&world, 1);
    world.end(A);
    world.settle(A, 1);
    world.start(A);
    let a = world.caller(A);
    assert_eq!(a.reclaim(handle, 0), Err(0xa));
    assert_eq!(world.check().poisoned, 3);
    assert_eq!(a.call(INFO, &by_handle(handle, 0))[..].u32_at(0), 0);
}

/// The error word of a trim of some pages.
fn trim(guest: &Guest<'_>, handle: u32, first: u64, pages: u64) -> u32 {
    let (offset, size) = (first * 4096, pages * 4096);
    let request = TrimRequest { handle: Handle(handle), flags: TrimFlags::empty(), offset, size };
    let mut payload = [0; TrimRequest::SIZE];
    request.encode(&mut payload).unwrap();
    guest.words(TRIM, &payload).0
}

#[test]
fn g5_a_trim_of_a_page_that_cannot_be_vouched_for_takes_nothing_home() {
    for step in [1, STEP] {
        let world = World::new(&[vm(3), vm(4)]);
        let handle = spoiled(&world, step);
        let (a, b) = (world.caller(A), world.caller(B));
        assert_eq!(trim(&a, handle, 2, 1), 0, "the third page is sound");
        assert!(world.cpu(A).read(Ipa(PAGE + 0x2000)).is_ok());
        assert_eq!(trim(&a, handle, 0, 2), 0xa);
        assert_eq!(a.last_refusal().rule, Rule::Poisoned as u16);
        for at in [PAGE, PAGE + 0x1000] {
            assert!(world.cpu(A).read(Ipa(at)).is_err(), "{at:#x} came home");
        }
        let report = world.check();
        assert_eq!((report.poisoned, report.lent), (2, 2));
        // The parcel is what it was, but that it stays.
        let info = ParcelInfo::decode(&a.call(INFO, &by_handle(handle, 0))[4..]).unwrap();
        assert_eq!(info.phase, ParcelPhase::Offered);
        assert!(info.flags.contains(ParcelFlags::POISONED));
        let accepted = b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 3));
        assert_eq!((accepted, b.last_refusal().rule), (Err(0xa), Rule::Poisoned as u16));
        assert_eq!(b.release(handle, 0), Err(0xc));
        assert_eq!(a.reclaim(handle, 0), Err(0xa));
        world.check();
    }
}

#[test]
fn g5_a_piece_of_a_heap_with_a_page_that_cannot_be_vouched_for_stays_its_vm_s() {
    for step in [1, STEP] {
        let world = World::new(&[vm(3), vm(4)]);
        world.add_heap("all", 0b1, 1);
        let a = world.caller(A);
        a.step.set(step);
        let mut request = [0; HeapAllocRequest::SIZE];
        let alloc = HeapAllocRequest { heap: 0, size: 4 * 4096, address: WINDOW };
        alloc.encode(&mut request).unwrap();
        assert_eq!(a.words(HEAP_ALLOC, &request).0, 0);
        world.cpu(A).write(Ipa(WINDOW + 0x1000), 7).unwrap();
        let pa = world.manager.allows(A, Ipa(WINDOW + 0x2000), Access::Read).unwrap();
        world.manager.machine().spoil(pa);
        let free = |first: u64, pages: u64| {
            let mut payload = [0; HeapFreeRequest::SIZE];
            let request = HeapFreeRequest { address: WINDOW + first * 4096, size: pages * 4096 };
            request.encode(&mut payload).unwrap();
            a.words(HEAP_FREE, &payload).0
        };
        let before = world.check();
        for (first, pages) in [(0, 4), (2, 1), (1, 2)] {
            assert_eq!(free(first, pages), 0xa, "{pages} pages from {first} on");
            assert_eq!(a.last_refusal().rule, Rule::Poisoned as u16);
            assert_eq!(world.check(), before, "G4: all of it stays");
        }
        assert_eq!(world.cpu(A).read(Ipa(WINDOW + 0x1000)), Ok(7));
        assert_eq!((free(0, 2), free(3, 1)), (0, 0), "what is around it goes");
        assert!(world.cpu(A).read(Ipa(WINDOW + 0x2000)).is_ok());
        world.check();
    }
}

#[test]
fn g5_a_borrower_loses_what_is_poisoned_when_its_owner_dies() {
    for step in [1, STEP] {
        let world = World::new(&[vm(3), vm(4)]);
        let (a, b) = (world.caller(A), world.caller(B));
        let acl = [(3, 6), (4, 6)];
        let handle = a.offer(Transfer::Share, &acl, &[(PAGE, 3)]).unwrap();
        b.accept_contiguous(handle, Transfer::Share, (WINDOW, 3)).unwrap();
        world.manager.machine().spoil(rm::address::Pa(World::pa_of(A).0 + 0x10_0000));
        assert_eq!((trim(&b, handle, 0, 1), trim(&a, handle, 0, 1)), (0, 0xa));
        world.cpu(B).write(Ipa(WINDOW + 0x1000), 7).expect("it has the rest of it");
        world.end(A);
        world.settle(A, step);
        world.start(A);
        assert!(world.cpu(B).read(Ipa(WINDOW + 0x1000)).is_err(), "the next life is not the last");
        assert_eq!(b.release(handle, 0), Err(7));
        assert_eq!(a.reclaim(handle, 0), Err(0xa));
        assert_eq!(world.check().poisoned, 3);
    }
}
