//! Zero on every edge that G5 names, and nowhere else.
//!
//! Each VM fills its pages with a word of its own, the canary, and the whole machine is searched for it
//! afterwards: all RAM that anybody ever touched, in caches and in memory, and all frames of the
//! manager, free ones included. What is found must be exactly what G5 leaves, page by page; so each test
//! also shows that the search finds what is there.

use rm::address::{Ipa, Pa, VmIndex};
use rm::config::VmConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, append, by_handle, offer, vm};
use rm::operation::STEP;
use rm::quota::Quotas;
use rm_abi::extension::REVOKE;
use rm_abi::{AcceptFlags, AppendFlags, CreateFlags, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = 4096;
/// Where A's pages with canaries start, across the end of a block.
const FIELD: u64 = RAM.0 + 0x1f_8000;
/// How many.
const PAGES: u64 = few(24, 11);
/// Where borrowers map.
const WINDOW: u64 = 0x9000_0000;
/// Pages of the field that parcels are made of, as runs: one crosses the end of the block.
const RUNS: [(u64, u64); 3] = few([(1, 1), (6, 5), (20, 3)], [(1, 1), (7, 2), (10, 1)]);

const KEEP: u8 = 0;
const SANITIZE: u8 = 1;
const LEND: Transfer = Transfer::Lend;
const SHARE: Transfer = Transfer::Share;
const DONATE: Transfer = Transfer::Donate;

/// What a VM fills its pages with.
fn canary(vm: VmIndex) -> [u8; 8] {
    (0xca9a_21e5_0c0f_fee1 + u64::from(vm.0)).to_le_bytes()
}

/// Numbers of the field's pages.
type Numbers = Vec<u64>;

fn all() -> Numbers {
    (0..PAGES).collect()
}

fn lent() -> Numbers {
    RUNS.iter().flat_map(|&(first, count)| first..first + count).collect()
}

fn others() -> Numbers {
    all().into_iter().filter(|number| !lent().contains(number)).collect()
}

const fn none() -> Numbers {
    Numbers::new()
}

fn ranges() -> Vec<(u64, u64)> {
    RUNS.map(|(first, count)| (FIELD + first * PAGE, count)).to_vec()
}

/// Three VMs, all of A's field full of its canaries.
struct Scene {
    world: World,
    step: u32,
}

impl Scene {
    fn new(step: u32) -> Self {
        Self::of(step, [vm(3), vm(4), vm(5)])
    }

    fn of(step: u32, vms: [VmConfig; 3]) -> Self {
        // Miri takes minutes to search them all.
        let usual = vms[0].quotas;
        let (frames, frames_reserved) = few((200, usual.frames_reserved), (10, 10));
        let quotas = Quotas { frames, frames_reserved, ..usual };
        let world = World::new(&vms.map(|vm| VmConfig { quotas, ..vm }));
        let scene = Self { world, step };
        all().iter().for_each(|number| scene.write(A, FIELD + number * PAGE));
        scene
    }

    fn guest(&self, vm: VmIndex) -> Guest<'_> {
        let guest = self.world.caller(vm);
        guest.step.set(self.step);
        guest
    }

    /// Puts the VM's canary at the beginning, the middle and the end of a page.
    fn write(&self, vm: VmIndex, at: u64) {
        for offset in some([0, 0x7fc, PAGE - 8], 3) {
            for (at, byte) in (at + offset..).zip(canary(vm)) {
                self.world.cpu(vm).write(Ipa(at), byte).expect("the VM has the page");
            }
        }
    }

    /// The VM fills all that it has borrowed.
    fn fill(&self, vm: VmIndex) {
        (0..lent().len() as u64).for_each(|page| self.write(vm, WINDOW + page * PAGE));
    }

    /// Makes a parcel of the runs for B and C.
    fn offer(&self, transfer: Transfer, flags: CreateFlags) -> u32 {
        let acl = [(3, 7), (4, 7), (5, 7)];
        let acl = match transfer {
            SHARE => &acl[..],
            LEND => &acl[1..],
            DONATE => &acl[1..2],
        };
        let request = offer(flags, acl, &ranges(), &[]);
        let (error, handle) = self.guest(A).words(transfer.message(), &request);
        assert_eq!(error, 0);
        handle
    }

    fn accept(&self, vm: VmIndex, handle: u32, transfer: Transfer, flags: AcceptFlags) {
        let flags = flags | AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
        let at = [(WINDOW, lent().len() as u64)];
        let request = accept(handle, transfer, flags, &at);
        assert_eq!(self.guest(vm).words(message::MEM_ACCEPT, &request).0, 0);
    }

    fn borrow(&self, vm: VmIndex, handle: u32, transfer: Transfer) {
        self.accept(vm, handle, transfer, AcceptFlags::empty());
        self.fill(vm);
    }

    fn release(&self, vm: VmIndex, handle: u32, flags: u8) {
        assert_eq!(self.guest(vm).release(handle, flags), Ok(0));
    }

    fn reclaim(&self, handle: u32, flags: u8) {
        assert_eq!(self.guest(A).reclaim(handle, flags), Ok(0));
    }

    fn revoke(&self, handle: u32) {
        assert_eq!(self.guest(A).words(REVOKE, &by_handle(handle, 0)).0, 0);
    }

    /// Whose canaries are where in the whole machine.
    fn expect(&self, found: [(VmIndex, Numbers); 3], when: &str) {
        self.world.check();
        for (vm, numbers) in found {
            let machine = self.world.manager.machine();
            let base = World::pa_of(A).0 + FIELD - RAM.0;
            let pages: Vec<_> = numbers.iter().map(|number| Pa(base + number * PAGE)).collect();
            assert_eq!(machine.pages_with(&canary(vm)), pages, "{when}: canaries of {vm:?}");
        }
        let canaries = [A, B, C].map(canary);
        let held = self.world.manager.machine().frames_with(&canaries.each_ref().map(|c| &c[..]));
        assert_eq!(held, [], "{when}: canaries in the manager's frames");
    }
}

/// In the smallest steps, and in those that EL2 makes.
fn in_steps(story: impl Fn(u32)) {
    some([1, STEP], 2).for_each(story);
}

#[test]
fn g5_what_nobody_wipes_is_found() {
    in_steps(|step| {
        let scene = Scene::new(step);
        scene.expect([(A, all()), (B, none()), (C, none())], "at first");
        let handle = scene.offer(LEND, CreateFlags::empty());
        scene.expect([(A, all()), (B, none()), (C, none())], "lent");
        scene.borrow(B, handle, LEND);
        scene.expect([(A, others()), (B, lent()), (C, none())], "written by its borrower");
        scene.release(B, handle, KEEP);
        scene.reclaim(handle, KEEP);
        scene.expect([(A, others()), (B, lent()), (C, none())], "a plain reclaim keeps it");
        let at = Ipa(ranges()[0].0);
        assert_eq!(scene.world.cpu(A).read(at), Ok(canary(B)[0]), "and its owner reads it");
    });
}

#[test]
fn g5_a_creation_with_sanitize_hands_on_zeros_and_leaves_the_neighbours() {
    in_steps(|step| {
        for transfer in [LEND, SHARE, DONATE] {
            let scene = Scene::new(step);
            let handle = scene.offer(transfer, CreateFlags::SANITIZE);
            scene.expect([(A, others()), (B, none()), (C, none())], "made");
            scene.accept(B, handle, transfer, AcceptFlags::VALIDATE_SANITIZED);
            assert_eq!(scene.world.cpu(B).read(Ipa(WINDOW)), Ok(0), "{transfer:?}");
        }
    });
}

#[test]
fn g5_appended_pages_are_wiped_as_the_creation_said() {
    in_steps(|step| {
        for flags in [CreateFlags::SANITIZE, CreateFlags::empty()] {
            let scene = Scene::new(step);
            let a = scene.guest(A);
            let first = offer(flags | CreateFlags::APPEND, &[(4, 7)], &ranges()[..1], &[]);
            let (error, handle) = a.words(message::MEM_LEND, &first);
            assert_eq!(error, 0);
            let rest = append(handle, AppendFlags::END, &ranges()[1..]);
            assert_eq!(a.words(message::MEM_APPEND, &rest).0, 0);
            let left = if flags.is_empty() { all() } else { others() };
            scene.expect([(A, left), (B, none()), (C, none())], "appended");
        }
    });
}

#[test]
fn g5_a_donation_hands_on_what_is_in_it() {
    in_steps(|step| {
        let scene = Scene::new(step);
        let handle = scene.offer(DONATE, CreateFlags::empty());
        scene.accept(B, handle, DONATE, AcceptFlags::empty());
        scene.expect([(A, all()), (B, none()), (C, none())], "accepted");
        assert_eq!(scene.world.cpu(B).read(Ipa(WINDOW)), Ok(canary(A)[0]));
    });
}

#[test]
fn g5_an_accept_with_sanitize_wipes_at_the_reclaim() {
    in_steps(|step| {
        let scene = Scene::new(step);
        let handle = scene.offer(LEND, CreateFlags::empty());
        scene.accept(B, handle, LEND, AcceptFlags::SANITIZE);
        scene.expect([(A, all()), (B, none()), (C, none())], "accepted: it is for B to read");
        scene.fill(B);
        scene.release(B, handle, KEEP);
        scene.reclaim(handle, KEEP);
        scene.expect([(A, others()), (B, none()), (C, none())], "reclaimed");
    });
}

#[test]
fn g5_a_release_with_sanitize_wipes_at_the_reclaim_and_not_for_another_borrower() {
    in_steps(|step| {
        let scene = Scene::new(step);
        let handle = scene.offer(LEND, CreateFlags::empty());
        scene.borrow(B, handle, LEND);
        scene.release(B, handle, SANITIZE);
        scene.accept(C, handle, LEND, AcceptFlags::empty());
        scene.expect([(A, others()), (B, lent()), (C, none())], "C is of the same parcel");
        scene.release(C, handle, KEEP);
        scene.reclaim(handle, KEEP);
        scene.expect([(A, others()), (B, none()), (C, none())], "reclaimed");
    });
}

#[test]
fn g5_a_reclaim_with_sanitize_wipes() {
    in_steps(|step| {
        for transfer in [LEND, SHARE] {
            let scene = Scene::new(step);
            let handle = scene.offer(transfer, CreateFlags::empty());
            scene.borrow(B, handle, transfer);
            scene.release(B, handle, KEEP);
            scene.reclaim(handle, SANITIZE);
            scene.expect([(A, others()), (B, none()), (C, none())], "reclaimed");
        }
    });
}

#[test]
fn g5_a_lend_is_wiped_for_a_vm_that_is_always_sanitized_on_either_side() {
    let cautious = |vmid| VmConfig { sanitize_always: true, ..vm(vmid) };
    in_steps(|step| {
        let sides = [[cautious(3), vm(4), vm(5)], [vm(3), cautious(4), vm(5)]];
        for vms in sides {
            let scene = Scene::of(step, vms);
            let handle = scene.offer(LEND, CreateFlags::empty());
            scene.borrow(B, handle, LEND);
            scene.release(B, handle, KEEP);
            scene.reclaim(handle, KEEP);
            scene.expect([(A, others()), (B, none()), (C, none())], "reclaimed");
        }
        // Who has no part in the parcel changes nothing.
        let scene = Scene::of(step, [vm(3), vm(4), cautious(5)]);
        let handle = scene.offer(LEND, CreateFlags::empty());
        scene.borrow(B, handle, LEND);
        scene.release(B, handle, KEEP);
        scene.reclaim(handle, KEEP);
        scene.expect([(A, others()), (B, lent()), (C, none())], "reclaimed beside C");
    });
}

#[test]
fn g5_what_is_revoked_of_a_lend_is_wiped_and_of_a_share_kept() {
    in_steps(|step| {
        for (transfer, left) in [(LEND, none()), (SHARE, lent())] {
            let scene = Scene::new(step);
            let handle = scene.offer(transfer, CreateFlags::empty());
            scene.borrow(B, handle, transfer);
            scene.borrow(C, handle, transfer);
            scene.release(B, handle, KEEP);
            scene.revoke(handle);
            scene.reclaim(handle, KEEP);
            scene.expect([(A, others()), (B, none()), (C, left)], "C was made to give it back");
        }
    });
}

#[test]
fn g5_a_lend_whose_borrower_dies_is_wiped_and_a_share_kept() {
    in_steps(|step| {
        for (transfer, left) in [(LEND, none()), (SHARE, lent())] {
            let scene = Scene::new(step);
            let handle = scene.offer(transfer, CreateFlags::empty());
            scene.borrow(B, handle, transfer);
            scene.borrow(C, handle, transfer);
            scene.world.end(C);
            scene.world.settle(C, step);
            scene.release(B, handle, KEEP);
            scene.reclaim(handle, KEEP);
            scene.expect([(A, others()), (B, none()), (C, left)], "C has ended");
        }
    });
}

#[test]
fn g5_what_an_owner_that_dies_had_lent_or_shared_is_wiped() {
    in_steps(|step| {
        for transfer in [LEND, SHARE] {
            let scene = Scene::new(step);
            let handle = scene.offer(transfer, CreateFlags::empty());
            scene.borrow(B, handle, transfer);
            scene.world.end(A);
            scene.world.settle(A, step);
            assert!(scene.world.cpu(B).read(Ipa(WINDOW)).is_err(), "B has it no more");
            // What was in no parcel is for the embedder to load anew before A starts again.
            scene.expect([(A, others()), (B, none()), (C, none())], "A has ended");
        }
    });
}

#[test]
fn g5_a_refused_creation_wipes_nothing() {
    in_steps(|step| {
        let scene = Scene::new(step);
        let mut bad = ranges();
        bad.push((RAM.0 - PAGE, 1));
        let request = offer(CreateFlags::SANITIZE, &[(4, 7)], &bad, &[]);
        assert_ne!(scene.guest(A).words(message::MEM_LEND, &request).0, 0);
        scene.expect([(A, all()), (B, none()), (C, none())], "refused");
    });
}

/// A request of the greatest length, full of A's canaries.
fn full_of_canaries() -> Vec<u8> {
    canary(A).into_iter().cycle().take(rm_abi::MAX_PAYLOAD).collect()
}

#[test]
fn g5_frames_that_held_a_long_request_or_an_extent_list_are_erased() {
    let scene = Scene::new(STEP);
    let machine = scene.world.manager.machine();
    let a = scene.guest(A);
    // A list of canaries at work: it is in frames now, and the search finds it.
    let many: Vec<_> = (0..500).map(|n| (RAM.0 + 0x40_0000 + n * 2 * PAGE, 1)).collect();
    let mut request = offer(CreateFlags::empty(), &[(4, 7)], &many, &[]);
    let label = request.windows(4).position(|w| w == 0x11_u32.to_le_bytes()).expect("a label");
    request[label..label + 4].copy_from_slice(&canary(A)[..4]);
    a.step.set(1);
    let mut turn = a.send(message::MEM_LEND, &request);
    assert_ne!(machine.frames_with(&[&canary(A)[..4]]), [], "the request lies in frames");
    let handle = loop {
        match turn {
            Turn::More(token) => turn = a.resume(token),
            Turn::Reply(reply) => break u32::from_le_bytes(reply[4..8].try_into().unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(machine.frames_with(&[&canary(A)[..4]]), [], "the request is gone with its call");
    // The extent list names a page of A by its machine address.
    let page = (World::pa_of(A).0 / PAGE + 0x400 + 2 * 400).to_le_bytes();
    assert_ne!(machine.frames_with(&[&page]), [], "the extents lie in frames");
    a.step.set(STEP);
    a.reclaim(handle, 0).unwrap();
    assert_eq!(machine.frames_with(&[&page]), [], "and are gone with their parcel");
    // A request that is refused leaves nothing either.
    assert_ne!(a.words(message::MEM_LEND, &full_of_canaries()).0, 0);
    assert_eq!(machine.frames_with(&[&canary(A)]), []);
}

#[test]
fn g5_a_reply_holds_nothing_of_an_earlier_request() {
    let scene = Scene::new(STEP);
    let (a, b) = (scene.guest(A), scene.guest(B));
    let count = few(500, 260);
    let many: Vec<_> = (0..count).map(|n| (RAM.0 + 0x40_0000 + n * 2 * PAGE, 1)).collect();
    let handle = a.offer(LEND, &[(4, 7)], &many).unwrap();
    for through in some(["direct", "queue"], 2) {
        // The frames of A's request are the next that anybody takes.
        assert_ne!(a.words(message::MEM_LEND, &full_of_canaries()).0, 0);
        let request = accept(handle, LEND, AcceptFlags::DONE, &[]);
        let reply = match through {
            "direct" => b.call(message::MEM_ACCEPT, &request),
            _ => b.queue_call(message::MEM_ACCEPT, &request),
        };
        assert_eq!(
            reply.len(),
            8 + count as usize * 16,
            "{through}: error, count, flags, and each range"
        );
        let word = canary(A);
        let leaks = |part: &[u8]| word.windows(4).any(|of| of == part);
        assert!(!reply.windows(4).any(leaks), "{through}: B's reply holds what A asked");
        b.release(handle, 0).unwrap();
    }
}
