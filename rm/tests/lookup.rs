//! MEM_LOOKUP: what matches a description and what does not, as the running original answered
//! (hypervisor 36ca3a2, resource manager bf31a9a, under QEMU), and that the walk holds up while
//! parcels come and go.

use rm::address::VmIndex;
use rm::machine::fake::world::{Guest, RAM, Turn, World, offer, vm};
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::{
    AclEntry, AttributeEntry, CreateFlags, MemoryKind, Rights, SglEntry, Transfer, Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;
const RUNS: [(u64, u64); 2] = [(PAGE, 1), (PAGE + 0x2000, 1)];
const ACL: [(u16, u8); 2] = [(3, 6), (4, 6)];

/// A description with every field.
fn described(
    memory: u8,
    acl: &[(u16, u8)],
    runs: &[(u64, u64)],
    attributes: &[(u16, u16)],
) -> Vec<u8> {
    let acl =
        acl.iter().map(|&(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) });
    let sgl = runs.iter().map(|&(ipa, pages)| SglEntry { ipa, size: pages * 4096 });
    let named = |&(attribute, vmid): &(u16, u16)| AttributeEntry { attribute, vmid: Vmid(vmid) };
    let request = Lookup {
        memory: MemoryKind(memory),
        label: 0x45,
        acl: &acl.collect::<Vec<_>>(),
        sgl: &sgl.collect::<Vec<_>>(),
        attributes: &attributes.iter().map(named).collect::<Vec<_>>(),
    };
    let mut payload = vec![0; 14_616];
    let length = request.encode(&mut payload).expect("the request fits");
    payload.truncate(length);
    payload
}

/// The handle that a description leads to, or the error word.
fn find(guest: &Guest<'_>, payload: &[u8]) -> Result<u32, u32> {
    match guest.words(message::MEM_LOOKUP, payload) {
        (0, handle) => Ok(handle),
        (error, _) => Err(error),
    }
}

#[test]
fn a_parcel_is_found_by_all_that_its_description_compares() {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(Transfer::Share, &ACL, &RUNS).unwrap();
    let same = described(0, &ACL, &RUNS, &[]);
    let many: Vec<_> = (0..17).map(|vmid| (vmid + 3, 6)).collect();
    assert_eq!(find(&a, &same), Ok(handle), "the label differs, which is not compared");
    assert_eq!(find(&a, &same[..same.len() - 4]), Ok(handle), "the attribute list may be absent");
    let rows = [
        ("another order of VMs", described(0, &[ACL[1], ACL[0]], &RUNS, &[])),
        ("other rights", described(0, &[ACL[0], (4, 7)], &RUNS, &[])),
        ("fewer VMs", described(0, &ACL[..1], &RUNS, &[])),
        ("seventeen VMs", described(0, &many, &RUNS, &[])),
        ("another order of ranges", described(0, &ACL, &[RUNS[1], RUNS[0]], &[])),
        ("fewer ranges", described(0, &ACL, &RUNS[..1], &[])),
        ("another size", described(0, &ACL, &[RUNS[0], (RUNS[1].0, 2)], &[])),
        ("an attribute", described(0, &ACL, &RUNS, &[(0, 4)])),
        ("device memory", described(1, &ACL, &RUNS, &[])),
        ("another number for RAM", described(5, &ACL, &RUNS, &[])),
        ("no list", described(0, &[], &[], &[])),
        ("no list at all", same[..8].iter().copied().chain([0; 8]).collect()),
    ];
    for (what, payload) in rows {
        assert_eq!(find(&a, &payload), Err(0xe), "{what}");
    }
    for (what, length) in [("fifteen bytes", 15), ("an ACL without entries", 12)] {
        assert_eq!(find(&a, &same[..length]), Err(4), "{what}");
    }
    assert_eq!(find(&a, &[&same[..], &[0; 4]].concat()), Err(4), "bytes behind the lists");
    assert_eq!(find(&b, &same), Err(0xe), "a borrower's");

    b.accept_contiguous(handle, Transfer::Share, (WINDOW, 2)).unwrap();
    assert_eq!(find(&a, &same), Err(0xe), "somebody holds it");
    b.release(handle, 0).unwrap();
    assert_eq!(find(&a, &same), Ok(handle));
    a.reclaim(handle, 0).unwrap();
    assert_eq!(find(&a, &same), Err(0xe), "it is gone");
}

#[test]
fn an_unfinished_parcel_is_not_found_and_attributes_are_compared_in_order() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    let request = offer(CreateFlags::APPEND, &ACL, &RUNS[..1], &[(2, 4), (2, 3)]);
    let (_, handle) = a.words(message::MEM_SHARE, &request);
    let same = described(0, &ACL, &RUNS, &[(2, 4), (2, 3)]);
    assert_eq!(find(&a, &described(0, &ACL, &RUNS[..1], &[(2, 4), (2, 3)])), Err(0xe));
    a.append(handle, true, &RUNS[1..]).unwrap();
    assert_eq!(find(&a, &same), Ok(handle));
    assert_eq!(find(&a, &described(0, &ACL, &RUNS, &[(2, 3), (2, 4)])), Err(0xe));
}

#[test]
fn runs_are_compared_as_the_machine_has_them() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    // Two entries that are one run to the machine stay two, as they were offered.
    let handle = a.offer(Transfer::Lend, &ACL[1..], &[(PAGE, 1), (PAGE + 4096, 1)]).unwrap();
    assert_eq!(find(&a, &described(0, &ACL[1..], &[(PAGE, 2)], &[])), Err(0xe));
    let split = described(0, &ACL[1..], &[(PAGE, 1), (PAGE + 4096, 1)], &[]);
    assert_eq!(find(&a, &split), Ok(handle));
}

/// Six parcels of A, each of `pages` pages that lie apart.
fn crowd(world: &World, pages: u64) -> Vec<(u32, Vec<(u64, u64)>)> {
    let runs = |index: u64| -> Vec<_> {
        (0..pages).map(|page| (PAGE + (index * 200 + page * 2) * 4096, 1)).collect()
    };
    let offered = (0..6).map(|index| {
        let runs = runs(index);
        (world.caller(A).offer(Transfer::Lend, &ACL[1..], &runs).unwrap(), runs)
    });
    offered.collect()
}

#[test]
fn one_of_many_parcels_is_found_in_steps_of_one_unit() {
    let world = World::new(&[vm(3), vm(4)]);
    let a = world.caller(A);
    a.step.set(1);
    for (handle, runs) in crowd(&world, 60) {
        assert_eq!(find(&a, &described(0, &ACL[1..], &runs, &[])), Ok(handle));
    }
}

/// What a search for a parcel of twelve runs comes to, when `change` happens in its middle.
fn changed(change: impl FnOnce(&World, u32, &[(u64, u64)])) -> Turn {
    let world = World::new(&[vm(3), vm(4)]);
    let parcels = crowd(&world, 12);
    let (handle, runs) = &parcels[2];
    let guest = world.caller(A);
    guest.step.set(1);
    let payload = described(0, &ACL[1..], runs, &[]);
    let Turn::More(token) = guest.send(message::MEM_LOOKUP, &payload) else {
        panic!("a search in steps of one unit is long")
    };
    // Two parcels, the third, and the first of its runs.
    for _ in 0..8 {
        assert_eq!(guest.resume(token), Turn::More(token));
    }
    change(&world, *handle, runs);
    let mut turn = guest.resume(token);
    while let Turn::More(_) = turn {
        turn = guest.resume(token);
    }
    turn
}

#[test]
fn a_parcel_that_changes_under_the_search_is_not_found() {
    let not_found = Turn::Reply(vec![0xe, 0, 0, 0]);
    let accepted = changed(|world, handle, _| {
        let b = world.caller(B);
        b.accept_contiguous(handle, Transfer::Lend, (WINDOW, 12)).unwrap();
    });
    assert_eq!(accepted, not_found);
    let gone = changed(|world, handle, _| {
        world.caller(A).reclaim(handle, 0).unwrap();
    });
    assert_eq!(gone, not_found);
    let replaced = changed(|world, handle, runs| {
        world.caller(A).reclaim(handle, 0).unwrap();
        // The record is another parcel's now, which has fewer extents than the search has seen.
        world.caller(A).offer(Transfer::Lend, &ACL[1..], &runs[..1]).unwrap();
    });
    assert_eq!(replaced, not_found);
    assert!(matches!(changed(|_, _, _| {}), Turn::Reply(reply) if reply.len() == 8));
}
