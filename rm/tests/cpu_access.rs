//! CPU_ACCESS: what brackets around a CPU's use of a parcel do for devices that do not look into caches.

use rm::address::{Ipa, VmIndex};
use rm::config::StreamConfig;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, by_handle, offer, vm};
use rm::machine::{Direction, Features, Stream};
use rm::operation::STEP;
use rm_abi::extension::{
    ATTACH, AccessFlags, AttachFlags, AttachRequest, CPU_ACCESS, CpuAccessRequest, DMA_MAP,
    DMA_UNMAP, DmaRequest, REVOKE, Rule,
};
use rm_abi::{CreateFlags, Handle, Transfer, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const COHERENT: Stream = Stream(1);
const BLIND: Stream = Stream(2);
const READ: AccessFlags = AccessFlags::READ;
const WRITE: AccessFlags = AccessFlags::WRITE;
const END: AccessFlags = AccessFlags::END;
const PAGES: u64 = 3;

fn world() -> World {
    let mut vms = [vm(3), vm(4), vm(5)];
    let device = |stream, is_coherent| Some(StreamConfig { stream, address_bits: 40, is_coherent });
    (vms[1].streams[0], vms[1].streams[1]) = (device(COHERENT, true), device(BLIND, false));
    World::with_features(&vms, Features { forced_write_back: false, smmu: true })
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, rm_abi::EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).unwrap();
    payload.truncate(length);
    payload
}

fn access(guest: &Guest<'_>, handle: u32, flags: AccessFlags) -> u32 {
    let request = CpuAccessRequest { handle: Handle(handle), flags };
    guest.words(CPU_ACCESS, &encoded(|into| request.encode(into))).0
}

/// A share of A's that B has mapped, and that a device of B's reads and writes.
fn with_device(world: &World, stream: Stream) -> u32 {
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, PAGES)]).unwrap();
    b.accept_contiguous(handle, Transfer::Share, (WINDOW, PAGES)).unwrap();
    let flags = AttachFlags::empty();
    let request = AttachRequest { handle: Handle(handle), stream, flags };
    assert_eq!(b.words(ATTACH, &encoded(|into| request.encode(into))).0, 0);
    assert_eq!(dma(&b, DMA_MAP, handle, stream), 0);
    handle
}

fn dma(guest: &Guest<'_>, call: u32, handle: u32, stream: Stream) -> u32 {
    let direction = Direction::Bidirectional as u32;
    let request = DmaRequest { handle: Handle(handle), stream, direction };
    guest.words(call, &encoded(|into| request.encode(into))).0
}

fn cleaned(world: &World) -> u64 {
    world.manager.machine().counters().cleaned
}

#[test]
fn a_device_that_bypasses_the_caches_sees_what_was_written_when_the_bracket_ends() {
    for step in some([1, 200, STEP], 3) {
        let world = world();
        let handle = with_device(&world, BLIND);
        let (cpu, device, b) = (world.cpu(B), world.device(BLIND), world.caller(B));
        b.step.set(step);
        let at = Ipa(WINDOW + 0x2010);
        cpu.write(at, 7).unwrap();
        assert_eq!(device.read(at), Ok(0), "it is in the cache alone");
        assert_eq!(access(&b, handle, WRITE), 0);
        cpu.write(at, 8).unwrap();
        assert_eq!(device.read(at), Ok(7), "the beginning has cleaned what was there");
        assert_eq!(access(&b, handle, WRITE | END), 0);
        assert_eq!(device.read(at), Ok(8));
        // And the other way, for both VMs.
        device.write(at, 9).unwrap();
        assert_eq!(cpu.read(at), Ok(8), "the cache knows nothing of it");
        let a = world.caller(A);
        assert_eq!(access(&a, handle, READ), 0);
        assert_eq!((cpu.read(at), world.cpu(A).read(Ipa(PAGE + 0x2010))), (Ok(9), Ok(9)));
        assert_eq!(access(&a, handle, READ | END), 0);
        world.check();
    }
}

#[test]
fn a_map_and_its_end_bring_cpu_and_device_together_as_a_bracket_does() {
    let world = world();
    let handle = with_device(&world, BLIND);
    let (cpu, device, b) = (world.cpu(B), world.device(BLIND), world.caller(B));
    device.write(Ipa(WINDOW), 5).unwrap();
    assert_eq!(dma(&b, DMA_UNMAP, handle, BLIND), 0);
    assert_eq!(cpu.read(Ipa(WINDOW)), Ok(5));
    cpu.write(Ipa(WINDOW), 6).unwrap();
    assert_eq!(dma(&b, DMA_MAP, handle, BLIND), 0);
    assert_eq!(device.read(Ipa(WINDOW)), Ok(6));
    world.check();
}

#[test]
fn caches_are_touched_where_they_are_in_the_way_and_nowhere_else() {
    let uncached = |world: &World| {
        let request =
            offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE, PAGES)], &[(2, 3), (2, 4)]);
        world.caller(A).words(message::MEM_SHARE, &request).1
    };
    // Who has it, and pages that are maintained at the four kinds of brackets.
    type Make = fn(&World) -> u32;
    let cases: [(Make, [u64; 5]); 4] = [
        (|world| with_device(world, BLIND), [PAGES, 0, PAGES, PAGES, PAGES]),
        (|world| with_device(world, COHERENT), [0; 5]),
        (
            |world| {
                world.caller(A).offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, PAGES)]).unwrap()
            },
            [0; 5],
        ),
        (uncached, [PAGES, 0, PAGES, PAGES, PAGES]),
    ];
    for (make, expected) in cases {
        let world = world();
        let handle = make(&world);
        let a = world.caller(A);
        let counts = [READ, READ | END, WRITE, WRITE | END, READ | WRITE].map(|flags| {
            let before = cleaned(&world);
            assert_eq!(access(&a, handle, flags), 0, "{flags:?}");
            cleaned(&world) - before
        });
        assert_eq!(counts, expected);
    }
}

#[test]
fn brackets_nest_and_are_counted_for_each_vm() {
    let world = world();
    let handle = with_device(&world, BLIND);
    let (a, b) = (world.caller(A), world.caller(B));
    let refused = |guest: &Guest<'_>| {
        let before = cleaned(&world);
        assert_eq!(access(guest, handle, READ | END), 6);
        assert_eq!(guest.last_refusal().rule, Rule::NotBegun as u16);
        assert_eq!(cleaned(&world), before, "nothing was done");
    };
    refused(&a);
    for _ in 0..3 {
        assert_eq!(access(&b, handle, READ), 0);
    }
    refused(&a);
    for _ in 0..3 {
        assert_eq!(access(&b, handle, READ | END), 0);
    }
    refused(&b);
    // A bracket holds nobody up, and does not outlive the part in the parcel that it was about.
    assert_eq!((access(&a, handle, WRITE), access(&b, handle, WRITE)), (0, 0));
    b.release(handle, 0).unwrap();
    assert_eq!(access(&b, handle, WRITE | END), 0xc);
    b.accept_contiguous(handle, Transfer::Share, (WINDOW, PAGES)).unwrap();
    refused(&b);
    b.release(handle, 0).unwrap();
    a.reclaim(handle, 0).unwrap();
    let again = a.offer(Transfer::Share, &[(3, 6), (4, 6)], &[(PAGE, PAGES)]).unwrap();
    assert_eq!(access(&a, again, WRITE | END), 6, "of a parcel that is gone");
    world.check();
}

#[test]
fn g4_a_bracket_of_nothing_or_by_nobody_is_refused() {
    let world = world();
    let handle = with_device(&world, BLIND);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(VmIndex(2)));
    for flags in [0, 4, 8, 9, 0x8000_0001] {
        assert_eq!(access(&b, handle, AccessFlags(flags)), 6, "{flags:#x}");
    }
    assert_eq!(access(&c, handle, READ), 7);
    let lent = a.offer(Transfer::Lend, &[(4, 4)], &[(PAGE + 0x8000, 1)]).unwrap();
    assert_eq!((access(&a, lent, READ), access(&b, lent, READ)), (3, 0xc));
    b.accept_contiguous(lent, Transfer::Lend, (WINDOW + 0x10_0000, 1)).unwrap();
    assert_eq!(access(&b, lent, WRITE), 3, "it may only read");
    assert_eq!(b.last_refusal().rule, Rule::DeviceRights as u16);
    assert_eq!((access(&b, lent, READ), access(&b, lent, READ | END)), (0, 0));
}

#[test]
fn g7_a_bracket_around_many_pages_is_done_in_short_steps_and_ends_with_the_parcel() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let (pages, step) = few((512, STEP), (24, 500));
    b.step.set(step);
    let ranges = [(PAGE, pages)];
    let request = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &ranges, &[(2, 3), (2, 4)]);
    let handle = a.words(message::MEM_SHARE, &request).1;
    b.accept_contiguous(handle, Transfer::Share, (WINDOW, pages)).unwrap();
    let request = CpuAccessRequest { handle: Handle(handle), flags: READ };
    let bytes = encoded(|into| request.encode(into));
    let mut turn = b.send(CPU_ACCESS, &bytes);
    let mut before = cleaned(&world);
    while let Turn::More(token) = turn {
        turn = b.resume(token);
        assert!(cleaned(&world) - before <= u64::from(step / 64 + 1));
        before = cleaned(&world);
    }
    assert_eq!(turn, Turn::Reply(vec![0; 4]));
    // Whoever loses the parcel in the middle of it is told so.
    let Turn::More(token) = b.send(CPU_ACCESS, &bytes) else { panic!("at once") };
    assert_eq!(a.words(REVOKE, &[&handle.to_le_bytes()[..], &[0; 4]].concat()).0, 0);
    assert_eq!(b.resume(token), Turn::Reply(vec![7, 0, 0, 0]));
    a.reclaim(handle, 0).unwrap();
    world.check();
}

#[test]
fn an_access_that_begins_while_its_vm_loses_the_parcel_has_not_begun() {
    for owns in [true, false] {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let uncached = [(2, 3), (2, 4)];
        let request = offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE, PAGES)], &uncached);
        let (_, handle) = a.words(message::MEM_SHARE, &request);
        if !owns {
            b.accept_contiguous(handle, Transfer::Share, (WINDOW, PAGES)).unwrap();
        }
        let caller = if owns { &a } else { &b };
        caller.step.set(1);
        let access = CpuAccessRequest { handle: Handle(handle), flags: WRITE };
        let turn = caller.send(CPU_ACCESS, &encoded(|into| access.encode(into)));
        let Turn::More(token) = turn else { panic!("{turn:?}") };
        // Another vCPU takes the parcel back, or its owner takes it away.
        let second = world.caller(A);
        if !owns {
            assert_eq!(second.words(REVOKE, &by_handle(handle, 0)).0, 0);
        }
        second.reclaim(handle, 0).unwrap();
        let done = cleaned(&world);
        assert_eq!(caller.resume(token), Turn::Reply(vec![7, 0, 0, 0]));
        assert_eq!(cleaned(&world), done, "no page of it is touched any more");
        world.check();
    }
}
