//! Pages that the machine does not vouch for when they are to come home.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::world::{RAM, World, by_handle, vm};
use rm_abi::extension::{INFO, ParcelFlags, ParcelInfo, ParcelPhase, Rule};
use rm_abi::{Bytes, Transfer};

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
    for step in [1, rm::operation::STEP] {
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
