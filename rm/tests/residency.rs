//! One entry into EL2 does a bounded amount of work, however large the parcel or however many there are.
//!
//! The budget of a step is the manager's own account of its work, so it proves nothing here. What is
//! counted is what the machine sees: descriptors written, pages zeroed and cleaned, invalidations, visits
//! to frames (tables, extent lists, messages), locks taken. Each kind is compared on its own, the worst
//! entry of a call on large parcels with that on small ones.

use std::collections::BTreeMap;

use rm::address::{Ipa, VmIndex};
use rm::config::VmConfig;
use rm::machine::Features;
use rm::machine::fake::Counters;
use rm::machine::fake::effort::few;
use rm::machine::fake::world::{
    Guest, LABEL, RAM, Turn, World, accept, append, by_handle, offer, vm,
};
use rm::operation::budget::Budget;
use rm::quota::Quotas;
use rm_abi::extension::REVOKE;
use rm_abi::memparcel::lookup::Lookup;
use rm_abi::memparcel::notify::Notify;
use rm_abi::{
    AcceptFlags, AclEntry, AppendFlags, Bytes, CreateFlags, Handle, MemoryKind, NotifyFlag, Rights,
    SglEntry, Transfer, Vmid, VmidEntry, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = 4096;
const BLOCK: u64 = 512;
/// Pages of the owner's RAM: 1 GiB.
const WHOLE: u64 = few(512 * BLOCK, 8 * BLOCK);
/// Pages of the largest parcel, each an extent.
const LARGEST: u64 = few(WHOLE, 80);
/// Pages of one that takes more than a step.
const THOUSAND: u64 = few(1000, 60);
/// Entries of a list.
const LIST: usize = few(512, 16);
/// Weights of a step.
const STEP: u32 = few(rm::operation::STEP, 20);
/// Where borrowers map, at addresses that they choose.
const WINDOW: u64 = 0x2_0000_0000;
/// Parcels of the largest crowd.
const CROWD: u64 = few(4096, 40);

/// What one entry made the machine do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work([u64; 6]);

const KINDS: [&str; 6] =
    ["descriptors", "zeroed", "cleaned", "invalidations", "visits to frames", "locks"];

impl Work {
    fn between(before: Counters, after: Counters) -> Self {
        Self([
            after.table_writes - before.table_writes,
            after.zeroed - before.zeroed,
            after.cleaned - before.cleaned,
            after.invalidations - before.invalidations,
            after.frame_visits - before.frame_visits,
            after.locks - before.locks,
        ])
    }

    fn max(self, other: Self) -> Self {
        Self(core::array::from_fn(|kind| self.0[kind].max(other.0[kind])))
    }
}

/// The worst entry of each call, kind by kind.
#[derive(Default)]
struct Worst(BTreeMap<&'static str, Work>);

impl Worst {
    fn note<T>(&mut self, world: &World, name: &'static str, entry: impl FnOnce() -> T) -> T {
        let machine = world.manager.machine();
        let before = machine.counters();
        let value = entry();
        let work = Work::between(before, machine.counters());
        let worst = self.0.entry(name).or_default();
        *worst = worst.max(work);
        value
    }

    /// A call, entry by entry; the result is the first word of its data.
    fn call(
        &mut self,
        world: &World,
        guest: &Guest<'_>,
        name: &'static str,
        (message, payload): (u32, &[u8]),
    ) -> u32 {
        let mut turn = self.note(world, name, || guest.send(message, payload));
        loop {
            match turn {
                Turn::More(token) => turn = self.note(world, name, || guest.resume(token)),
                Turn::Reply(reply) => {
                    assert_eq!(reply.u32_at(0), 0, "{name} is refused: {:?}", guest.last_refusal());
                    return if reply.len() >= 8 { reply.u32_at(4) } else { 0 };
                }
                other => panic!("{name} ended with {other:?}"),
            }
        }
    }

    /// The steps of a VM that has ended, until none is left.
    fn settle(&mut self, world: &World, name: &'static str, vm: VmIndex) {
        while world.manager.pending(vm) {
            self.note(world, name, || world.manager.step(vm, &mut Budget::new(STEP)));
        }
    }

    /// Every kind of work of every call stays within what it was for `less`, up to one unit of the
    /// heaviest kind: where a step ends falls differently.
    fn expect_flat(&self, less: &Self, what: &str) {
        let unit = Work([512, 1, 1, 1, 8, 8]);
        for (name, more) in &self.0 {
            let less = less.0[name];
            println!("{what}: {name:<9} {less:?} -> {more:?}");
            for (kind, title) in KINDS.iter().enumerate() {
                let bound = less.0[kind] + unit.0[kind];
                assert!(more.0[kind] <= bound, "{name} of {what}: {title} grow: {less:?} {more:?}");
            }
        }
    }

    fn and(mut self, other: Self) -> Self {
        for (name, work) in other.0 {
            let worst = self.0.entry(name).or_default();
            *worst = worst.max(work);
        }
        self
    }

    /// No entry does more than a step is meant to allow.
    fn expect_bounded(&self) {
        let bound = u64::from(rm::operation::STEP);
        for (name, work) in &self.0 {
            let [descriptors, zeroed, cleaned, invalidations, visits, locks] = work.0;
            assert!(descriptors <= 4 * bound, "{name}: {work:?}");
            assert!(zeroed <= bound / 20 && cleaned <= bound / 20, "{name}: {work:?}");
            assert!(invalidations <= bound / 4, "{name}: {work:?}");
            assert!(visits <= 8 * bound && locks <= bound / 4, "{name}: {work:?}");
        }
    }
}

/// A VM that may have as much as the tests need.
fn large(vmid: u16) -> VmConfig {
    let quotas = Quotas {
        parcels: CROWD as u32,
        pages_lent: WHOLE,
        pages_accepted: 2 * WHOLE,
        extents: WHOLE,
        frames: few(4500, 70),
        ..Quotas::USUAL
    };
    VmConfig { quotas, ..vm(vmid) }
}

/// Three VMs, the first of which has 1 GiB.
fn world() -> World {
    let small = VmConfig { quotas: Quotas { parcels: 8, ..large(4).quotas }, ..large(4) };
    let stranger = VmConfig { quotas: Quotas { parcels: 8, ..large(5).quotas }, ..large(5) };
    let world = World::without_memory(&[large(3), small, stranger], Features::default());
    world.manager.give(A, RAM, World::pa_of(A), WHOLE).expect("the range is free");
    world
}

fn caller(world: &World, vm: VmIndex) -> Guest<'_> {
    let guest = world.caller(vm);
    guest.step.set(STEP);
    guest
}

/// Where page number `index` of a list lies. Neighbours lie in different blocks, so that each entry of
/// the first list cuts one.
fn place(base: u64, index: u64) -> (u64, u64) {
    let blocks = WHOLE / BLOCK;
    (base + (index % blocks * BLOCK + index / blocks) * PAGE, 1)
}

fn places(base: u64, pages: u64) -> Vec<(u64, u64)> {
    (0..pages).map(|index| place(base, index)).collect()
}

fn notify(handle: u32, flag: NotifyFlag, targets: &[u16]) -> Vec<u8> {
    let targets: Vec<_> = targets.iter().map(|&vmid| VmidEntry(Vmid(vmid))).collect();
    let request = Notify { handle: Handle(handle), flag, tag: 1, targets: &targets };
    let mut payload = vec![0; 256];
    let length = request.encode(&mut payload).expect("it fits");
    payload.truncate(length);
    payload
}

fn lookup(acl: &[(u16, u8)], ranges: &[(u64, u64)]) -> Vec<u8> {
    let entry = |&(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) };
    let request = Lookup {
        memory: MemoryKind::NORMAL,
        label: LABEL,
        acl: &acl.iter().map(entry).collect::<Vec<_>>(),
        sgl: &ranges
            .iter()
            .map(|&(ipa, pages)| SglEntry { ipa, size: pages * PAGE })
            .collect::<Vec<_>>(),
        attributes: &[],
    };
    let mut payload = vec![0; rm_abi::MAX_PAYLOAD];
    let length = request.encode(&mut payload).expect("it fits");
    payload.truncate(length);
    payload
}

const ACL: [(u16, u8); 2] = [(4, 6), (5, 4)];

/// Makes a lend of `ranges`, list after list.
fn lend(worst: &mut Worst, world: &World, ranges: &[(u64, u64)]) -> u32 {
    let a = caller(world, A);
    let (first, rest) = ranges.split_at(ranges.len().min(LIST));
    let flags = CreateFlags::APPEND | CreateFlags::SANITIZE;
    let request = (message::MEM_LEND, &offer(flags, &ACL, first, &[])[..]);
    let handle = worst.call(world, &a, "create", request);
    for list in rest.chunks(LIST) {
        let request = append(handle, AppendFlags::empty(), list);
        worst.call(world, &a, "append", (message::MEM_APPEND, &request));
    }
    // The last page finishes it.
    let request = append(handle, AppendFlags::END, &[place(RAM.0, WHOLE - 1)]);
    worst.call(world, &a, "append", (message::MEM_APPEND, &request));
    handle
}

/// Accepts a lend of `extents` extents: at chosen addresses, or where the manager finds room.
fn borrow(
    worst: &mut Worst,
    world: &World,
    guest: &Guest<'_>,
    handle: u32,
    at: Option<&[(u64, u64)]>,
    extents: usize,
) {
    let mut done = 0;
    while done < extents {
        let count = (extents - done).min(LIST);
        let last = done + count == extents;
        let flags = if last { AcceptFlags::DONE } else { AcceptFlags::empty() };
        let list = at.map_or(&[][..], |places| &places[done..done + count]);
        let request = accept(handle, Transfer::Lend, flags, list);
        let name = if at.is_some() { "accept" } else { "accept anywhere" };
        worst.call(world, guest, name, (message::MEM_ACCEPT, &request));
        done += count;
    }
}

/// The life of a parcel of `pages` pages, each an extent: all calls but those of the end of a VM.
fn life(world: &World, pages: u64) -> Worst {
    let mut worst = Worst::default();
    let (a, b, c) = (caller(world, A), caller(world, B), caller(world, C));
    let handle = lend(&mut worst, world, &places(RAM.0, pages - 1));
    let extents = pages as usize;
    let request = notify(handle, NotifyFlag::Shared, &[4, 5]);
    // What it takes in one step is more than what a parcel has under Miri.
    if !cfg!(miri) {
        worst.call(world, &a, "notify", (message::MEM_NOTIFY, &request));
    }
    let chosen = places(WINDOW, pages);
    borrow(&mut worst, world, &b, handle, Some(&chosen), extents);
    borrow(&mut worst, world, &c, handle, None, extents);
    worst.call(world, &b, "release", (message::MEM_RELEASE, &by_handle(handle, 1)));
    worst.call(world, &a, "revoke", (REVOKE, &by_handle(handle, 0)));
    worst.call(world, &a, "reclaim", (message::MEM_RECLAIM, &by_handle(handle, 1)));
    b.packets();
    c.packets();
    worst
}

/// A parcel of `pages` extents whose borrower ends, and then whose owner does.
fn deaths(world: &World, pages: u64) -> Worst {
    let mut worst = Worst::default();
    let handle = lend(&mut worst, world, &places(RAM.0, pages - 1));
    let chosen = places(WINDOW, pages);
    borrow(&mut worst, world, &caller(world, B), handle, Some(&chosen), pages as usize);
    world.end(B);
    worst.settle(world, "borrower's end", B);
    world.end(A);
    worst.settle(world, "owner's end", A);
    world.start(A);
    world.start(B);
    world.caller(A).packets();
    worst
}

#[test]
fn g7_an_entry_does_as_much_for_a_gib_in_small_extents_as_for_a_thousand_pages() {
    let world = world();
    let before = world.check();
    let least = life(&world, 2);
    // Once while blocks must be cut, and once when they are.
    let thousand = life(&world, THOUSAND).and(life(&world, THOUSAND));
    thousand.expect_bounded();
    assert!(least.0.keys().eq(thousand.0.keys()), "the same calls");
    let all = life(&world, LARGEST);
    all.expect_bounded();
    all.expect_flat(&thousand, "1 GiB");
    for vm in [A, B, C] {
        while world.manager.idle(vm) {}
    }
    assert_eq!(world.check(), before);
}

#[test]
fn g7_the_end_of_a_vm_takes_as_much_in_each_step_for_a_gib_as_for_a_thousand_pages() {
    let world = world();
    let before = world.check();
    let thousand = deaths(&world, THOUSAND);
    let all = deaths(&world, LARGEST);
    all.expect_bounded();
    all.expect_flat(&thousand, "1 GiB");
    for vm in [A, B, C] {
        while world.manager.idle(vm) {}
    }
    assert_eq!(world.check(), before);
}

/// Where a parcel of a crowd lies: eight in each block.
fn seat(base: u64, index: u64) -> (u64, u64) {
    (base + (index / 8 * BLOCK + index % 8) * PAGE, 1)
}

/// What a crowd of `count` parcels of one page does to the calls of each, and to the end of the VMs.
fn crowd(world: &World, count: u64) -> Worst {
    let mut worst = Worst::default();
    let (a, b) = (caller(world, A), caller(world, B));
    let handles: Vec<_> = (0..count)
        .map(|index| {
            let request = offer(CreateFlags::empty(), &ACL, &[seat(RAM.0, index)], &[]);
            worst.call(world, &a, "create", (message::MEM_LEND, &request))
        })
        .collect();
    let missing = lookup(&ACL, &[place(RAM.0, WHOLE - 1)]);
    let mut turn = worst.note(world, "lookup", || a.send(message::MEM_LOOKUP, &missing));
    while let Turn::More(token) = turn {
        turn = worst.note(world, "lookup", || a.resume(token));
    }
    for (index, &handle) in (0..).zip(&handles) {
        let request = notify(handle, NotifyFlag::Shared, &[4, 5]);
        worst.call(world, &a, "notify", (message::MEM_NOTIFY, &request));
        let at = [seat(WINDOW, index)];
        let request = accept(handle, Transfer::Lend, AcceptFlags::DONE, &at);
        worst.call(world, &b, "accept", (message::MEM_ACCEPT, &request));
    }
    for (index, &handle) in handles.iter().enumerate() {
        let by_handle = by_handle(handle, 0);
        match index % 4 {
            0 => {
                worst.call(world, &b, "release", (message::MEM_RELEASE, &by_handle));
                worst.call(world, &a, "reclaim", (message::MEM_RECLAIM, &by_handle));
            }
            1 => drop(worst.call(world, &a, "revoke", (REVOKE, &by_handle))),
            _ => {}
        }
    }
    world.end(B);
    worst.settle(world, "borrower's end", B);
    world.end(A);
    worst.settle(world, "owner's end", A);
    world.start(A);
    world.start(B);
    world.caller(C).packets();
    worst
}

#[test]
fn g7_an_entry_does_as_much_beside_four_thousand_parcels_as_beside_four_hundred() {
    let world = world();
    let before = world.check();
    let some = crowd(&world, few(400, 16));
    let all = crowd(&world, CROWD);
    all.expect_bounded();
    all.expect_flat(&some, "4,096 parcels");
    for vm in [A, B, C] {
        while world.manager.idle(vm) {}
    }
    assert_eq!(world.check(), before);
}

#[test]
fn g7_what_is_counted_would_show_work_that_grows() {
    const MANY: u64 = few(600, 60);
    let world = world();
    let mut worst = Worst::default();
    for (name, pages) in [("few", 1_u64), ("many", MANY)] {
        worst.note(&world, name, || {
            (0..pages).for_each(|page| {
                let at = Ipa(RAM.0 + page * PAGE);
                assert!(world.manager.allows(A, at, rm::stage2::Access::Read).is_some());
            });
        });
    }
    assert!(worst.0["many"].0[5] >= MANY * worst.0["few"].0[5], "locks are counted");
    assert!(worst.0["many"].0[4] >= MANY, "visits are counted");
}
