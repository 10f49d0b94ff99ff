//! Guarantees, shared pools, and that giving up needs neither.
//!
//! Of each resource A is guaranteed one and may use twenty, B is guaranteed three and may use five, and
//! four are there to share. A takes all it can get; B must not notice before it wants more than its
//! guarantee.

use rm::address::VmIndex;
use rm::config::{BootError, VmConfig};
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, HANDLES, RAM, World, by_handle, offer, vm};
use rm::operation::STEP;
use rm::quota::{Amounts, Quotas};
use rm_abi::extension::{LIMITS, Limit, LimitsRequest, REVOKE, Resource, Rule};
use rm_abi::memparcel::notify::Notify;
use rm_abi::{CreateFlags, Handle, NotifyFlag, Transfer, Vmid, VmidEntry, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const WINDOW: u64 = 0x9000_0000;

const fn page(number: u64) -> u64 {
    RAM.0 + 0x1000 * number
}

/// A's and B's limits, the guarantees of both, and the pools' sizes, by a change for each resource.
struct Plan {
    resource: Resource,
    limit: fn(&mut Quotas, u32),
    amount: fn(&mut Amounts, u64),
}

impl Plan {
    fn vm(&self, vmid: u16, guaranteed: u64, limit: u32) -> VmConfig {
        let mut config = vm(vmid);
        (self.limit)(&mut config.quotas, limit);
        (self.amount)(&mut config.quotas.guaranteed, guaranteed);
        config
    }

    /// A, B, and C, which has all that the others need from a peer.
    fn world(&self) -> World {
        let mut shared = Amounts::NONE;
        (self.amount)(&mut shared, 4);
        World::with_shared(&[self.vm(3, 1, 20), self.vm(4, 3, 5), vm(5)], shared, 400).unwrap()
    }

    /// A drains the pool with `take`, B takes what it is guaranteed, and then what A gives back.
    fn drain(
        &self,
        take: impl Fn(&World, &Guest<'_>, u64) -> Result<u32, u32>,
        give: impl Fn(&World, &Guest<'_>, u32),
    ) {
        for step in some([STEP, 1], 3) {
            let world = self.world();
            let (a, b) = (world.caller(A), world.caller(B));
            a.step.set(step);
            b.step.set(step);
            let mut number = 0;
            let mut next = |guest: &Guest<'_>| {
                number += 2;
                take(&world, guest, number)
            };
            let refused = |guest: &Guest<'_>, (rule, used, limit): (Rule, u64, u64)| {
                let last = guest.last_refusal();
                let told = (last.rule, last.resource, last.used, last.limit);
                assert_eq!(told, (rule as u16, self.resource as u16, used, limit), "{step}");
            };
            let mut held: Vec<_> = (0..5).map(|_| next(&a).unwrap()).collect();
            assert_eq!(next(&a), Err(2), "{}", self.resource);
            refused(&a, (Rule::SharedQuota, 5, 20));
            let mut of_b: Vec<_> = (0..3).map(|_| next(&b).expect("it is guaranteed")).collect();
            assert_eq!(next(&b), Err(2), "{}", self.resource);
            refused(&b, (Rule::SharedQuota, 3, 5));
            // What is within the guarantee can go and come any number of times.
            for _ in 0..20 {
                give(&world, &b, of_b.pop().unwrap());
                assert_eq!(next(&a), Err(2), "G7: a guarantee is no part of the pool");
                of_b.push(next(&b).expect("it is guaranteed"));
            }
            for _ in 0..2 {
                give(&world, &a, held.pop().unwrap());
                of_b.push(next(&b).expect("A has given one back"));
            }
            assert_eq!(next(&b), Err(2), "{}", self.resource);
            refused(&b, (Rule::Quota, 5, 5));
            for handle in of_b {
                give(&world, &b, handle);
            }
            held.extend([next(&a).unwrap(), next(&a).unwrap()]);
            assert_eq!(next(&a), Err(2), "B has given back to the pool what it had from there");
            world.check();
            held.into_iter().for_each(|handle| give(&world, &a, handle));
            world.check();
        }
    }
}

fn lend(_: &World, guest: &Guest<'_>, number: u64) -> Result<u32, u32> {
    guest.offer(Transfer::Lend, &[(5, 6)], &[(page(number), 1)])
}

fn reclaim(_: &World, guest: &Guest<'_>, handle: u32) {
    guest.reclaim(handle, 0).unwrap();
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_parcels_changes_nothing_within_a_guarantee() {
    Plan {
        resource: Resource::Parcels,
        limit: |quotas, limit| quotas.parcels = limit,
        amount: |of, amount| of.parcels = amount,
    }
    .drain(lend, reclaim);
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_pages_to_lend_changes_nothing_within_a_guarantee() {
    Plan {
        resource: Resource::PagesLent,
        limit: |quotas, limit| quotas.pages_lent = limit.into(),
        amount: |of, amount| of.pages_lent = amount,
    }
    .drain(lend, reclaim);
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_extents_changes_nothing_within_a_guarantee() {
    Plan {
        resource: Resource::Extents,
        limit: |quotas, limit| quotas.extents = limit.into(),
        amount: |of, amount| of.extents = amount,
    }
    .drain(lend, reclaim);
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_pages_to_accept_changes_nothing_within_a_guarantee() {
    let plan = Plan {
        resource: Resource::PagesAccepted,
        limit: |quotas, limit| quotas.pages_accepted = limit.into(),
        amount: |of, amount| of.pages_accepted = amount,
    };
    let take = |world: &World, guest: &Guest<'_>, number: u64| {
        let (c, vmid) = (world.caller(C), u16::from(guest.vm.0) + 3);
        let handle = c.offer(Transfer::Lend, &[(vmid, 6)], &[(page(number), 1)]).unwrap();
        let place = (WINDOW + number * 0x1000, 1);
        let accepted = guest.accept_contiguous(handle, Transfer::Lend, place);
        accepted.map(|_| handle).inspect_err(|_| assert_eq!(c.reclaim(handle, 0), Ok(0)))
    };
    plan.drain(take, |world, guest, handle| {
        guest.release(handle, 0).unwrap();
        world.caller(C).packets();
        world.caller(C).reclaim(handle, 0).unwrap();
    });
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_creations_changes_nothing_within_a_guarantee() {
    let plan = Plan {
        resource: Resource::Unfinished,
        limit: |quotas, limit| quotas.unfinished = limit,
        amount: |of, amount| of.unfinished = amount,
    };
    let begin = |_: &World, guest: &Guest<'_>, number| {
        let request = offer(CreateFlags::APPEND, &[(5, 6)], &[(page(number), 1)], &[]);
        match guest.words(message::MEM_LEND, &request) {
            (0, handle) => Ok(handle),
            (error, _) => Err(error),
        }
    };
    plan.drain(begin, reclaim);
}

/// C leaves a piece of news for a VM of a parcel that is gone; refused if that VM leaves too much unread.
fn leave_news(c: &Guest<'_>, vmid: u16) -> Result<(), u32> {
    let handle = c.offer(Transfer::Lend, &[(vmid, 6)], &[(page(7), 1)])?;
    let targets = [VmidEntry(Vmid(vmid))];
    let mut bytes = [0; 64];
    let recall =
        Notify { handle: Handle(handle), flag: NotifyFlag::Recall, tag: 0, targets: &targets };
    let length = recall.encode(&mut bytes).unwrap();
    assert_eq!(c.words(message::MEM_NOTIFY, &bytes[..length]).0, 0);
    c.reclaim(handle, 0).map(drop)
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_unread_news_changes_nothing_within_a_guarantee() {
    let plan = Plan {
        resource: Resource::Unread,
        limit: |quotas, limit| quotas.unread = limit,
        amount: |of, amount| of.unread = amount,
    };
    let world = plan.world();
    let (b, c) = (world.caller(B), world.caller(C));
    let leave = |vmid, count| (0..count).for_each(|_| leave_news(&c, vmid).unwrap());
    // Eight fill a queue, and what is in a queue is not counted.
    leave(3, 8 + 5);
    assert_eq!(leave_news(&c, 3), Err(2));
    leave(4, 8 + 3);
    assert_eq!(leave_news(&c, 4), Err(2));
    let last = c.last_refusal();
    assert_eq!((last.rule, last.resource), (Rule::Quota as u16, Resource::Unread as u16));
    // B reads, and is told of more, as often as it likes.
    for _ in 0..20 {
        b.queue_receive().unwrap();
        assert_eq!(leave_news(&c, 3), Err(2), "G7: a guarantee is no part of the pool");
        leave(4, 1);
        assert_eq!(leave_news(&c, 4), Err(2));
    }
    world.caller(A).queue_receive().unwrap();
    leave(4, 1);
    assert_eq!(leave_news(&c, 4), Err(2));
    assert_eq!(b.packets().len(), 8 + 4, "nothing was lost");
    leave(3, 1);
    world.check();
}

/// A lends a page of each of `count` blocks from block `first` on.
fn blocks(guest: &Guest<'_>, first: u64, count: u64) -> Result<u32, u32> {
    let runs: Vec<_> = (first..first + count).map(|block| (page(1 + block * 512), 1)).collect();
    guest.offer(Transfer::Lend, &[(5, 6)], &runs)
}

#[test]
fn g7_a_vm_that_has_drained_the_shared_frames_changes_nothing_within_a_guarantee() {
    let frames = |vmid, reserved, limit| {
        let quotas = Quotas { frames: limit, frames_reserved: reserved, ..vm(vmid).quotas };
        VmConfig { quotas, ..vm(vmid) }
    };
    let vms = [frames(3, 9, 100), frames(4, 10, 11), vm(5)];
    let world = World::with_shared(&vms, Amounts::NONE, 1).unwrap();
    let (a, b) = (world.caller(A), world.caller(B));
    let refused = |guest: &Guest<'_>, (rule, used, limit): (Rule, u64, u64)| {
        let last = guest.last_refusal();
        let told = (last.rule, last.resource, last.used, last.limit);
        assert_eq!(told, (rule as u16, Resource::Frames as u16, used, limit));
    };
    let drain = |guest: &Guest<'_>| {
        let all = (1..).map_while(|block| blocks(guest, block, 1).ok());
        all.collect::<Vec<_>>()
    };
    // Two lists, so that frames run out before blocks do.
    for guest in [&a, &b] {
        for first in [101, 201] {
            let six: Vec<_> = (0..6).map(|n| (page(first + 2 * n), 1)).collect();
            guest.offer(Transfer::Lend, &[(5, 6)], &six).unwrap();
        }
    }
    let held = drain(&a);
    assert_eq!(blocks(&a, 7, 1), Err(1));
    refused(&a, (Rule::SharedQuota, 10, 100));
    // B gets every frame that it is guaranteed, for whatever it wants it, and however often.
    let before = u64::from(world.manager.frames_used(B));
    for round in 0..5 {
        let mine = drain(&b);
        assert_eq!(mine.len() as u64, 10 - before, "round {round}");
        refused(&b, (Rule::SharedQuota, 10, 11));
        mine.into_iter().for_each(|handle| assert_eq!(b.reclaim(handle, 0), Ok(0)));
        assert_eq!(u64::from(world.manager.frames_used(B)), before, "its tables can merge");
        // Six extents take a frame for their list while all frames are mergeable tables of B's.
        let six: Vec<_> = (0..6).map(|n| (page(1 + 2 * n), 1)).collect();
        let listed = b.offer(Transfer::Lend, &[(5, 6)], &six).expect("it is guaranteed");
        b.reclaim(listed, 0).unwrap();
        let both = blocks(&b, 0, 5).expect("list and tables together are");
        b.reclaim(both, 0).unwrap();
    }
    assert_eq!(blocks(&a, 7, 1), Err(1), "none of that came to A");
    a.reclaim(held[0], 0).unwrap();
    while world.manager.idle(A) {}
    let mine = drain(&b);
    assert_eq!(mine.len() as u64, 10 - before + 1, "what A has given back");
    world.check();
}

#[test]
fn a_long_message_finds_the_frames_that_a_vm_is_guaranteed_in_its_mergeable_tables() {
    let quotas = Quotas { frames: 9, frames_reserved: 9, ..vm(3).quotas };
    let world =
        World::with_shared(&[VmConfig { quotas, ..vm(3) }, vm(5)], Amounts::NONE, 0).unwrap();
    let a = world.caller(A);
    let many: Vec<_> = (0..20).map(|n| (page(1 + 2 * n), 1)).collect();
    for through_queues in [false, true] {
        for block in 0..5 {
            let handle = blocks(&a, block, 1).unwrap();
            a.reclaim(handle, 0).unwrap();
        }
        let request = offer(CreateFlags::empty(), &[(5, 6)], &many, &[]);
        let reply = if through_queues {
            a.queue_call(message::MEM_LEND, &request)
        } else {
            a.call(message::MEM_LEND, &request)
        };
        assert_eq!(reply[..4], [0; 4], "through queues: {through_queues}");
        a.reclaim(u32::from_le_bytes(reply[4..8].try_into().unwrap()), 0).unwrap();
    }
    world.check();
}

/// How parcels that B holds come home.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Release,
    ReleaseByQueue,
    Revoke,
    DeathOfBorrower,
    DeathOfOwner,
}

/// Parcels of all kinds from A to B, which holds them: five held ones, one that waits for an append, and
/// one that nobody holds.
fn held(quotas: [Quotas; 2]) -> (World, Vec<u32>) {
    let config = |vmid, quotas| VmConfig { quotas, ..vm(vmid) };
    let vms = [config(3, quotas[0]), config(4, quotas[1])];
    let world = World::with_shared(&vms, Amounts::NONE, 0).unwrap();
    let (a, b) = (world.caller(A), world.caller(B));
    let (lend, share) = (Transfer::Lend, Transfer::Share);
    let to_b = |ranges: &[(u64, u64)]| a.offer(lend, &[(4, 6)], ranges).unwrap();
    let one = to_b(&[(page(3), 1)]);
    let six = to_b(&(0..6).map(|n| (page(10 + 2 * n), 1)).collect::<Vec<_>>());
    let block = to_b(&[(page(512), 512)]);
    let three = a.offer(share, &[(3, 6), (4, 6)], &[(page(6 * 512 + 5), 3)]).unwrap();
    let forty = to_b(&[(page(1520), 40)]);
    b.accept_contiguous(one, lend, (WINDOW, 1)).unwrap();
    // Every page in a table of its own.
    let apart: Vec<_> = (1..7).map(|n| (WINDOW + (n << 21), 1)).collect();
    b.accept(six, lend, &apart).unwrap();
    b.accept_contiguous(block, lend, (WINDOW + (8 << 21), 512)).unwrap();
    b.accept_contiguous(three, share, (WINDOW + (10 << 21), 3)).unwrap();
    b.accept_contiguous(forty, lend, (WINDOW + (12 << 21) - 0x4000, 40)).unwrap();
    let begun = offer(CreateFlags::APPEND, &[(4, 6)], &[(page(4 * 512 + 5), 1)], &[]);
    let (0, begun) = a.words(message::MEM_LEND, &begun) else { panic!("a creation may wait") };
    let extra = to_b(&[(page(5 * 512 + 5), 1)]);
    (world, vec![one, six, block, three, forty, begun, extra])
}

/// The quotas of a VM that may use exactly what it uses now.
fn exactly(world: &World, vm: VmIndex) -> Quotas {
    let guest = world.caller(vm);
    let mut request = [0; LimitsRequest::SIZE];
    LimitsRequest { vmid: Vmid(0) }.encode(&mut request).unwrap();
    // Before the call, which needs a frame itself.
    let frames = world.manager.frames_used(vm);
    let reply = guest.call(LIMITS, &request);
    let used = |resource| {
        let at = |n| 4 + Limit::HEAD + n * Limit::SIZE;
        let all = (0..Limit::COUNT).filter_map(|n| Limit::decode(&reply[..], at(n)));
        all.into_iter().find(|limit| limit.resource == resource as u16).unwrap().used
    };
    Quotas {
        parcels: used(Resource::Parcels) as u32,
        pages_lent: used(Resource::PagesLent),
        pages_accepted: used(Resource::PagesAccepted),
        extents: used(Resource::Extents),
        unfinished: used(Resource::Unfinished) as u32,
        unread: 1,
        frames,
        frames_reserved: frames,
        guaranteed: Amounts::ALL,
    }
}

#[test]
fn g7_giving_up_needs_nothing_when_every_frame_and_every_count_is_used_up() {
    let plenty = Quotas { frames_reserved: 40, ..vm(3).quotas };
    let (plenty, _) = held([plenty; 2]);
    let quotas = [A, B].map(|vm| exactly(&plenty, vm));
    let ways =
        [Way::Release, Way::ReleaseByQueue, Way::Revoke, Way::DeathOfBorrower, Way::DeathOfOwner];
    for way in some(ways, 4) {
        for step in some([1, 50, STEP], 3) {
            let (world, handles) = held(quotas);
            let (a, b) = (world.caller(A), world.caller(B));
            let before = world.check();
            let total = before.total();
            // Nothing more can be taken.
            assert_eq!(a.offer(Transfer::Lend, &[(4, 6)], &[(page(60), 1)]), Err(2));
            let extra = (WINDOW + 0x8000, 1);
            assert_eq!(b.accept_contiguous(handles[6], Transfer::Lend, extra), Err(2));
            let frames = quotas.map(|quotas| u64::from(quotas.frames));
            assert_eq!(before.frames, frames[0] + frames[1], "every frame is in use");
            a.step.set(step);
            b.step.set(step);
            come_home(&world, way, step, &handles);
            let report = world.check();
            assert_eq!(report.total(), total, "{way:?} in steps of {step}");
            let left = (report.parcels, report.lent, report.shared, report.borrowed);
            assert_eq!(left, (0, 0, 0, 0), "{way:?} in steps of {step}");
        }
    }
}

fn come_home(world: &World, way: Way, step: u32, handles: &[u32]) {
    let (a, b) = (world.caller(A), world.caller(B));
    a.step.set(step);
    b.step.set(step);
    match way {
        Way::Release => {
            handles[..5].iter().for_each(|&handle| assert_eq!(b.release(handle, 1), Ok(0)))
        }
        Way::ReleaseByQueue => {
            for &handle in &handles[..5] {
                let reply = b.queue_call(message::MEM_RELEASE, &by_handle(handle, 0));
                assert_eq!(reply, [0; 4]);
            }
        }
        Way::Revoke => {
            for &handle in handles {
                assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
            }
        }
        Way::DeathOfBorrower => {
            world.end(B);
            world.settle(B, step);
        }
        Way::DeathOfOwner => {
            world.end(A);
            world.settle(A, step);
            return;
        }
    }
    for &handle in handles {
        if way == Way::ReleaseByQueue {
            assert_eq!(a.queue_call(message::MEM_RECLAIM, &by_handle(handle, 0)), [0; 4]);
        } else {
            a.reclaim(handle, 0).unwrap();
        }
    }
}

#[test]
fn boot_refuses_what_it_could_not_keep() {
    let usual = vm(3).quotas;
    let boot = |change: &dyn Fn(&mut Quotas), shared: Amounts| {
        let mut config = vm(3);
        change(&mut config.quotas);
        World::with_shared(&[config, vm(4)], shared, 0).map(drop)
    };
    assert_eq!(boot(&|_| {}, Amounts::NONE), Ok(()));
    let parcels = |parcels| Amounts { parcels, ..Amounts::NONE };
    // A VM that may have more parcels than it is guaranteed needs handles for all of them.
    let (left, shared) = (HANDLES as u32 - usual.parcels, parcels(few(1000, 50)));
    let many = |quotas: &mut Quotas| {
        quotas.parcels = left;
        quotas.guaranteed.parcels = 1;
    };
    assert_eq!(boot(&many, shared), Ok(()));
    let too_many = |quotas: &mut Quotas| {
        quotas.parcels = left + 1;
        quotas.guaranteed.parcels = 1;
    };
    assert_eq!(boot(&too_many, shared), Err(BootError::Parcels));
    let refuses = |change: &dyn Fn(&mut Quotas)| boot(change, Amounts::NONE).unwrap_err();
    assert_eq!(refuses(&|quotas| quotas.unread = 0), BootError::Unread);
    assert_eq!(refuses(&|quotas| quotas.guaranteed.unread = 0), BootError::Unread);
    assert_eq!(refuses(&|quotas| quotas.unread = 33), BootError::Unread);
    assert_eq!(refuses(&|quotas| quotas.frames_reserved = 8), BootError::Frames);
    let (records, frames) = (2 * usual.parcels as usize, 2 * usual.frames_reserved as usize);
    for (records, frames, shared, error) in [
        (records, frames, 0, None),
        (records - 1, frames, 0, Some(BootError::Parcels)),
        (records, frames, 1, Some(BootError::Parcels)),
        (records, frames, u64::MAX, Some(BootError::Parcels)),
        (records, frames - 1, 0, Some(BootError::Frames)),
    ] {
        let shared = Amounts { parcels: shared, ..Amounts::NONE };
        let booted = World::with_storage(&[vm(3), vm(4)], shared, records, frames);
        assert_eq!(booted.err(), error, "{records} records, {frames} frames");
    }
}

#[test]
fn g7_records_of_parcels_are_neither_lost_nor_doubled_when_all_vms_take_them_at_once() {
    let plan = Plan {
        resource: Resource::Parcels,
        limit: |quotas, limit| quotas.parcels = limit,
        amount: |of, amount| of.parcels = amount,
    };
    let shared = Amounts { parcels: 6, ..Amounts::NONE };
    let vms = [plan.vm(3, 2, 12), plan.vm(4, 0, 12), plan.vm(5, 3, 3)];
    let world = World::with_shared(&vms, shared, 400).unwrap();
    std::thread::scope(|scope| {
        for vm in [A, B, C] {
            let world = &world;
            scope.spawn(move || {
                let guest = world.caller(vm);
                let mut held = vec![];
                for round in 0..few(600_u64, 24) {
                    let at = page(100 + 2 * (round % 32));
                    match guest.offer(Transfer::Lend, &[(9, 6)], &[(at, 1)]) {
                        Ok(handle) => held.push(handle),
                        Err(error) => {
                            assert_eq!(error, 2);
                            let guaranteed = [2, 0, 3][usize::from(vm.0)];
                            assert!(held.len() >= guaranteed, "G7: the guarantee was refused");
                        }
                    }
                    if held.len() as u64 > round % 4 {
                        guest.reclaim(held.remove(0), 0).unwrap();
                    }
                }
                held.into_iter().for_each(|handle| assert_eq!(guest.reclaim(handle, 0), Ok(0)));
            });
        }
    });
    assert_eq!(world.check().parcels, 0);
    // Every one of them can still be had.
    let lend = |guest: &Guest<'_>, n| guest.offer(Transfer::Lend, &[(9, 6)], &[(page(n), 1)]).ok();
    let count = |guest: &Guest<'_>| (200..220).map_while(|n| lend(guest, n)).count();
    assert_eq!(count(&world.caller(A)), 2 + 6);
    assert_eq!(count(&world.caller(B)), 0);
    assert_eq!(count(&world.caller(C)), 3);
    world.check();
}
