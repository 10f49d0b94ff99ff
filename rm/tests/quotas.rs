//! A VM at a limit: the code on the wire, that nothing changed, and what LAST_REFUSAL says ran out.
//!
//! Each case runs as a short call and in steps of one unit, because a quota is charged in different
//! places then.

use rm::address::VmIndex;
use rm::config::VmConfig;
use rm::machine::fake::world::{Guest, RAM, World, offer, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm_abi::extension::{LastRefusal, Resource, Rule};
use rm_abi::{CreateFlags, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: u64 = 0x9000_0000;

/// A with changed limits, and B, which can always lend to it.
fn limited(change: impl Fn(&mut Quotas)) -> World {
    let mut quotas = vm(3).quotas;
    change(&mut quotas);
    World::new(&[VmConfig { quotas, ..vm(3) }, vm(4)])
}

/// Lets A make a call that must be refused for want of `resource`, and that it changes nothing.
fn refused(
    world: &World,
    (resource, used, limit): (Resource, u64, u64),
    call: impl Fn(&Guest<'_>) -> Result<u32, u32>,
) {
    let (code, rule) = match resource {
        Resource::Frames => (1, Rule::NoFrame),
        _ => (2, Rule::Quota),
    };
    let a = world.caller(A);
    for step in [STEP, 1] {
        a.step.set(step);
        while world.manager.idle(A) {}
        let before = world.check();
        assert_eq!(call(&a), Err(code), "{resource}");
        let last = a.last_refusal();
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "G4: {resource}");
        let expected = LastRefusal {
            message: last.message,
            sequence: 7,
            rule: rule as u16,
            error: code,
            resource: resource as u16,
            used,
            limit,
            ..LastRefusal::NONE
        };
        assert_eq!(last, expected, "{resource}");
    }
}

/// A lends single pages that lie apart.
fn lend_apart(guest: &Guest<'_>, from: u64, count: u64) -> Result<u32, u32> {
    let runs: Vec<_> = (0..count).map(|page| (from + page * 0x2000, 1)).collect();
    guest.offer(Transfer::Lend, &[(4, 6)], &runs)
}

#[test]
fn parcels() {
    let world = limited(|quotas| quotas.parcels = 2);
    let a = world.caller(A);
    let first = lend_apart(&a, PAGE, 1).unwrap();
    lend_apart(&a, PAGE + 0x10_0000, 1).unwrap();
    let usage = (Resource::Parcels, 2, 2);
    refused(&world, usage, |a| lend_apart(a, PAGE + 0x20_0000, 1));
    refused(&world, usage, |a| lend_apart(a, PAGE + 0x20_0000, 3));
    a.reclaim(first, 0).unwrap();
    lend_apart(&a, PAGE, 3).expect("a reclaim makes room");
}

#[test]
fn pages_lent() {
    let world = limited(|quotas| quotas.pages_lent = 8);
    let a = world.caller(A);
    let first = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, 5)]).unwrap();
    let usage = (Resource::PagesLent, 5, 8);
    refused(&world, usage, |a| lend_apart(a, PAGE + 0x10_0000, 4));
    refused(&world, usage, |a| a.offer(Transfer::Lend, &[(4, 6)], &[(PAGE + 0x10_0000, 4)]));
    a.reclaim(first, 0).unwrap();
    lend_apart(&a, PAGE, 8).expect("a reclaim makes room");
    // What was accepted as a donation is the new owner's, and burdens the old one no more.
    let world = limited(|quotas| quotas.pages_lent = 8);
    let a = world.caller(A);
    let given = a.offer(Transfer::Donate, &[(4, 7)], &[(PAGE, 8)]).unwrap();
    world.caller(B).accept_contiguous(given, Transfer::Donate, (WINDOW, 8)).unwrap();
    lend_apart(&a, PAGE + 0x10_0000, 8).unwrap();
}

#[test]
fn pages_accepted() {
    let world = limited(|quotas| quotas.pages_accepted = 4);
    let (a, b) = (world.caller(A), world.caller(B));
    let lend = |at, pages| b.offer(Transfer::Lend, &[(3, 6)], &[(at, pages)]).unwrap();
    let (three, two) = (lend(PAGE, 3), lend(PAGE + 0x10_0000, 2));
    a.accept_contiguous(three, Transfer::Lend, (WINDOW, 3)).unwrap();
    let place = (WINDOW + 0x10_0000, 2);
    let usage = (Resource::PagesAccepted, 3, 4);
    refused(&world, usage, |a| a.accept_contiguous(two, Transfer::Lend, place));
    refused(&world, usage, |a| a.accept(two, Transfer::Lend, &[place]));
    a.release(three, 0).unwrap();
    a.accept_contiguous(two, Transfer::Lend, place).expect("a release makes room");
}

#[test]
fn extents() {
    let world = limited(|quotas| quotas.extents = 5);
    let a = world.caller(A);
    let first = lend_apart(&a, PAGE, 3).unwrap();
    refused(&world, (Resource::Extents, 3, 5), |a| lend_apart(a, PAGE + 0x10_0000, 3));
    lend_apart(&a, PAGE + 0x10_0000, 2).unwrap();
    let one = |a: &Guest<'_>| lend_apart(a, PAGE + 0x20_0000, 1);
    refused(&world, (Resource::Extents, 5, 5), one);
    a.reclaim(first, 0).unwrap();
    one(&a).expect("a reclaim makes room");
}

#[test]
fn unfinished_parcels() {
    let world = limited(|quotas| quotas.unfinished = 1);
    let begin = |a: &Guest<'_>, at| {
        let request = offer(CreateFlags::APPEND, &[(4, 6)], &[(at, 1)], &[]);
        match a.words(message::MEM_LEND, &request) {
            (0, handle) => Ok(handle),
            (error, _) => Err(error),
        }
    };
    let a = world.caller(A);
    let handle = begin(&a, PAGE).unwrap();
    let usage = (Resource::Unfinished, 1, 1);
    refused(&world, usage, |a| begin(a, PAGE + 0x10_0000));
    lend_apart(&a, PAGE + 0x10_0000, 1).expect("a finished one is no matter");
    a.append(handle, true, &[(PAGE + 0x2000, 1)]).unwrap();
    let second = begin(&a, PAGE + 0x20_0000).expect("END makes room");
    refused(&world, usage, |a| begin(a, PAGE + 0x30_0000));
    a.reclaim(second, 0).unwrap();
    begin(&a, PAGE + 0x20_0000).expect("a reclaim makes room");
}

/// A lends a page of each of `count` blocks from block `first` on.
fn blocks_from(a: &Guest<'_>, first: u64, count: u64) -> Result<u32, u32> {
    let runs: Vec<_> =
        (first..first + count).map(|block| (RAM.0 + 0x1000 + (block << 21), 1)).collect();
    a.offer(Transfer::Lend, &[(4, 6)], &runs)
}

#[test]
fn frames() {
    // Root and two tables on the way to the VM's pages. Each page that is lent lies in another block,
    // which has to be cut, and a list of more than four takes a frame too.
    let world = limited(|quotas| (quotas.frames, quotas.frames_reserved) = (9, 9));
    let used = || u64::from(world.manager.frames_used(A));
    refused(&world, (Resource::Frames, used(), 9), |a| blocks_from(a, 0, 8));
    let handle = blocks_from(&world.caller(A), 0, 3).unwrap();
    let more = 9 - used() + 1;
    refused(&world, (Resource::Frames, used(), 9), |a| blocks_from(a, 3, more));
    world.caller(A).reclaim(handle, 0).unwrap();
    blocks_from(&world.caller(A), 3, more).expect("a reclaim makes room");
}

#[test]
fn unread_news_of_a_borrower_names_the_resource_and_nothing_of_the_borrower() {
    let world = limited(|_| {});
    let a = world.caller(A);
    let lend = |at| a.offer(Transfer::Lend, &[(4, 6)], &[(at, 1)]);
    let recall = |handle: u32| {
        let head = [&handle.to_le_bytes()[..], &[8, 0, 0, 0, 0, 0, 0, 0]].concat();
        let targets = [&head[..], &[1, 0, 0, 0, 4, 0, 0, 0]].concat();
        assert_eq!(a.words(message::MEM_NOTIFY, &targets).0, 0);
    };
    // Eight fill B's queue; what follows waits, and outlives its parcel.
    for _ in 0..8 + 32 {
        let handle = lend(PAGE).unwrap();
        recall(handle);
        a.reclaim(handle, 0).unwrap();
    }
    assert_eq!(lend(PAGE), Err(2));
    let last = a.last_refusal();
    assert_eq!((last.rule, last.resource), (Rule::Quota as u16, Resource::Unread as u16));
    assert_eq!((last.used, last.limit, last.holders()), (0, 0, &[][..]));
    world.caller(B).packets();
    lend(PAGE).expect("B has read its news");
}
