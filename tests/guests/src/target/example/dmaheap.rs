//! A VM whose programs allocate from dma-heaps: what Linux's selftest of them asks for, and more.
//!
//! The other VM ([`reader`]) looks at what comes of the memory.

use rm_client::front::dmaheap::{
    ALLOC, ALLOC_V14, Allocated, AllocationData, DmaHeap, GET_FEATURES_V14, O_CLOEXEC, O_RDONLY,
    O_RDWR, close,
};
use rm_client::front::{Direction, Errno, ioctl_number, sized};
use rm_client::hvc::Hvc;
use rm_client::{
    Acceptance, Handle, HeapFeatures, NewParcel, Rights, Sanitize, Session, Transfer, VmState,
    grant,
};

use super::{OWNER, PARTNER};
use crate::channel::Channel;
use crate::demo::{DONE, FROM_A, FROM_B, granted};
use crate::layout::{BLOCK, LINK_AB, PAGE};
use crate::{life, memory};

/// The heap of both, and the one of the first VM.
const SHARED: &str = "system";
const OWN: &str = "video";
/// Buffers that are filled, and how large they are.
const BUFFERS: usize = 32;
const SIZES: [u64; 2] = [PAGE, MIB];
const MIB: u64 = 1 << 20;
/// What they are filled with.
const FILL: u64 = u64::MAX;
/// Bytes that the boot configuration lets each VM have of the heap.
const LIMIT: u64 = 34 * MIB;
/// Bytes that each is sure of.
const SURE: u64 = 4 * MIB;
/// What the first VM still has when it ends.
const LEFT: u64 = 2 * BLOCK;

/// An allocation for a program that wants to read and write it, whose descriptor is 3.
fn alloc(session: &mut Session<Hvc>, heap: DmaHeap, len: u64) -> Result<Allocated, Errno> {
    let arg = AllocationData { len, fd: 0, fd_flags: O_RDWR | O_CLOEXEC, heap_flags: 0 };
    let mut made = None;
    heap.alloc(session, arg, |buffer| {
        made = Some(buffer);
        Ok(3)
    })?;
    made.ok_or(Errno::EIO)
}

/// What a program asked for that must be granted.
fn served<T>(what: &str, outcome: Result<T, Errno>) -> T {
    outcome.unwrap_or_else(|errno| panic!("{what}: {errno}"))
}

fn fill(buffer: Allocated) {
    for at in (buffer.place.ipa..buffer.place.ipa + buffer.place.size).step_by(8) {
        memory::write(at, FILL);
    }
}

fn free_bytes(session: &mut Session<Hvc>) -> u64 {
    granted("asking", session.find_heap(SHARED)).map_or(0, |heap| heap.free)
}

/// So many buffers of one size, all of them zero when they come.
fn buffers(session: &mut Session<Hvc>, heap: DmaHeap, size: u64) -> [Allocated; BUFFERS] {
    core::array::from_fn(|_| {
        let buffer = served("a buffer", alloc(session, heap, size));
        memory::check_zero(buffer.place.ipa, size / PAGE);
        buffer
    })
}

fn close_all(session: &mut Session<Hvc>, buffers: &[Allocated]) {
    for &buffer in buffers {
        served("closing a buffer", close(session, buffer));
    }
}

/// The VM that allocates and fills.
pub fn writer() {
    let (mut session, peer) = (life::session(), Channel::owner(LINK_AB));
    let mut from = 0;
    while let Some(heap) = granted("asking for heaps", session.heap(from)) {
        println!(
            "heap {:?} has {} MiB, of which I may have {}",
            heap.name(),
            heap.size / MIB,
            heap.limit / MIB
        );
        from = heap.number + 1;
    }
    assert!(from == 2, "the boot configuration has two heaps for me");
    let heap = served("opening a heap", DmaHeap::open(&mut session, SHARED));
    let all = free_bytes(&mut session);

    for size in SIZES {
        let buffers = buffers(&mut session, heap, size);
        assert!(free_bytes(&mut session) == all - BUFFERS as u64 * size, "the count is exact");
        buffers.iter().for_each(|&buffer| fill(buffer));
        close_all(&mut session, &buffers);
        println!("filled {BUFFERS} buffers of {} KiB with 0xff, and closed them", size >> 10);
        peer.say(DONE);
        peer.expect(DONE);
    }
    assert!(free_bytes(&mut session) == all);

    of_any_age(&mut session, heap);
    refusals(&mut session, heap);
    share(&mut session, heap, &peer);
    exhaust(&mut session, heap, &peer);

    let last = served("blocks", alloc(&mut session, heap, LEFT));
    fill(last);
    println!("I end with a full buffer of {} MiB", LEFT / MIB);
    peer.say(DONE);
    peer.expect(DONE);
}

/// Programs that know a shorter or a longer struct, and either number.
fn of_any_age(session: &mut Session<Hvc>, heap: DmaHeap) {
    let mut features = [0xa5; 8];
    served("features", heap.ioctl(session, GET_FEATURES_V14, &mut features, |_| Ok(0)));
    assert!(u64::from_le_bytes(features) == HeapFeatures::CONTIGUOUS.0, "{features:x?}");
    let arg = AllocationData { len: 1, fd: 0, fd_flags: O_RDONLY, heap_flags: 0 };
    for (nr, known) in [(1, ALLOC_V14), (0, ALLOC)] {
        for size in [16, 24, 56] {
            let number = ioctl_number(Direction::Both, b'H', nr, size);
            assert!(size != 24 || number == known);
            let mut bytes = [0; 56];
            sized::write(&arg, &mut bytes);
            let mut made = None;
            let done = heap.ioctl(session, number, &mut bytes[..size], |buffer| {
                made = Some(buffer);
                Ok(9)
            });
            served("an ioctl", done);
            let buffer = made.expect("it made a buffer");
            assert!(bytes[8] == 9 && buffer.place.size == PAGE && buffer.rights == Rights::RX);
            served("closing a buffer", close(session, buffer));
        }
    }
    println!("programs with structs of 16, 24 and 56 bytes and of both numbers are served");
}

fn refusals(session: &mut Session<Hvc>, heap: DmaHeap) {
    let arg = AllocationData { len: PAGE, fd: 0, fd_flags: O_RDWR, heap_flags: 0 };
    let mut refused = |arg, expected| {
        let answer = heap.alloc(session, arg, |_| Ok(3));
        assert!(answer == Err(expected), "{arg:?}: {answer:?}");
    };
    refused(AllocationData { len: 0, ..arg }, Errno::EINVAL);
    refused(AllocationData { len: u64::MAX, ..arg }, Errno::EINVAL);
    refused(AllocationData { fd: 5, ..arg }, Errno::EINVAL);
    refused(AllocationData { heap_flags: 1, ..arg }, Errno::EINVAL);
    refused(AllocationData { len: 1 << 40, ..arg }, Errno::ENOMEM);
    println!("lengths of 0 and 2^64-1, a descriptor and flags that there are not are refused");
}

/// A buffer of two blocks that the peer uses too.
fn share(session: &mut Session<Hvc>, heap: DmaHeap, peer: &Channel) {
    let buffer = served("blocks", alloc(session, heap, BLOCK + PAGE));
    let place = buffer.place;
    assert!(place.size == 2 * BLOCK && place.ipa.is_multiple_of(BLOCK), "{place:x?}");
    for block in [place.ipa, place.ipa + BLOCK + PAGE] {
        let leaf = granted("looking at a leaf", session.leaf(OWNER, block));
        assert!(leaf.level == 2 && leaf.pages == BLOCK / PAGE, "{leaf:x?}");
    }
    println!("a buffer of 2 MiB and a page is two blocks of 2 MiB at {:#x}", place.ipa);
    let acl = [grant(OWNER, Rights::RW), grant(PARTNER, Rights::RW)];
    let parcel = granted("sharing", session.share(&NewParcel::new(&[place], &acl)));
    memory::fill(place.ipa, place.size / PAGE, FROM_A);
    peer.say_handle(parcel);
    peer.expect(DONE);
    memory::check(place.ipa, place.size / PAGE, FROM_B);
    assert!(close(session, buffer) == Err(Errno::EBUSY), "it is shared");
    granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
    served("closing it", close(session, buffer));
    println!("my peer and I saw each other's words in it; then it is closed");
}

/// All that this VM may have, while the peer still gets what it is sure of.
fn exhaust(session: &mut Session<Hvc>, heap: DmaHeap, peer: &Channel) {
    let mut taken = [None; (LIMIT / MIB) as usize];
    for place in &mut taken {
        *place = Some(served("a buffer", alloc(session, heap, MIB)));
    }
    let free = free_bytes(session);
    assert!(alloc(session, heap, 1) == Err(Errno::ENOMEM), "it has all that it may");
    assert!(free_bytes(session) == free, "a refusal changes nothing");
    println!("took my {} MiB, and not a page more", LIMIT / MIB);
    peer.say(DONE);
    peer.expect(DONE);
    taken.into_iter().flatten().for_each(|buffer| served("closing", close(session, buffer)));
}

/// The VM that finds zeros.
pub fn reader() {
    let (mut session, peer) = (life::session(), Channel::peer(LINK_AB));
    assert!(DmaHeap::open(&mut session, OWN) == Err(Errno::ENOENT), "it is not mine");
    let heap = served("opening a heap", DmaHeap::open(&mut session, SHARED));
    println!("there is a heap {SHARED:?}, and none that is called {OWN:?}");
    // The peer may have begun, so what is free now is not all there is.
    let all = granted("asking", session.find_heap(SHARED)).map_or(0, |heap| heap.size);

    for size in SIZES {
        peer.expect(DONE);
        let buffers = buffers(&mut session, heap, size);
        println!("{BUFFERS} buffers of {} KiB from the same heap are zero", size >> 10);
        close_all(&mut session, &buffers);
        peer.say(DONE);
    }

    use_shared(&mut session, peer.hear_handle());
    peer.say(DONE);

    peer.expect(DONE);
    let sure = served("what I am sure of", alloc(&mut session, heap, SURE));
    served("closing it", close(&mut session, sure));
    println!("my peer has all that it may, and I still get my {} MiB", SURE / MIB);
    peer.say(DONE);

    peer.expect(DONE);
    assert!(free_bytes(&mut session) == all - LEFT);
    peer.say(DONE);
    // The link ends with the peer.
    while granted("asking", session.vm_state(OWNER)) == VmState::Running {
        crate::cpu::relax();
    }
    while free_bytes(&mut session) != all {
        crate::cpu::relax();
    }
    for _ in 0..LIMIT / LEFT {
        let buffer = served("blocks", alloc(&mut session, heap, LEFT));
        memory::check_zero(buffer.place.ipa, LEFT / PAGE);
    }
    println!("my peer has ended, and its {} MiB are the heap's again, zero", LEFT / MIB);
}

fn use_shared(session: &mut Session<Hvc>, parcel: Handle) {
    let wanted = Acceptance::new(parcel, Transfer::Share).contiguous();
    let mut places = granted("accepting", session.accept(&wanted));
    let place = places.next().expect("a contiguous parcel has one place");
    memory::check(place.ipa, place.size / PAGE, FROM_A);
    memory::fill(place.ipa, place.size / PAGE, FROM_B);
    granted("releasing", session.release(parcel, Sanitize::empty()));
    println!("saw what my peer wrote into a buffer of its own, and wrote into it");
}
