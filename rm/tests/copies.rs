//! COPY and SET_WINDOW: bytes go where the access list lets them, without a mapping, and no further.

use rm::address::{Ipa, Pa, VmIndex};
use rm::config::VmConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, by_handle, offer, vm};
use rm::operation::STEP;
use rm_abi::extension::{
    COPY, CopyRequest, CopySegment, CopySide, REVOKE, RevokeFlags, RevokeRequest, Rule, SET_WINDOW,
    TRIM, TrimFlags, TrimRequest, WindowFlags, WindowRequest,
};
use rm_abi::{Attribute, Bytes, CreateFlags, Handle, Transfer, Vmid};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const OWN: u64 = RAM.0 + 0x60_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;
const STEPS: &[u32] = few(&[1, 200, STEP], &[30]);

fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5)])
}

fn of(handle: u32, at: u64) -> CopySide {
    CopySide::Parcel(Handle(handle), at)
}

fn own(at: u64) -> CopySide {
    CopySide::Own(at)
}

fn segment(source: CopySide, dest: CopySide, length: u32) -> CopySegment {
    CopySegment { source, dest, length }
}

fn request(segments: &[CopySegment]) -> Vec<u8> {
    let mut payload = vec![0; rm_abi::MAX_PAYLOAD];
    let length = CopyRequest::encode(segments, &mut payload).unwrap();
    payload.truncate(length);
    payload
}

/// The error word of each segment.
fn statuses(reply: &[u8], count: usize) -> Vec<u32> {
    assert_eq!((reply.u32_at(0), reply.u32_at(4)), (0, count as u32));
    assert_eq!(reply.len(), 8 + 4 * count);
    (0..count).map(|n| reply.u32_at(8 + 4 * n)).collect()
}

fn copy(guest: &Guest<'_>, segments: &[CopySegment]) -> Vec<u32> {
    statuses(&guest.call(COPY, &request(segments)), segments.len())
}

fn copy_one(guest: &Guest<'_>, source: CopySide, dest: CopySide, length: u32) -> u32 {
    copy(guest, &[segment(source, dest, length)])[0]
}

/// Two pages of A's that do not lie side by side, and one more, which hold their number.
fn offered(world: &World, transfer: Transfer, acl: &[(u16, u8)]) -> u32 {
    let pages = [PAGE + 0x5000, PAGE, PAGE + 0x9000];
    for (value, at) in (1..).zip(pages) {
        world.cpu(A).fill(Ipa(at), value).unwrap();
    }
    world.caller(A).offer(transfer, acl, &pages.map(|at| (at, 1))).unwrap()
}

fn set_window(guest: &Guest<'_>, handle: u32, vmid: u16, (offset, size): (u64, u64)) -> u32 {
    window(guest, handle, vmid, (offset, size), WindowFlags::empty())
}

fn window(
    guest: &Guest<'_>,
    handle: u32,
    vmid: u16,
    (offset, size): (u64, u64),
    flags: WindowFlags,
) -> u32 {
    let request = WindowRequest { handle: Handle(handle), vmid: Vmid(vmid), flags, offset, size };
    let mut payload = [0; WindowRequest::SIZE];
    request.encode(&mut payload).unwrap();
    guest.words(SET_WINDOW, &payload).0
}

fn bytes(world: &World, vm: VmIndex, at: u64, count: u64) -> Vec<u8> {
    (at..at + count).map(|at| world.cpu(vm).read(Ipa(at)).unwrap()).collect()
}

#[test]
fn a_borrower_copies_both_ways_without_a_mapping() {
    for (transfer, step) in
        some([SHARED, LENT], 2).flat_map(|t| STEPS.iter().map(move |&step| (t, step)))
    {
        let world = world();
        let acl: &[_] = if transfer == SHARED { &[(3, 6), (4, 6)] } else { &[(4, 6)] };
        let handle = offered(&world, transfer, acl);
        let before = world.check();
        let b = world.caller(B);
        b.step.set(step);
        // Over two ends of extents, and not at the beginning of a page on either side.
        assert_eq!(copy_one(&b, of(handle, 0x800), own(OWN + 0x123), 0x2000), 0);
        let wanted = [vec![1; 0x800], vec![2; 0x1000], vec![3; 0x800]].concat();
        for (at, byte) in some((OWN + 0x123..).zip(wanted), 61) {
            assert_eq!(world.cpu(B).read(Ipa(at)), Ok(byte), "{at:#x}");
        }
        assert_eq!(world.cpu(B).read(Ipa(OWN + 0x122)), Ok(0));
        assert_eq!(world.cpu(B).read(Ipa(OWN + 0x2123)), Ok(0));
        world.cpu(B).write(Ipa(OWN), 9).unwrap();
        assert_eq!(copy_one(&b, own(OWN), of(handle, 0x1fff), 1), 0);
        assert_eq!(world.check(), before, "no mapping, no frame, no page");
        world.caller(A).reclaim(handle, 0).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0xfff)), Ok(9));
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0xffe)), Ok(2));
        world.check();
    }
}

#[test]
fn every_segment_has_a_status_of_its_own() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    let b = world.caller(B);
    for (bad, step) in
        [0, 6, 19].into_iter().flat_map(|bad| STEPS.iter().map(move |&step| (bad, step)))
    {
        b.step.set(step);
        (0..20).for_each(|n| world.cpu(B).write(Ipa(OWN + n), 0).unwrap());
        let one = |n: u64| {
            let from = if n == bad { of(handle, 0x3000) } else { of(handle, 0x1000 + n) };
            segment(from, own(OWN + n), 1)
        };
        let segments: Vec<_> = (0..20).map(one).collect();
        let mut wanted = vec![0; 20];
        wanted[bad as usize] = 6;
        assert_eq!(copy(&b, &segments), wanted);
        let reply = b.queue_call(COPY, &request(&segments));
        assert_eq!(statuses(&reply, 20), wanted, "through the queues too");
        let mut copied = vec![2; 20];
        copied[bad as usize] = 0;
        assert_eq!(bytes(&world, B, OWN, 20), copied);
    }
    assert_eq!(copy(&b, &[]), []);
    let most = vec![segment(of(handle, 0), own(OWN), 1); CopyRequest::MAX];
    assert_eq!(copy(&b, &most), vec![0; CopyRequest::MAX]);
    world.check();
}

#[test]
fn g3_g4_what_the_access_list_does_not_grant_is_refused_and_nothing_is_copied() {
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let readable = offered(&world, SHARED, &[(3, 6), (4, 4)]);
    world.cpu(B).write(Ipa(OWN), 9).unwrap();
    let refused = |guest: &Guest<'_>, source, dest, length| copy_one(guest, source, dest, length);
    assert_eq!(refused(&b, own(OWN), of(readable, 0), 1), 3, "B may only read");
    assert_eq!(refused(&c, of(readable, 0), own(OWN), 1), 7);
    assert_eq!(refused(&c, of(0x7777_0001, 0), own(OWN), 1), 7, "as if there were no parcel");
    assert_eq!(refused(&b, own(OWN), own(OWN + 8), 1), 6, "neither side is a parcel");
    for (at, length) in [
        (0x3000, 1),
        (0x2fff, 2),
        (u64::MAX, 1),
        (u64::MAX - 1, 2),
        (1, u32::MAX),
        (0, CopySegment::MAX_LENGTH + 1),
    ] {
        assert_eq!(refused(&b, of(readable, at), own(OWN), length), 6, "{at:#x} {length:#x}");
    }
    let addresses = [u64::MAX, 1 << 44, RAM.0 - 1, RAM.0 + 4096 * 4096];
    for at in addresses {
        assert!([6, 0xa].contains(&refused(&b, of(readable, 0), own(at), 2)), "{at:#x}");
    }
    assert_eq!(world.cpu(B).read(Ipa(OWN)), Ok(9));
    assert_eq!(refused(&b, of(readable, u64::MAX), of(0xffff_ffff, u64::MAX), 0), 0, "nothing");
    // An owner that has lent a page reaches it in no way (G2).
    let lent = a.offer(LENT, &[(4, 6)], &[(PAGE + 0x10_0000, 1)]).unwrap();
    assert_eq!(refused(&a, of(lent, 0), own(OWN), 1), 3);
    assert_eq!(refused(&a, own(OWN), of(lent, 0), 1), 3);
    assert_eq!(refused(&a, own(PAGE + 0x10_0000), of(readable, 0), 1), 0xa);
    let given = a.offer(Transfer::Donate, &[(4, 7)], &[(PAGE + 0x11_0000, 1)]).unwrap();
    assert_eq!(refused(&b, of(given, 0), own(OWN), 1), 6, "a donation is accepted or not");
    // What is borrowed read-only is not written through one's own address either.
    b.accept(readable, SHARED, &[(0x9000_0000, 1), (0x9000_2000, 1), (0x9000_4000, 1)]).unwrap();
    assert_eq!(refused(&b, of(lent, 0), own(0x9000_0000), 1), 0xa);
    assert_eq!(refused(&b, own(0x9000_0000), of(lent, 0), 1), 0);
    // While a parcel is not complete it is nobody's but its owner's.
    let payload = offer(CreateFlags::APPEND, &[(3, 6), (4, 6)], &[(PAGE + 0x12_0000, 1)], &[]);
    let (error, unfinished) = a.words(SHARED.message(), &payload);
    assert_eq!((error, refused(&b, of(unfinished, 0), own(OWN), 1)), (0, 7));
    assert_eq!(refused(&a, of(unfinished, 0), own(OWN), 1), 5);
    let unknown = {
        let mut payload = request(&[segment(of(readable, 0), own(OWN), 1); 2]);
        payload[8 + 28] = 1;
        b.call(COPY, &payload)
    };
    assert_eq!(statuses(&unknown, 2), [6, 0]);
    world.check();
}

#[test]
fn a_request_that_is_no_list_of_segments_is_refused_as_a_whole() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    let b = world.caller(B);
    let good = request(&[segment(of(handle, 0), own(OWN), 1); 9]);
    assert_eq!(b.words(COPY, &good[..good.len() - 1]).0, 4);
    assert_eq!(b.words(COPY, &[&good[..], &[0]].concat()).0, 4, "longer than a packet");
    let counted = |count: u32| [&count.to_le_bytes()[..], &good[4..]].concat();
    for count in [0, 8, 10, 1 << 27, u32::MAX] {
        assert_eq!(b.words(COPY, &counted(count)).0, 4, "{count}");
    }
    let flagged = [&good[..4], &[1], &good[5..]].concat();
    assert_eq!(b.words(COPY, &flagged).0, 6);
    assert_eq!(world.cpu(B).read(Ipa(OWN)), Ok(0));
}

#[test]
fn g7_a_step_copies_a_bounded_number_of_bytes() {
    let world = world();
    let a = world.caller(A);
    let pages = few(16, 3);
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, pages)]).unwrap();
    let b = world.caller(B);
    let marked = || {
        let pa = Pa(World::pa_of(A).0 + (PAGE - RAM.0));
        (0..pages)
            .map(|n| world.manager.machine().page(pa.add_pages(n)))
            .fold(0, |all, page| all + page.iter().filter(|&&byte| byte == 5).count())
    };
    let own_pa = World::pa_of(B).add_pages((OWN - RAM.0) / 4096);
    (0..pages).for_each(|n| {
        world.manager.machine().edit_page(own_pa.add_pages(n), |page| page.fill(5));
    });
    let length = pages as u32 * 4096;
    let mut turn = b.send(COPY, &request(&[segment(own(OWN), of(handle, 0), length)]));
    let (mut seen, mut steps) = (0, 0);
    while let Turn::More(token) = turn {
        let now = marked();
        assert!(now - seen <= 6 * 1024, "{} bytes in one step", now - seen);
        seen = now;
        steps += 1;
        turn = b.resume(token);
    }
    assert!(steps >= few(5, 1), "{steps}");
    assert_eq!(marked(), length as usize);
}

#[test]
fn after_a_revocation_nothing_is_written_any_more() {
    let mut copied = Vec::new();
    let length = few(0x4000, 0x400);
    for stop in some(0..40, 20) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 4)]).unwrap();
        for at in (OWN..OWN + length).step_by(256) {
            world.cpu(B).write(Ipa(at), 5).unwrap();
        }
        b.step.set(1);
        let mut turn = b.send(COPY, &request(&[segment(own(OWN), of(handle, 0), length as u32)]));
        for _ in 0..stop {
            if let Turn::More(token) = turn {
                turn = b.resume(token);
            }
        }
        assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
        let after = bytes(&world, A, PAGE, length);
        while let Turn::More(token) = turn {
            turn = b.resume(token);
        }
        let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
        let status = statuses(&reply, 1)[0];
        assert!(
            status == 7 || after.iter().filter(|&&byte| byte == 5).count() as u64 == length / 256
        );
        assert_eq!(bytes(&world, A, PAGE, length), after, "stopped after {stop} steps");
        copied.push(status);
        a.reclaim(handle, 0).unwrap();
        world.check();
    }
    assert!(copied.contains(&7) && copied.contains(&0), "both sides of the race");
}

#[test]
fn a_recall_lets_only_those_copy_that_have_the_parcel() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6), (5, 6)]);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    b.accept_contiguous(handle, SHARED, (0x9000_0000, 3)).unwrap();
    let mut recall = [0; RevokeRequest::SIZE];
    let flags = RevokeFlags::RECALL;
    RevokeRequest { handle: Handle(handle), flags }.encode(&mut recall).unwrap();
    assert_eq!(a.words(REVOKE, &recall).0, 0);
    assert_eq!(copy_one(&b, of(handle, 0), own(OWN), 1), 0);
    assert_eq!(copy_one(&c, of(handle, 0), own(OWN), 1), 3);
    b.release(handle, 0).unwrap();
    assert_eq!(copy_one(&b, of(handle, 0), own(OWN), 1), 3);
}

#[test]
fn a_page_that_has_left_the_parcel_is_not_copied() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    let (a, b) = (world.caller(A), world.caller(B));
    let (flags, offset, size) = (TrimFlags::empty(), 0x1000, 0x1000);
    let mut trim = [0; TrimRequest::SIZE];
    TrimRequest { handle: Handle(handle), flags, offset, size }.encode(&mut trim).unwrap();
    assert_eq!(a.words(TRIM, &trim).0, 0);
    let at = |offset: u64, length| copy_one(&b, of(handle, offset), own(OWN), length);
    assert_eq!([at(0xfff, 1), at(0x1000, 1), at(0x1fff, 1), at(0x2000, 1)], [0, 0xc, 0xc, 0]);
    assert_eq!(at(0xfff, 2), 0xc, "stopped where the page is missing");
}

#[test]
fn an_uncached_parcel_is_copied_from_and_to_memory() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let attributes = [(Attribute::Uncached as u16, 4)];
    let payload = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE, 1)], &attributes);
    let (error, handle) = a.words(SHARED.message(), &payload);
    assert_eq!(error, 0);
    world.cpu(A).write(Ipa(PAGE), 7).unwrap();
    assert_eq!(copy_one(&b, of(handle, 0), own(OWN), 4), 0);
    assert_eq!(bytes(&world, B, OWN, 4), [7, 0, 0, 0]);
    world.cpu(B).write(Ipa(OWN), 8).unwrap();
    assert_eq!(copy_one(&b, own(OWN), of(handle, 2), 1), 0);
    assert_eq!(bytes(&world, A, PAGE, 4), [7, 0, 8, 0]);
    // The owner's own address of the page is uncached too.
    assert_eq!(copy_one(&a, own(PAGE), of(handle, 8), 4), 0);
    assert_eq!(bytes(&world, A, PAGE + 8, 4), [7, 0, 8, 0]);
    world.check();
}

#[test]
fn g5_what_a_vm_that_is_always_sanitized_has_copied_into_a_lend_is_wiped() {
    for always in [false, true] {
        let world = World::new(&[vm(3), VmConfig { sanitize_always: always, ..vm(4) }, vm(5)]);
        let handle = offered(&world, LENT, &[(4, 6)]);
        world.cpu(B).write(Ipa(OWN), 9).unwrap();
        assert_eq!(copy_one(&world.caller(B), own(OWN), of(handle, 0x1000), 1), 0);
        world.caller(A).reclaim(handle, 0).unwrap();
        let left = if always { 0 } else { 9 };
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(left));
        world.check();
    }
}

#[test]
fn a_window_lets_a_vm_copy_some_bytes_and_map_nothing() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6), (5, 6)]);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let before = world.check();
    assert_eq!(set_window(&a, handle, 4, (100, 100)), 0);
    let at = |guest: &Guest<'_>, offset: u64, length| {
        copy_one(guest, of(handle, offset), own(OWN), length)
    };
    assert_eq!([at(&b, 100, 100), at(&b, 199, 1), at(&b, 150, 0)], [0, 0, 0]);
    assert_eq!([at(&b, 99, 1), at(&b, 99, 2), at(&b, 199, 2), at(&b, 200, 1)], [6; 4]);
    assert_eq!(copy_one(&b, own(OWN), of(handle, 100), 100), 0);
    assert_eq!(copy_one(&b, own(OWN), of(handle, 100), 101), 6);
    assert_eq!(b.accept_contiguous(handle, SHARED, (0x9000_0000, 3)), Err(3));
    assert_eq!(b.last_refusal().rule, Rule::Window as u16);
    assert_eq!(at(&c, 0, 4096), 0, "C has no window");
    assert_eq!(world.check(), before);
    assert_eq!(set_window(&a, handle, 4, (0, 0)), 0);
    b.accept_contiguous(handle, SHARED, (0x9000_0000, 3)).unwrap();
    assert_eq!(set_window(&a, handle, 4, (100, 100)), 0xb);
    assert_eq!(a.last_refusal().holders(), [Vmid(4)]);
    b.release(handle, 0).unwrap();
    assert_eq!(set_window(&a, handle, 4, (100, 100)), 0);
    a.reclaim(handle, 0).unwrap();
    // The next parcel of the record has none.
    let next = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    b.accept_contiguous(next, SHARED, (0x9000_0000, 3)).unwrap();
    world.check();
}

#[test]
fn a_window_that_ends_a_creation_leaves_no_moment_to_map() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let payload = offer(CreateFlags::APPEND, &[(3, 6), (4, 6)], &[(PAGE, 1)], &[]);
    let (error, handle) = a.words(SHARED.message(), &payload);
    assert_eq!(error, 0);
    assert_eq!(b.accept(handle, SHARED, &[(0x9000_0000, 1)]), Err(7));
    assert_eq!(window(&a, handle, 4, (8, 8), WindowFlags::END), 0);
    assert_eq!(b.accept(handle, SHARED, &[(0x9000_0000, 1)]), Err(3));
    assert_eq!(copy_one(&b, of(handle, 8), own(OWN), 8), 0);
    assert_eq!(window(&a, handle, 4, (8, 8), WindowFlags::END), 3, "it has ended");
    assert_eq!(a.append(handle, true, &[(PAGE + 0x4000, 1)]), Err(3));
    a.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn g4_a_window_that_cannot_be_is_refused() {
    let world = world();
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    assert_eq!(set_window(&b, handle, 4, (0, 0)), 3);
    assert_eq!(set_window(&c, handle, 4, (0, 0)), 7);
    assert_eq!([3, 5, 0].map(|vmid| set_window(&a, handle, vmid, (0, 8))), [6; 3]);
    let ranges = [(0x3000, 1), (0x2fff, 2), (u64::MAX, 2), (8, 0), (1, u64::MAX)];
    assert_eq!(ranges.map(|range| set_window(&a, handle, 4, range)), [6; 5]);
    let given = a.offer(Transfer::Donate, &[(4, 7)], &[(PAGE + 0x11_0000, 1)]).unwrap();
    assert_eq!(set_window(&a, given, 4, (0, 8)), 6);
    assert_eq!(a.words(REVOKE, &by_handle(handle, 0)).0, 0);
    assert_eq!(set_window(&a, handle, 4, (0, 8)), 3);
    world.check();
}

#[test]
fn who_may_not_take_memory_of_others_does_not_copy_it_either() {
    let world = World::new(&[vm(3), VmConfig { may_consume: false, ..vm(4) }, vm(5)]);
    let handle = offered(&world, SHARED, &[(3, 6), (4, 6)]);
    let b = world.caller(B);
    assert_eq!(copy_one(&b, of(handle, 0), own(OWN), 1), 3);
    assert_eq!(copy_one(&b, own(OWN), of(handle, 0), 1), 3);
    assert_eq!(copy_one(&world.caller(A), of(handle, 0), own(OWN), 1), 0, "an owner may");
}

#[test]
fn a_copy_far_into_two_parcels_ends_the_same_in_steps_of_any_size() {
    let pages = |at: u64| (0..20).map(|page| (at + page * 0x2000, 1)).collect::<Vec<_>>();
    for step in some((1..12).chain([200, STEP]), 4) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let [from, to] = [PAGE, PAGE + 0x10_0000].map(pages);
        let [source, dest] =
            [&from, &to].map(|pages| a.offer(SHARED, &[(3, 6), (4, 6)], pages).unwrap());
        for (value, at) in (1..).zip(0x1_2ffe..0x1_3003_u64) {
            world.cpu(A).write(Ipa(from[(at >> 12) as usize].0 + at % 0x1000), value).unwrap();
        }
        b.step.set(step);
        let before = world.check();
        // Looking for a page takes a step or more on either side.
        assert_eq!(copy_one(&b, of(source, 0x1_2ffe), of(dest, 0x1_1ffd), 5), 0, "by {step}");
        let seen =
            |at: u64| world.cpu(A).read(Ipa(to[(at >> 12) as usize].0 + at % 0x1000)).unwrap();
        let seen: Vec<_> = (0x1_1ffc..0x1_2003).map(seen).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 0], "by {step}");
        assert_eq!(world.check(), before);
    }
}
