//! What earlier systems got wrong, tried here. `tests/ADVISORIES.md` lists the classes; those that other
//! tests prove are not repeated.

use rm::address::{Ipa, VmIndex};
use rm::machine::Line;
use rm::machine::Machine;
use rm::machine::fake::effort::{effort, few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, vm};
use rm::operation::STEP;
use rm_abi::extension::{
    CALLS, COPY, CopyRequest, CopySegment, CopySide, KNOWN_CALLS, NOTIFY_SET, NotifyActions,
    NotifySetRequest, SET_WINDOW, TRIM, TrimFlags, TrimRequest, WindowFlags, WindowRequest,
};
use rm_abi::{AcceptFlags, Bytes, Handle, HypercallError, Transfer, Vmid, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const OWN: u64 = RAM.0 + 0x60_0000;
const WINDOW: u64 = 0x9000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;

fn world() -> World {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    world.manager.connect_doorbells((A, 1), (B, 2));
    world
}

fn copy(segments: &[CopySegment]) -> Vec<u8> {
    let mut payload = vec![0; rm_abi::MAX_PAYLOAD];
    let length = CopyRequest::encode(segments, &mut payload).unwrap();
    payload.truncate(length);
    payload
}

fn will(handle: u32, offset: u64) -> Vec<u8> {
    let (handle, actions) = (Handle(handle), NotifyActions::all());
    let request = NotifySetRequest { handle, actions, offset, doorbell: 2, flag: 0 };
    let mut payload = vec![0; NotifySetRequest::SIZE];
    request.encode(&mut payload).unwrap();
    payload
}

fn window(handle: u32, vmid: u16, (offset, size): (u64, u64)) -> Vec<u8> {
    let (handle, flags) = (Handle(handle), WindowFlags::empty());
    let mut payload = vec![0; WindowRequest::SIZE];
    WindowRequest { handle, vmid: Vmid(vmid), flags, offset, size }.encode(&mut payload).unwrap();
    payload
}

fn trim(handle: u32, (offset, size): (u64, u64)) -> Vec<u8> {
    let (handle, flags) = (Handle(handle), TrimFlags::empty());
    let mut payload = vec![0; TrimRequest::SIZE];
    TrimRequest { handle, flags, offset, size }.encode(&mut payload).unwrap();
    payload
}

/// Every call that takes a handle first.
fn calls() -> impl Iterator<Item = u32> {
    let known = (3..64).filter(|n| KNOWN_CALLS >> n & 1 != 0).map(|n| CALLS + n);
    let gunyah = [
        message::MEM_APPEND,
        message::MEM_ACCEPT,
        message::MEM_RELEASE,
        message::MEM_RECLAIM,
        message::MEM_NOTIFY,
    ];
    known.chain(gunyah)
}

/// No lock is held by this thread, whatever the call came to.
fn free_of_locks(world: &World) {
    let held = world.manager.machine().held_ranks();
    assert_eq!(held.load(core::sync::atomic::Ordering::Relaxed), 0, "a lock is held");
}

#[test]
fn xsa_18_any_handle_and_offset_is_refused_and_none_is_an_index() {
    let world = world();
    let real = world.caller(A).offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 2)]).unwrap();
    let before = world.check();
    let slot = (1 << 13) - 1;
    let handles = [0, 1, real ^ 1, real ^ 1 << 13, slot, slot + 1, u32::MAX - 1, u32::MAX];
    for caller in [A, B, C] {
        let guest = world.caller(caller);
        let cases = calls().flat_map(|call| handles.map(|handle| (call, handle)));
        for (call, handle) in cases.filter(|(_, handle)| *handle != real) {
            for filler in some([0, 1, 0x7f, 0xff], 4) {
                let mut payload = vec![filler; 64];
                payload[..4].copy_from_slice(&handle.to_le_bytes());
                guest.call(call, &payload);
                free_of_locks(&world);
            }
        }
        let offsets =
            [0x2000, 0x1fff + 2, 1 << 31, 1 << 32, 1 << 44, 1 << 63, u64::MAX - 1, u64::MAX];
        for offset in offsets {
            let side = CopySide::Parcel(Handle(real), offset);
            let own = CopySide::Own(OWN);
            let segments = [(side, own), (own, side), (side, side)]
                .map(|(source, dest)| CopySegment { source, dest, length: 2 });
            let reply = guest.call(COPY, &copy(&segments));
            assert!((0..3).all(|n| reply.u32_at(8 + 4 * n) != 0), "{offset:#x}");
            assert_ne!(guest.words(NOTIFY_SET, &will(real, offset)).0, 0, "{offset:#x}");
            assert_ne!(guest.words(SET_WINDOW, &window(real, 4, (offset, 2))).0, 0, "{offset:#x}");
            assert_ne!(guest.words(TRIM, &trim(real, (offset, 4096))).0, 0, "{offset:#x}");
        }
    }
    assert_eq!(world.check(), before);
}

#[test]
fn xsa_73_vms_copy_between_each_other_s_parcels_at_once_and_none_waits_for_ever() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let ours = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 4)]).unwrap();
    let theirs = b.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 4)]).unwrap();
    let before = world.check();
    std::thread::scope(|scope| {
        for (vm, from, to) in [(A, ours, theirs), (B, theirs, ours)] {
            let world = &world;
            scope.spawn(move || {
                let guest = world.caller(vm);
                let (source, dest) =
                    (CopySide::Parcel(Handle(from), 0), CopySide::Parcel(Handle(to), 0));
                let payload = copy(&[CopySegment { source, dest, length: few(0x4000, 0x200) }; 3]);
                for round in 0..few(60, 3) * effort::<u64>() {
                    guest.step.set([1, 200, STEP][round as usize % 3]);
                    assert_eq!(guest.call(COPY, &payload)[8..20], [0; 12]);
                    free_of_locks(world);
                }
            });
        }
    });
    assert_eq!(world.check(), before);
}

#[test]
fn xsa_134_what_is_no_vm_is_no_party() {
    let world = world();
    let handle = world.caller(A).offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    let a = world.caller(A);
    for vmid in [0, 1, 2, 31, 255, 256, u16::MAX] {
        assert_eq!(a.words(SET_WINDOW, &window(handle, vmid, (0, 8))).0, 6, "{vmid}");
    }
    for vmid in [0, 1, 2, 256, u16::MAX] {
        assert_eq!(a.offer(LENT, &[(vmid, 6)], &[(PAGE + 0x1_0000, 1)]), Err(6), "{vmid}");
    }
    // One that may exist later gets nothing by not existing; and one that was reset is another.
    a.offer(LENT, &[(31, 6)], &[(PAGE + 0x1_0000, 1)]).unwrap();
    world.end(B);
    world.settle(B, STEP);
    assert!(world.cpu(B).read(Ipa(WINDOW)).is_err());
    world.check();
}

#[test]
fn xsa_217_a_page_that_has_moved_on_is_out_of_reach_of_all_who_had_it() {
    for step in some([1, STEP], 3) {
        let world = world();
        let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
        [&a, &b, &c].iter().for_each(|guest| guest.step.set(step));
        for _ in 0..3 {
            for (guest, vmid) in [(&b, 4), (&c, 5)] {
                let handle = a.offer(LENT, &[(vmid, 6)], &[(PAGE, 2)]).unwrap();
                guest.accept(handle, LENT, &[(WINDOW, 2)]).unwrap();
                // The strict fake keeps this translation until it is invalidated.
                world.cpu(guest.vm).write(Ipa(WINDOW), 7).unwrap();
                for other in [A, B, C].into_iter().filter(|&vm| vm != guest.vm) {
                    let at = if other == A { PAGE } else { WINDOW };
                    assert!(world.cpu(other).read(Ipa(at)).is_err(), "{other:?}");
                }
                guest.release(handle, 0).unwrap();
                a.reclaim(handle, 1).unwrap();
                world.cpu(A).write(Ipa(PAGE), 1).unwrap();
            }
        }
        world.check();
    }
}

#[test]
fn xsa_218_of_two_vcpus_that_release_at_once_one_does_and_what_was_to_be_done_is_done_once() {
    let world = world();
    let a = world.caller(A);
    let before = world.check();
    for round in 0..few(150, 3) * effort::<u64>() {
        let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 3)]).unwrap();
        let b = world.caller(B);
        b.accept(handle, SHARED, &[(WINDOW, 3)]).unwrap();
        assert_eq!(b.words(NOTIFY_SET, &will(handle, 0x1000)).0, 0);
        let released = std::thread::scope(|scope| {
            let vcpus = [0, 1].map(|_| {
                let world = &world;
                scope.spawn(move || world.caller(B).release(handle, 0))
            });
            vcpus.map(|vcpu| vcpu.join().unwrap())
        });
        let won = released.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(won, 1, "{released:?}");
        assert_eq!(world.interrupts(A, Line::Doorbell(1)), round + 1);
        a.reclaim(handle, 0).unwrap();
    }
    while [A, B].iter().any(|&vm| world.manager.idle(vm)) {}
    let mut after = world.check();
    after.mergeable = before.mergeable;
    assert_eq!(after, before);
}

#[test]
fn xsa_227_what_is_not_aligned_is_refused() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 2)]).unwrap();
    let before = world.check();
    for bit in 0..12 {
        let off = 1 << bit;
        assert_eq!(a.offer(LENT, &[(4, 6)], &[(PAGE + 0x1_0000 + off, 1)]), Err(6));
        let flags = AcceptFlags::DONE | AcceptFlags::MAP_CONTIGUOUS;
        let mut payload = accept(handle, SHARED, flags, &[(WINDOW + off, 2)]);
        assert_eq!(b.words(message::MEM_ACCEPT, &payload).0, 6);
        payload = accept(handle, SHARED, flags, &[(WINDOW, 2)]);
        // The size is the second word of the only range, before the empty list of attributes.
        let at = payload.len() - 12;
        assert_eq!(payload.u64_at(at), 0x2000);
        payload[at..at + 8].copy_from_slice(&(0x2000 + off).to_le_bytes());
        assert_eq!(b.words(message::MEM_ACCEPT, &payload).0, 6);
        assert_eq!(a.words(TRIM, &trim(handle, (off, 4096))).0, 6);
        assert_eq!(a.words(TRIM, &trim(handle, (0, off))).0, 6);
    }
    assert_eq!(world.check(), before);
}

#[test]
fn xsa_382_a_reply_has_no_more_than_its_receiver_has_room_for() {
    let world = world();
    let b = world.caller(B);
    let handle = world.caller(A).offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 1)]).unwrap();
    let (source, dest) = (CopySide::Parcel(Handle(handle), 0), CopySide::Own(OWN));
    let payload = copy(&[CopySegment { source, dest, length: 1 }; 40]);
    let mut bytes = rm_abi::Header::request(COPY, 7).encode().to_vec();
    bytes.extend_from_slice(&payload);
    for capacity in (0..1000).step_by(few(3, 30)) {
        b.put_request(&bytes);
        match b.direct(bytes.len() as u64, capacity, 0) {
            Turn::Reply(reply) => assert!(reply.len() + 8 <= capacity as usize),
            Turn::Error(error, 0) => assert_eq!(error, HypercallError::ARGUMENT_SIZE),
            mut turn @ Turn::More(_) => {
                while let Turn::More(token) = turn {
                    turn = b.resume(token);
                }
                assert!(matches!(turn, Turn::Reply(reply) if reply.len() == 8 + 40 * 4));
            }
            other => panic!("{capacity}: {other:?}"),
        }
        free_of_locks(&world);
    }
}

#[test]
fn xsa_394_what_is_given_up_twice_is_counted_once() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 4)]).unwrap();
    b.accept(handle, SHARED, &[(WINDOW, 4)]).unwrap();
    for (guest, pages) in [(&b, 2), (&a, 2)] {
        assert_eq!(guest.words(TRIM, &trim(handle, (0x1000, pages * 4096))).0, 0);
        for range in [(0x1000, 4096), (0x1000, 8192), (0, 8192), (0x2000, 8192), (0, 0x4000)] {
            assert_eq!(guest.words(TRIM, &trim(handle, range)).0, 0xc, "{range:?}");
        }
    }
    b.release(handle, 0).unwrap();
    assert_eq!(b.release(handle, 0), Err(0xc));
    a.reclaim(handle, 0).unwrap();
    assert_eq!(a.reclaim(handle, 0), Err(7));
    world.check();
}

#[test]
fn xsa_500_a_request_that_is_rewritten_while_it_is_served_is_served_as_it_came() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 4)], &[(PAGE, 4)]).unwrap();
    for at in (PAGE..PAGE + 0x4000).step_by(512) {
        world.cpu(A).write(Ipa(at), 7).unwrap();
    }
    let length = few(0x1000, 0x400);
    b.step.set(1);
    let (parcel, own) = (CopySide::Parcel(Handle(handle), 0), CopySide::Own(OWN));
    let wish = CopySegment { source: parcel, dest: own, length };
    let mut turn = b.send(COPY, &copy(&[wish; 9]));
    // What is there now would write where B may not, or read where nothing is.
    let other = CopySegment { source: CopySide::Own(0), dest: parcel, length: 0x4000 };
    let mut steps = 0;
    while let Turn::More(token) = turn {
        b.put_request(&copy(&[other; 400]));
        turn = b.resume(token);
        steps += 1;
    }
    let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
    assert_eq!((steps > 9, &reply[4..8], &reply[8..]), (true, &[9, 0, 0, 0][..], &[0; 36][..]));
    assert_eq!(world.cpu(B).read(Ipa(OWN + 512)), Ok(7));
    assert_eq!(world.cpu(B).read(Ipa(OWN + u64::from(length))), Ok(0));
}

#[test]
fn linux_391_a_peer_that_rings_without_end_is_heard_once_until_it_is_read() {
    let world = world();
    let b = world.caller(B);
    let handle = world.caller(A).offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 64)]).unwrap();
    b.accept(handle, SHARED, &[(WINDOW, 64)]).unwrap();
    let frames = world.manager.frames_used(A);
    for page in 0..64 {
        assert_eq!(b.words(NOTIFY_SET, &will(handle, page * 4096)).0, 0);
    }
    assert_eq!(b.call(message::MEM_RELEASE, &by_handle(handle, 0))[..4], [0; 4]);
    assert_eq!(world.manager.frames_used(A), frames, "what A is told takes nothing of A's");
    assert!(rung_flags(&world.caller(A)) == 1, "64 rings are one flag");
    assert!(rung_flags(&world.caller(A)) == 0);
}

/// The flags of A's doorbell, which are clear then.
fn rung_flags(a: &Guest<'_>) -> u64 {
    let own = rm_abi::Capability::doorbell_receive(1).0;
    let args = [own, u64::MAX, 0, 0, 0];
    a.hypercall(rm_abi::hypercall::DOORBELL_RECEIVE, args).unwrap().x[1]
}
