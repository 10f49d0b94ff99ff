//! One cache policy per parcel: all its mappings have it, and no content is lost when it begins or ends.
//!
//! The fake's caches lose what the architecture lets them lose, and two VMs that map a page with
//! different types are a panic, so a story that ends well has done its maintenance.

use rm::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use rm::machine::Features;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, by_handle, offer, vm};
use rm::stage2::{Access, MemoryType};
use rm_abi::extension::{Policy, Rule, SET_POLICY, SetPolicyRequest};
use rm_abi::{
    AcceptFlags, Attribute, AttributeEntry, CreateFlags, Handle, MemoryKind, Transfer, Vmid,
    message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x7000;
const SECOND: u64 = RAM.0 + 0x9000;
/// A whole block of 2 MiB.
const BLOCK: u64 = RAM.0 + 0x40_0000;
const WINDOW: u64 = 0x9000_0000;
const UNCACHED: u16 = Attribute::Uncached as u16;
const CPUS: [Features; 2] = [
    Features { forced_write_back: false, smmu: false },
    Features { forced_write_back: true, smmu: false },
];
const STEPS: &[u32] = few(&[1, rm::operation::STEP], &[30]);
/// Lists of ranges, and how many pages they have.
const RANGES: [(&[(u64, u64)], u64); 3] =
    [(&[(PAGE, 1)], 1), (&[(PAGE, 1), (SECOND, 2)], 3), (&[(BLOCK, 512)], 512)];

fn worlds() -> impl Iterator<Item = (World, u32)> {
    let world = |features| World::with_features(&[vm(3), vm(4), vm(5)], features);
    some(CPUS, 2).flat_map(move |features| STEPS.iter().map(move |&step| (world(features), step)))
}

fn acl(transfer: Transfer) -> &'static [(u16, u8)] {
    if transfer == Transfer::Share { &[(3, 6), (4, 6)] } else { &[(4, 6)] }
}

fn uncached(guest: &Guest<'_>, transfer: Transfer, ranges: &[(u64, u64)]) -> u32 {
    let payload = offer(CreateFlags::empty(), acl(transfer), ranges, &[(UNCACHED, 4)]);
    let (error, handle) = guest.words(transfer.message(), &payload);
    assert_eq!(error, 0);
    handle
}

fn memory(world: &World, vm: VmIndex, at: u64) -> Option<MemoryType> {
    let page = world.manager.with_page(vm, |page| page(Ipa(at), Access::Read));
    page.map(|page| page.memory)
}

/// The machine address of A's page.
fn pa(at: u64) -> Pa {
    World::pa_of(A).add_pages((at - RAM.0) / PAGE_SIZE)
}

#[test]
fn g3_an_uncached_share_is_so_for_its_owner_too_and_keeps_what_was_written() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        let before = world.check();
        for (ranges, pages) in some(RANGES, 2) {
            let (first, last) = (ranges[0].0, ranges[ranges.len() - 1]);
            let last = last.0 + (last.1 - 1) * PAGE_SIZE;
            let end = WINDOW + (pages - 1) * PAGE_SIZE;
            world.cpu(A).write(Ipa(first), 1).unwrap();
            world.cpu(A).write(Ipa(last), if pages > 1 { 2 } else { 1 }).unwrap();
            let handle = uncached(&a, Transfer::Share, ranges);
            world.check();
            b.accept_contiguous(handle, Transfer::Share, (WINDOW, pages)).unwrap();
            world.check();
            for (vm, at) in [(A, first), (A, last), (B, WINDOW), (B, end)] {
                assert_eq!(memory(&world, vm, at), Some(MemoryType::NonCacheable));
            }
            assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(1), "what A wrote before its offer");
            assert_eq!(world.cpu(A).read(Ipa(first)), Ok(1), "A still finds it");
            world.cpu(B).write(Ipa(end), 3).unwrap();
            assert_eq!(world.cpu(A).read(Ipa(last)), Ok(3));
            assert_eq!(world.manager.machine().memory(pa(last))[0], 3, "in memory, for a device");
            b.release(handle, 0).unwrap();
            a.reclaim(handle, 0).unwrap();
            world.check();
            assert_eq!(memory(&world, A, last), Some(MemoryType::WriteBack));
            assert_eq!(world.cpu(A).read(Ipa(last)), Ok(3), "what B wrote");
        }
        while world.manager.idle(A) || world.manager.idle(B) {}
        assert_eq!(world.check(), before);
    }
}

#[test]
fn an_owner_that_writes_while_its_share_turns_uncached_leaves_no_line_in_the_cache() {
    for features in some(CPUS, 2) {
        let world = World::with_features(&[vm(3), vm(4)], features);
        let a = world.caller(A);
        a.step.set(few(1, 30));
        let ranges = [(BLOCK, 512), (PAGE, 1), (SECOND, 3)];
        let payload = offer(CreateFlags::empty(), acl(Transfer::Share), &ranges, &[(UNCACHED, 4)]);
        let mut turn = a.send(message::MEM_SHARE, &payload);
        let mut value = 0_u8;
        while let Turn::More(token) = turn {
            value = value.wrapping_add(1);
            for at in [BLOCK, BLOCK + 511 * PAGE_SIZE, PAGE, SECOND + 2 * PAGE_SIZE] {
                world.cpu(A).write(Ipa(at), value).unwrap();
            }
            turn = a.resume(token);
        }
        let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
        assert_eq!(reply[..4], [0; 4]);
        world.check();
    }
}

#[test]
fn an_uncached_lend_brings_its_content_there_and_back() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        for (ranges, pages) in some(RANGES, 2) {
            let first = ranges[0].0;
            world.cpu(A).write(Ipa(first), 1).unwrap();
            let handle = uncached(&a, Transfer::Lend, ranges);
            b.accept_contiguous(handle, Transfer::Lend, (WINDOW, pages)).unwrap();
            world.check();
            assert_eq!(memory(&world, B, WINDOW), Some(MemoryType::NonCacheable));
            assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(1));
            world.cpu(B).write(Ipa(WINDOW), 2).unwrap();
            b.release(handle, 0).unwrap();
            a.reclaim(handle, 0).unwrap();
            world.check();
            assert_eq!(world.cpu(A).read(Ipa(first)), Ok(2));
        }
    }
}

#[test]
fn g5_zeros_of_an_uncached_parcel_are_in_memory_and_in_the_caches() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        for transfer in [Transfer::Share, Transfer::Lend] {
            world.cpu(A).write(Ipa(PAGE), 1).unwrap();
            let ranges = [(PAGE, 1), (SECOND, 2)];
            let payload = offer(CreateFlags::SANITIZE, acl(transfer), &ranges, &[(UNCACHED, 4)]);
            let handle = a.words(transfer.message(), &payload).1;
            b.accept_contiguous(handle, transfer, (WINDOW, 3)).unwrap();
            assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(0), "zeroed when it was offered");
            world.cpu(B).write(Ipa(WINDOW), 2).unwrap();
            b.release(handle, 1).unwrap();
            a.reclaim(handle, 0).unwrap();
            world.check();
            assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0), "zeroed before it came home");
            assert_eq!(world.manager.machine().memory(pa(PAGE))[0], 0);
        }
    }
}

#[test]
fn appended_pages_get_the_parcels_policy() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        for at in [PAGE, SECOND, SECOND + 0x1000] {
            world.cpu(A).write(Ipa(at), 5).unwrap();
        }
        let payload =
            offer(CreateFlags::APPEND, acl(Transfer::Share), &[(PAGE, 1)], &[(UNCACHED, 4)]);
        let handle = a.words(message::MEM_SHARE, &payload).1;
        let refused = a.append(handle, false, &[(SECOND, 1), (SECOND, 1)]);
        assert_eq!(refused, Err(0xa), "a page twice");
        assert_eq!(memory(&world, A, SECOND), Some(MemoryType::WriteBack), "G4: as it was");
        assert_eq!(world.cpu(A).read(Ipa(SECOND)), Ok(5));
        a.append(handle, true, &[(SECOND, 2)]).unwrap();
        b.accept_contiguous(handle, Transfer::Share, (WINDOW, 3)).unwrap();
        world.check();
        for page in 0..3 {
            assert_eq!(world.cpu(B).read(Ipa(WINDOW + page * PAGE_SIZE)), Ok(5));
        }
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        world.check();
    }
}

#[test]
fn a_revoked_uncached_parcel_comes_home_cached() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        for (transfer, left) in [(Transfer::Share, 7), (Transfer::Lend, 0)] {
            let handle = uncached(&a, transfer, &[(PAGE, 1), (SECOND, 1)]);
            b.accept_contiguous(handle, transfer, (WINDOW, 2)).unwrap();
            world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
            assert_eq!(a.words(rm_abi::extension::REVOKE, &by_handle(handle, 0)).0, 0);
            world.check();
            a.reclaim(handle, 0).unwrap();
            world.check();
            assert_eq!(memory(&world, A, PAGE), Some(MemoryType::WriteBack));
            assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(left), "{transfer:?}");
        }
    }
}

#[test]
fn an_owner_that_ends_gets_its_uncached_pages_back_as_zeros_everywhere() {
    for features in CPUS {
        let world = World::with_features(&[vm(3), vm(4)], features);
        let a = world.caller(A);
        let handle = uncached(&a, Transfer::Share, &[(PAGE, 1), (SECOND, 1)]);
        world.caller(B).accept_contiguous(handle, Transfer::Share, (WINDOW, 2)).unwrap();
        world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
        world.end(A);
        world.manager.begin_reset(A);
        world.settle(A, 100);
        world.check();
        assert_eq!(memory(&world, A, PAGE), Some(MemoryType::WriteBack));
        let machine = world.manager.machine();
        assert_eq!((machine.page(pa(PAGE))[0], machine.memory(pa(PAGE))[0]), (0, 0));
    }
}

#[test]
fn a_cached_parcel_costs_no_maintenance() {
    for (world, _) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        for attributes in [&[][..], &[(0, 4)], &[(3, 4)]] {
            let payload =
                offer(CreateFlags::empty(), acl(Transfer::Share), &[(PAGE, 1)], attributes);
            let handle = a.words(message::MEM_SHARE, &payload).1;
            b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
            assert_eq!(memory(&world, A, PAGE), Some(MemoryType::WriteBack));
            assert_eq!(memory(&world, B, WINDOW), Some(MemoryType::WriteBack));
            b.release(handle, 0).unwrap();
            a.reclaim(handle, 0).unwrap();
        }
        let counters = world.manager.machine().counters();
        assert_eq!((counters.cleaned, counters.zeroed), (0, 0));
        world.check();
    }
}

#[test]
fn a_vm_bypasses_the_caches_of_a_cached_parcel_only_without_s2fwb() {
    for features in CPUS {
        let world = World::with_features(&[vm(3), vm(4)], features);
        let (a, b) = (world.caller(A), world.caller(B));
        let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, 1)]).unwrap();
        b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
        world.cpu(A).write(Ipa(PAGE), 7).unwrap();
        let seen = if features.forced_write_back { 7 } else { 0 };
        assert_eq!(world.cpu(B).uncached().read(Ipa(WINDOW)), Ok(seen));
    }
}

fn accept_with(
    guest: &Guest<'_>,
    handle: u32,
    acl: &[(u16, u8)],
    attributes: &[(u16, u16)],
) -> u32 {
    let entry = |&(attribute, vmid)| AttributeEntry { attribute, vmid: Vmid(vmid) };
    let right =
        |&(vmid, rights)| rm_abi::AclEntry { vmid: Vmid(vmid), rights: rm_abi::Rights(rights) };
    let request = rm_abi::memparcel::accept::Accept {
        handle: Handle(handle),
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Share,
        flags: AcceptFlags::DONE | AcceptFlags::VALIDATE_ACL_ATTR,
        label: 0,
        acl: &acl.iter().map(right).collect::<Vec<_>>(),
        sgl: &[rm_abi::SglEntry { ipa: WINDOW, size: PAGE_SIZE }],
        attributes: &attributes.iter().map(entry).collect::<Vec<_>>(),
    };
    let mut payload = [0; 256];
    let length = request.encode(&mut payload).unwrap();
    guest.words(message::MEM_ACCEPT, &payload[..length]).0
}

#[test]
fn an_accept_that_expects_another_policy_is_refused() {
    for (world, _) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        let rights = acl(Transfer::Share);
        let handle = uncached(&a, Transfer::Share, &[(PAGE, 1)]);
        for expected in [&[][..], &[(0, 4)], &[(1, 4)], &[(3, 4)], &[(UNCACHED, 3)]] {
            assert_eq!(accept_with(&b, handle, rights, expected), 8, "{expected:?}");
            assert_eq!(memory(&world, B, WINDOW), None, "G4: nothing is mapped");
        }
        assert_eq!(accept_with(&b, handle, rights, &[(UNCACHED, 4)]), 0);
        world.check();
    }
}

const CACHED: Policy = Policy::Cached;

fn request(handle: u32, policy: Policy) -> Vec<u8> {
    let mut payload = vec![0; SetPolicyRequest::SIZE];
    SetPolicyRequest { handle: Handle(handle), policy }.encode(&mut payload).unwrap();
    payload
}

fn set_policy(guest: &Guest<'_>, handle: u32, policy: Policy) -> u32 {
    guest.words(SET_POLICY, &request(handle, policy)).0
}

#[test]
fn an_offered_share_changes_its_policy_and_back_for_its_owner_and_who_accepts_later() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        let before = world.check();
        for (ranges, pages) in some(RANGES, 3) {
            let (first, end) = (ranges[0].0, WINDOW + (pages - 1) * PAGE_SIZE);
            let (last, length) = ranges[ranges.len() - 1];
            let last = last + (length - 1) * PAGE_SIZE;
            let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], ranges).unwrap();
            world.cpu(A).write(Ipa(first), 1).unwrap();
            for (round, policy) in [Policy::Uncached, CACHED, Policy::Uncached].iter().enumerate() {
                assert_eq!(set_policy(&a, handle, *policy), 0);
                assert_eq!(set_policy(&a, handle, *policy), 0, "nothing is left to do");
                world.check();
                let kind = match policy {
                    Policy::Uncached => MemoryType::NonCacheable,
                    _ => MemoryType::WriteBack,
                };
                assert_eq!(memory(&world, A, last), Some(kind));
                assert!(world.manager.allows(A, Ipa(first), Access::Write).is_some());
                assert!(world.manager.allows(A, Ipa(first), Access::Execute).is_none());
                let round = round as u8 + 1;
                assert_eq!(world.cpu(A).read(Ipa(first)), Ok(round));
                b.accept_contiguous(handle, Transfer::Share, (WINDOW, pages)).unwrap();
                assert_eq!(memory(&world, B, end), Some(kind));
                assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(round));
                world.cpu(B).write(Ipa(WINDOW), round + 1).unwrap();
                assert_eq!(set_policy(&a, handle, Policy::Uncached), 0xb, "B holds it");
                assert_eq!(set_policy(&a, handle, CACHED), 0xb, "B holds it");
                assert_eq!(memory(&world, A, last), Some(kind), "G4: as it was");
                b.release(handle, 0).unwrap();
            }
            a.reclaim(handle, 0).unwrap();
            world.check();
            assert_eq!(world.cpu(A).read(Ipa(first)), Ok(4));
        }
        while world.manager.idle(A) || world.manager.idle(B) {}
        assert_eq!(world.check(), before);
    }
}

#[test]
fn a_lend_changes_what_its_borrower_will_get_and_keeps_its_content() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        world.cpu(A).write(Ipa(PAGE), 1).unwrap();
        let handle = a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE, 1), (SECOND, 2)]).unwrap();
        for (round, policy) in [(1, Policy::Uncached), (2, CACHED), (3, Policy::Uncached)] {
            assert_eq!(set_policy(&a, handle, policy), 0);
            assert_eq!(memory(&world, A, PAGE), None, "it stays lent");
            b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 3)).unwrap();
            world.check();
            assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(round));
            world.cpu(B).write(Ipa(WINDOW), round + 1).unwrap();
            b.release(handle, 0).unwrap();
        }
        a.reclaim(handle, 0).unwrap();
        world.check();
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(4));
    }
}

#[test]
fn a_change_of_policy_does_not_wipe_what_a_later_reclaim_will() {
    let (world, _) = worlds().next().unwrap();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = uncached(&a, Transfer::Share, &[(PAGE, 1)]);
    b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
    world.cpu(B).write(Ipa(WINDOW), 7).unwrap();
    b.release(handle, 1).unwrap();
    assert_eq!(set_policy(&a, handle, CACHED), 0);
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(7));
    a.reclaim(handle, 0).unwrap();
    assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(0));
}

#[test]
fn who_checks_attributes_finds_those_of_the_new_policy() {
    let (world, _) = worlds().next().unwrap();
    let (a, b) = (world.caller(A), world.caller(B));
    let rights = acl(Transfer::Share);
    let handle = a.offer(Transfer::Share, rights, &[(PAGE, 1)]).unwrap();
    set_policy(&a, handle, Policy::Uncached);
    assert_eq!(accept_with(&b, handle, rights, &[]), 8);
    assert_eq!(accept_with(&b, handle, rights, &[(UNCACHED, 4), (UNCACHED, 3)]), 8, "in order");
    assert_eq!(accept_with(&b, handle, rights, &[(UNCACHED, 3), (UNCACHED, 4)]), 0);
    b.release(handle, 0).unwrap();
    set_policy(&a, handle, CACHED);
    assert_eq!(accept_with(&b, handle, rights, &[(UNCACHED, 3), (UNCACHED, 4)]), 8);
    assert_eq!(accept_with(&b, handle, rights, &[]), 0);
}

#[test]
fn an_unfinished_parcel_changes_its_policy_for_the_pages_it_has_and_will_get() {
    for (world, step) in worlds() {
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        let payload = offer(CreateFlags::APPEND, acl(Transfer::Share), &[(PAGE, 1)], &[]);
        let handle = a.words(message::MEM_SHARE, &payload).1;
        world.cpu(A).write(Ipa(PAGE), 1).unwrap();
        world.cpu(A).write(Ipa(SECOND), 2).unwrap();
        assert_eq!(set_policy(&b, handle, Policy::Uncached), 7, "G6: B knows of nothing");
        assert_eq!(set_policy(&a, handle, Policy::Uncached), 0);
        a.append(handle, true, &[(SECOND, 1)]).unwrap();
        b.accept_contiguous(handle, Transfer::Share, (WINDOW, 2)).unwrap();
        world.check();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW)), Ok(1));
        assert_eq!(world.cpu(B).read(Ipa(WINDOW + PAGE_SIZE)), Ok(2));
    }
}

#[test]
fn g4_who_may_not_change_a_policy_is_refused_and_changes_nothing() {
    let (world, _) = worlds().next().unwrap();
    let (a, b, stranger) = (world.caller(A), world.caller(B), world.caller(VmIndex(2)));
    let handle = a.offer(Transfer::Share, acl(Transfer::Share), &[(PAGE, 1)]).unwrap();
    let uncached = request(handle, Policy::Uncached);
    assert_eq!(b.words(SET_POLICY, &uncached).0, 3, "a borrower");
    assert_eq!(stranger.words(SET_POLICY, &uncached).0, 7, "a stranger");
    assert_eq!(set_policy(&a, handle + 0x2000, Policy::Uncached), 7, "no parcel");
    assert_eq!(a.words(SET_POLICY, &uncached[..7]).0, 4, "too short");
    assert_eq!(set_policy(&a, handle, Policy::Device), 6, "RAM is no device");
    assert_eq!(a.last_refusal().rule, Rule::Policy as u16);
    for number in [0, 3, 8, 0x102] {
        let mut bytes = uncached.clone();
        bytes[4..].copy_from_slice(&u32::to_le_bytes(number));
        assert_eq!(a.words(SET_POLICY, &bytes).0, 6, "{number:#x} is no policy");
    }
    let given = a.offer(Transfer::Donate, &[(4, 7)], &[(SECOND, 1)]).unwrap();
    assert_eq!(set_policy(&a, given, Policy::Uncached), 6, "a donation");
    assert_eq!(set_policy(&a, given, CACHED), 0, "it has this one");
    assert_eq!(memory(&world, A, PAGE), Some(MemoryType::WriteBack));
    b.accept(handle, Transfer::Share, &[(WINDOW, 1)]).unwrap();
    assert_eq!(set_policy(&a, handle, Policy::Uncached), 0xb);
    assert_eq!(a.last_refusal().holders(), [Vmid(4)]);
    assert_eq!(a.words(rm_abi::extension::REVOKE, &by_handle(handle, 0)).0, 0);
    assert_eq!(set_policy(&a, handle, Policy::Uncached), 3, "it is over");
    assert_eq!(memory(&world, A, PAGE), Some(MemoryType::WriteBack));
    assert_eq!(world.manager.machine().counters().cleaned, 0);
    world.check();
}

#[test]
fn while_a_policy_changes_nobody_begins_anything_with_the_parcel() {
    for transfer in some([Transfer::Share, Transfer::Lend], 2) {
        let (world, _) = worlds().next().unwrap();
        let (a, b) = (world.caller(A), world.caller(B));
        world.cpu(A).write(Ipa(BLOCK), 7).unwrap();
        let (many, least) = few((512, 200), (40, 20));
        let handle = a.offer(transfer, acl(transfer), &[(PAGE, 1), (BLOCK, many)]).unwrap();
        a.step.set(1);
        let beside = world.caller(A);
        let mut turn = a.send(SET_POLICY, &request(handle, Policy::Uncached));
        let mut steps = 0;
        while let Turn::More(token) = turn {
            steps += 1;
            if steps % few(50, 20) == 1 {
                assert_eq!(b.accept_contiguous(handle, transfer, (WINDOW, many + 1)), Err(5));
                assert_eq!(b.release(handle, 0), Err(0xc));
                assert_eq!(beside.reclaim(handle, 0), Err(5));
                assert!(world.manager.audit().is_err(), "a call is at work");
                world.manager.machine().check_no_stale();
            }
            turn = a.resume(token);
        }
        assert_eq!(turn, Turn::Reply(vec![0; 4]));
        assert!(steps > least, "only {steps} steps for {many} pages");
        b.accept_contiguous(handle, transfer, (WINDOW, many + 1)).unwrap();
        world.check();
        assert_eq!(world.cpu(B).read(Ipa(WINDOW + PAGE_SIZE)), Ok(7));
    }
}

#[test]
fn an_owner_that_ends_while_a_policy_changes_leaves_nothing_behind() {
    for (cut, features) in some([0, 1, 2, 300].into_iter().zip(CPUS.into_iter().cycle()), 3) {
        let world = World::with_features(&[vm(3), vm(4)], features);
        let before = world.check();
        let (a, b) = (world.caller(A), world.caller(B));
        world.cpu(A).write(Ipa(BLOCK), 7).unwrap();
        let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, 1), (BLOCK, 512)]);
        a.step.set(1);
        let mut turn = a.send(SET_POLICY, &request(handle.unwrap(), Policy::Uncached));
        for _ in 0..cut {
            let Turn::More(token) = turn else { panic!("it takes more steps") };
            turn = a.resume(token);
        }
        world.end(A);
        world.manager.begin_reset(A);
        world.settle(A, 100);
        assert_eq!(b.accept_contiguous(handle.unwrap(), Transfer::Share, (WINDOW, 513)), Err(7));
        assert_eq!(world.check(), before);
        assert_eq!(world.manager.machine().memory(pa(BLOCK))[0], 0);
    }
}
