//! One story for each guarantee, told by VMs at the manager over the strict fake.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::effort::few;
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, Turn, World, by_handle, offer, vm};
use rm::stage2::Access;
use rm_abi::{CreateFlags, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const VMID_A: u16 = 3;
const VMID_B: u16 = 4;
const VMID_C: u16 = 5;
const R: u8 = 4;
const RW: u8 = 6;
const RWX: u8 = 7;
/// A page in the middle of a block.
const PAGE: u64 = RAM.0 + 0x7000;
/// Where borrowers map.
const WINDOW: u64 = 0x9000_0000;

fn three() -> World {
    World::new(&[vm(VMID_A), vm(VMID_B), vm(VMID_C)])
}

fn can(world: &World, vm: VmIndex, at: u64, access: Access) -> bool {
    world.manager.allows(vm, Ipa(at), access).is_some()
}

fn share_with_b(world: &World, rights: u8) -> (Guest<'_>, Guest<'_>, u32) {
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a
        .offer(Transfer::Share, &[(VMID_A, RWX), (VMID_B, rights)], &[(PAGE, 1)])
        .expect("A owns the page");
    (a, b, handle)
}

/// B writes to a page that A lent, and gives it back; the result is what A reads after its reclaim.
fn lend_write_release_reclaim(world: &World, release: u8, reclaim: u8) -> u8 {
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(Transfer::Lend, &[(VMID_B, RW)], &[(PAGE, 1)]).unwrap();
    b.accept(handle, Transfer::Lend, &[(WINDOW, 1)]).unwrap();
    world.cpu(B).write(Ipa(WINDOW), 0x77).unwrap();
    b.release(handle, release).unwrap();
    a.reclaim(handle, reclaim).unwrap();
    world.check();
    world.cpu(A).read(Ipa(PAGE)).unwrap()
}

#[test]
fn g1_two_vms_write_a_page_only_while_a_parcel_names_both() {
    let world = three();
    let (a, b, handle) = share_with_b(&world, RW);
    assert!(!can(&world, B, WINDOW, Access::Write), "an offer alone maps nothing");
    b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
    world.cpu(B).write(Ipa(WINDOW), 0x5a).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0x5a));
    world.cpu(A).write(Ipa(PAGE), 0xa5).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(0xa5));
    b.release(handle, 0).unwrap();
    assert!(world.cpu(B).write(Ipa(WINDOW), 1).is_err());
    a.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn g2_a_lent_page_is_out_of_its_owners_reach_until_reclaimed() {
    let world = three();
    let (a, b) = (world.caller(A), world.caller(B));
    world.cpu(A).write(Ipa(PAGE), 7).unwrap();
    let handle = a.offer(Transfer::Lend, &[(VMID_B, RW)], &[(PAGE, 1)]).unwrap();
    let gone = |when| {
        assert!(world.cpu(A).read(Ipa(PAGE)).is_err(), "{when}");
        assert!(world.cpu(A).write(Ipa(PAGE), 1).is_err(), "{when}");
        let again = a.offer(Transfer::Share, &[(VMID_A, R), (VMID_C, R)], &[(PAGE, 1)]);
        assert_eq!(again, Err(0xa), "{when}");
    };
    gone("after the lend");
    b.accept(handle, Transfer::Lend, &[(WINDOW, 1)]).unwrap();
    gone("while B holds it");
    assert_eq!(a.reclaim(handle, 0), Err(0xb), "while B holds it");
    b.release(handle, 0).unwrap();
    gone("after B released it");
    a.reclaim(handle, 0).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(7));
    world.check();
}

#[test]
fn g3_a_borrower_never_gets_more_than_the_acl_grants() {
    let world = three();
    let (_, b, handle) = share_with_b(&world, R);
    b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
    assert!(can(&world, B, WINDOW, Access::Read));
    assert!(!can(&world, B, WINDOW, Access::Write));
    assert!(!can(&world, B, WINDOW, Access::Execute));
    assert!(!can(&world, B, WINDOW + 0x1000, Access::Read), "the page behind it");
    assert_eq!(b.offer(Transfer::Lend, &[(VMID_C, R)], &[(WINDOW, 1)]), Err(0xa), "borrowed");
    world.check();
}

#[test]
fn g3_an_owner_may_take_the_write_right_from_itself() {
    let world = three();
    let a = world.caller(A);
    let handle = a.offer(Transfer::Share, &[(VMID_A, R), (VMID_B, RW)], &[(PAGE, 1)]).unwrap();
    assert!(can(&world, A, PAGE, Access::Read));
    assert!(world.cpu(A).write(Ipa(PAGE), 1).is_err());
    a.reclaim(handle, 0).unwrap();
    assert!(can(&world, A, PAGE, Access::Write));
    world.check();
}

#[test]
fn g4_a_list_with_one_bad_entry_changes_nothing() {
    let world = three();
    let a = world.caller(A);
    let before = world.check();
    let outside = RAM.0 + RAM_PAGES * 4096;
    for bad in [(outside, 1), (PAGE, 1), (RAM.0 + 1, 1), (RAM.0, 0), (1 << 44, 1)] {
        let ranges = [(PAGE, 1), (PAGE + 0x3000, 2), bad];
        let refused = a.offer(Transfer::Lend, &[(VMID_B, RW)], &ranges);
        assert!(refused.is_err(), "{bad:x?}");
        assert!(can(&world, A, PAGE, Access::Write), "{bad:x?}");
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "{bad:x?}");
    }
}

#[test]
fn g5_a_sanitized_reclaim_gives_zeros_and_a_plain_one_what_was_written() {
    assert_eq!(lend_write_release_reclaim(&three(), 0, 0), 0x77);
    assert_eq!(lend_write_release_reclaim(&three(), 0, 1), 0);
}

#[test]
fn g5_a_release_with_sanitize_wipes_at_the_reclaim() {
    assert_eq!(lend_write_release_reclaim(&three(), 1, 0), 0);
}

#[test]
fn g5_a_vm_that_is_always_sanitized_leaves_zeros_behind() {
    let cautious = rm::config::VmConfig { sanitize_always: true, ..vm(VMID_B) };
    assert_eq!(lend_write_release_reclaim(&World::new(&[vm(VMID_A), cautious]), 0, 0), 0);
}

#[test]
fn g6_a_stranger_cannot_tell_a_parcel_from_no_parcel() {
    let world = three();
    let (_, _, handle) = share_with_b(&world, RW);
    let c = world.caller(C);
    for call in [message::MEM_RELEASE, message::MEM_RECLAIM] {
        let real = c.call(call, &by_handle(handle, 0));
        assert_eq!(real, c.call(call, &by_handle(0x7654_3210, 0)));
        assert_eq!(real, 7u32.to_le_bytes());
    }
    assert_eq!(c.accept(handle, Transfer::Share, &[(WINDOW, 1)]), Err(7));
}

#[test]
fn g6_a_handle_is_not_used_again() {
    let world = three();
    let a = world.caller(A);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..few(5000, 30) {
        let handle = a.offer(Transfer::Lend, &[(VMID_B, RW)], &[(PAGE, 1)]).unwrap();
        assert!(handle != 0 && handle != u32::MAX);
        assert!(seen.insert(handle), "{handle:#x} came twice");
        a.reclaim(handle, 0).unwrap();
        assert_eq!(a.reclaim(handle, 0), Err(7));
    }
}

#[test]
fn g7_a_vm_at_its_parcel_quota_changes_nothing_for_another() {
    let mut small = vm(VMID_A);
    small.quotas.parcels = 3;
    let other = vm(VMID_B);
    let world = World::new(&[small, other]);
    let (a, b) = (world.caller(A), world.caller(B));
    for page in 0..3 {
        a.offer(Transfer::Lend, &[(VMID_B, R)], &[(PAGE + page * 4096, 1)]).unwrap();
    }
    assert_eq!(a.offer(Transfer::Lend, &[(VMID_B, R)], &[(RAM.0, 1)]), Err(2));
    for page in 0..other.quotas.parcels.into() {
        b.offer(Transfer::Lend, &[(VMID_A, R)], &[(RAM.0 + page * 4096, 1)]).unwrap();
    }
    world.check();
}

#[test]
fn g7_quotas_of_pages_and_extents_refuse_and_take_nothing() {
    let mut small = vm(VMID_A);
    small.quotas.pages_lent = 8;
    small.quotas.extents = 3;
    small.quotas.pages_accepted = 4;
    let world = World::new(&[small, vm(VMID_B)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let before = world.check();
    assert_eq!(a.offer(Transfer::Lend, &[(VMID_B, R)], &[(RAM.0, 9)]), Err(2));
    let apart: Vec<_> = (0..4).map(|i| (RAM.0 + i * 0x2000, 1)).collect();
    assert_eq!(a.offer(Transfer::Lend, &[(VMID_B, R)], &apart), Err(2));
    while world.manager.idle(A) {}
    assert_eq!(world.check(), before);
    let handle = b.offer(Transfer::Lend, &[(VMID_A, R)], &[(RAM.0, 5)]).unwrap();
    assert_eq!(a.accept(handle, Transfer::Lend, &[(WINDOW, 5)]), Err(2));
    assert!(!can(&world, A, WINDOW, Access::Read));
    b.reclaim(handle, 0).unwrap();
    a.offer(Transfer::Lend, &[(VMID_B, R)], &[(RAM.0, 8)]).unwrap();
    world.check();
}

#[test]
fn g8_every_page_is_somewhere_at_each_moment_of_a_parcels_life() {
    let world = three();
    let total = world.check().total();
    let (a, b, handle) = share_with_b(&world, RW);
    assert_eq!(world.check().total(), total);
    b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
    let report = world.check();
    assert_eq!((report.total(), report.shared, report.borrowed), (total, 1, 1));
    b.release(handle, 0).unwrap();
    a.reclaim(handle, 0).unwrap();
    assert_eq!(world.check().total(), total);
}

#[test]
fn g8_a_donation_moves_pages_and_loses_none() {
    let world = three();
    let total = world.check().total();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(Transfer::Donate, &[(VMID_B, RWX)], &[(RAM.0, 600)]).unwrap();
    assert!(!can(&world, A, RAM.0, Access::Read));
    b.accept_contiguous(handle, Transfer::Donate, (WINDOW, 600)).unwrap();
    assert_eq!(world.check().total(), total);
    assert_eq!(a.reclaim(handle, 0), Err(7), "the parcel is gone");
    b.offer(Transfer::Lend, &[(VMID_C, R)], &[(WINDOW + 0x1000, 3)]).expect("B owns it now");
    assert_eq!(world.check().total(), total);
}

#[test]
fn a_long_call_ends_in_steps_and_its_reply_waits_for_a_lost_page() {
    let world = three();
    let a = world.caller(A);
    a.step.set(1);
    let lend = offer(CreateFlags::empty(), &[(VMID_B, RW)], &[(PAGE, 40)], &[]);
    let Turn::More(token) = a.send(message::MEM_LEND, &lend) else {
        panic!("forty pages do not fit a step of one unit")
    };
    a.lose_reply_page(true);
    let mut turn = a.resume(token);
    while let Turn::More(_) = turn {
        turn = a.resume(token);
    }
    assert_eq!(turn, Turn::Error(22, token), "the reply has nowhere to go");
    a.lose_reply_page(false);
    assert!(matches!(a.resume(token), Turn::Reply(_)));
    assert_eq!(a.resume(token), Turn::Error(1, 0), "the reply was fetched");
    world.check();
}
