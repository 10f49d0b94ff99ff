//! Named heaps through the client, and as programs know them: dma-heaps.

mod common;

use common::Vcpu;
use rm::address::{Ipa, VmIndex};
use rm::config::VmName;
use rm::heap::HeapConfig;
use rm::machine::fake::world::{World, vm};
use rm_client::front::dmaheap::{
    ALLOC, ALLOC_V14, Allocated, AllocationData, DmaHeap, FeaturesData, GET_FEATURES_V14,
    O_CLOEXEC, O_RDONLY, O_RDWR, close,
};
use rm_client::front::membuf::{AclEntry, Buffer, LendArg, MemBuf, PERM_READ, PERM_WRITE};
use rm_client::front::{Direction, Errno, ioctl_number};
use rm_client::{
    Error, ErrorCode, HeapFeatures, NewParcel, PAGE_SIZE, Resource, Rights, Sanitize, Session,
    SglEntry, Vmid, grant,
};
use zerocopy::IntoBytes;

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const BLOCK: u64 = 2 << 20;
const MIB: u64 = 1 << 20;

type Client<'a> = Session<Vcpu<'a>>;

/// A and B may use "system", of which each may have three quarters; "mine" is B's.
fn world() -> World {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    let name = VmName::new("system");
    let system = HeapConfig { name, vms: 0b11, guaranteed: 0, limit: 12 * 512 };
    world.try_add_heap(system, 16).unwrap();
    world.add_heap("mine", 0b10, 1);
    world
}

fn session(world: &World, vm: VmIndex) -> Client<'_> {
    Session::new(Vcpu(world.caller(vm)))
}

fn settle(world: &World) {
    for vm in world.vms() {
        while world.manager.idle(vm) {}
    }
}

const fn wish(len: u64, fd_flags: u32) -> AllocationData {
    AllocationData { len, fd: 0, fd_flags, heap_flags: 0 }
}

/// Allocates, with descriptor 7.
fn alloc(session: &mut Client<'_>, heap: DmaHeap, arg: AllocationData) -> Result<Allocated, Errno> {
    let mut made = None;
    let done = heap.alloc(session, arg, |buffer| {
        made = Some(buffer);
        Ok(7)
    })?;
    assert_eq!(done, AllocationData { fd: 7, ..arg });
    Ok(made.unwrap())
}

#[test]
fn a_heap_is_found_by_its_name_and_pieces_come_and_go() {
    let world = world();
    let before = world.check();
    let (mut a, mut b, mut c) = (session(&world, A), session(&world, B), session(&world, C));
    let system = a.find_heap("system").unwrap().unwrap();
    assert_eq!((system.number, system.name(), system.size), (0, "system", 16 * BLOCK));
    assert_eq!(system.features, HeapFeatures::CONTIGUOUS);
    assert_eq!(b.find_heap("mine").unwrap().unwrap().number, 1);
    for name in ["mine", "", "sys", "system2", "a name that is far too long"] {
        assert_eq!(a.find_heap(name), Ok(None), "{name:?}");
    }
    assert_eq!((c.heap(0), c.find_heap("system")), (Ok(None), Ok(None)));
    let piece = a.heap_alloc(0, BLOCK + 1, None).unwrap();
    assert_eq!(piece.size, 2 * BLOCK);
    let used = |a: &mut Client<'_>| a.limits(Vmid(0)).unwrap().of(Resource::PagesOfHeaps).unwrap();
    assert_eq!((used(&mut a).used, used(&mut a).limit), (1024, 12 * 512));
    assert_eq!(a.find_heap("system").unwrap().unwrap().used, 2 * BLOCK);
    world.cpu(A).write(Ipa(piece.ipa), 7).unwrap();
    let chosen = a.heap_alloc(0, 4096, Some(0x9000_0000)).unwrap();
    assert_eq!(chosen, SglEntry { ipa: 0x9000_0000, size: 4096 });
    assert_eq!(a.heap_free(SglEntry { size: BLOCK, ..piece }), Ok(()));
    let rest = SglEntry { ipa: piece.ipa + BLOCK, size: BLOCK };
    assert_eq!((a.heap_free(rest), a.heap_free(chosen)), (Ok(()), Ok(())));
    assert_eq!(a.heap_free(chosen), Err(Error::Refused(ErrorCode::MemoryInvalid)));
    assert_eq!(used(&mut a).used, 0);
    settle(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn a_heap_that_a_vm_may_not_use_has_no_device() {
    let world = world();
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    assert_eq!(DmaHeap::open(&mut a, "mine"), Err(Errno::ENOENT));
    assert_eq!(DmaHeap::open(&mut a, "none"), Err(Errno::ENOENT));
    assert!(DmaHeap::open(&mut b, "mine").is_ok());
}

#[test]
fn allocations_are_refused_as_the_header_says_and_change_nothing() {
    let world = world();
    let before = world.check();
    let mut a = session(&world, A);
    let heap = DmaHeap::open(&mut a, "system").unwrap();
    let mut refused = |arg| heap.alloc(&mut a, arg, |_| panic!("not reached")).unwrap_err();
    for arg in [
        wish(0, O_RDWR),
        wish(u64::MAX, O_RDWR),
        wish(u64::MAX - 4094, O_RDWR),
        AllocationData { fd: 5, ..wish(1, O_RDWR) },
        AllocationData { heap_flags: 1, ..wish(1, O_RDWR) },
        wish(1, 4),
    ] {
        assert_eq!(refused(arg), Errno::EINVAL, "{arg:?}");
    }
    // More than its part, than the heap, than any heap.
    for len in [13 * BLOCK, 17 * BLOCK, 1 << 60] {
        assert_eq!(refused(wish(len, O_RDWR)), Errno::ENOMEM, "{len:#x}");
    }
    let full = Errno(24);
    assert_eq!(heap.alloc(&mut a, wish(3 * BLOCK, O_RDWR), |_| Err(full)), Err(full));
    settle(&world);
    assert_eq!(world.check(), before, "a descriptor that cannot be made leaves nothing behind");
    let one = alloc(&mut a, heap, wish(1, O_RDWR | O_CLOEXEC)).unwrap();
    assert_eq!((one.place.size, one.rights), (4096, Rights::RWX));
    assert_eq!(close(&mut a, one), Ok(()));
    settle(&world);
    assert_eq!(world.check(), before);
}

#[test]
fn an_exhausted_heap_says_enomem_and_its_count_is_exact() {
    let world = world();
    let mut b = session(&world, B);
    let heap = DmaHeap::open(&mut b, "mine").unwrap();
    let free = |b: &mut Client<'_>| b.find_heap("mine").unwrap().unwrap().free;
    let half = alloc(&mut b, heap, wish(MIB, O_RDWR)).unwrap();
    assert_eq!(alloc(&mut b, heap, wish(MIB + 1, O_RDWR)), Err(Errno::ENOMEM));
    assert_eq!(free(&mut b), MIB);
    let rest = alloc(&mut b, heap, wish(MIB, O_RDWR)).unwrap();
    assert_eq!(alloc(&mut b, heap, wish(1, O_RDWR)), Err(Errno::ENOMEM));
    assert_eq!(free(&mut b), 0);
    for buffer in [half, rest] {
        close(&mut b, buffer).unwrap();
    }
    assert_eq!(free(&mut b), 2 * MIB);
}

#[test]
fn a_descriptor_says_what_may_be_mapped_and_granted() {
    let world = world();
    let mut a = session(&world, A);
    let heap = DmaHeap::open(&mut a, "system").unwrap();
    // For reading, writing, both; the fourth number is none.
    let denied = Err(Errno::EACCES);
    for (flags, read, write) in [
        (O_RDONLY, Ok(()), denied),
        (O_RDWR, Ok(()), Ok(())),
        (1, denied, denied),
        (3, denied, denied),
    ] {
        let buffer = alloc(&mut a, heap, wish(4096, flags)).unwrap();
        assert_eq!((buffer.check(Rights::R), buffer.check(Rights::RW)), (read, write), "{flags}");
        assert_eq!(buffer.check(Rights::RX), read);
        let ranges = [buffer.place];
        let known =
            Buffer { ranges: &ranges, is_mapped: false, is_cached: true, rights: buffer.rights };
        for (perms, expected) in [(PERM_READ, read), (PERM_READ | PERM_WRITE, write)] {
            let acl = [AclEntry { vmid: 1, perms }];
            let arg = LendArg {
                dma_buf_fd: 7,
                nr_acl_entries: 1,
                acl_list: 0,
                memparcel_hdl: 0,
                reserved: [0; 3],
            };
            let mut front = MemBuf::new(&mut a).unwrap();
            let shared = front.share(arg, &acl, |_| Some(Vmid(4)), &known);
            assert_eq!(shared.map(|_| ()), expected, "{flags} {perms}");
            if let Ok(shared) = shared {
                assert_eq!(close(&mut a, buffer), Err(Errno::EBUSY), "it is shared");
                let parcel = rm_client::Handle(shared.memparcel_hdl as u32);
                a.reclaim(parcel, Sanitize::empty()).unwrap();
            }
        }
        assert_eq!(close(&mut a, buffer), Ok(()));
    }
}

/// The same call as programs of different age make it, and as the number says its length.
#[test]
fn older_and_newer_programs_are_served_by_either_number() {
    let world = world();
    let mut a = session(&world, A);
    let heap = DmaHeap::open(&mut a, "system").unwrap();
    let number = |nr, size| ioctl_number(Direction::Both, b'H', nr, size);
    for nr in [0, 1] {
        assert_eq!(number(nr, 24), [ALLOC, ALLOC_V14][usize::from(nr)]);
        for (size, end) in [(16, 0), (24, 0), (32, 0), (56, 0), (56, 0xa5)] {
            let mut arg = wish(4097, O_RDWR).as_bytes().to_vec();
            arg.resize(size, end);
            let mut made = None;
            let done = heap.ioctl(&mut a, number(nr, size), &mut arg, |buffer| {
                made = Some(buffer);
                Ok(9)
            });
            assert_eq!(done, Ok(()), "{size} bytes");
            assert_eq!((arg.len(), &arg[8..12]), (size, &[9, 0, 0, 0][..]));
            assert!(arg[size.min(24)..].iter().all(|&byte| byte == end), "the end stays");
            let buffer = made.unwrap();
            assert_eq!(buffer.place.size, 8192);
            close(&mut a, buffer).unwrap();
        }
    }
    let mut refused = |number, size: usize| {
        heap.ioctl(&mut a, number, &mut vec![0; size], |_| panic!("not reached")).unwrap_err()
    };
    assert_eq!(refused(ALLOC, 16), Errno::EFAULT);
    assert_eq!(refused(ioctl_number(Direction::Both, b'H', 2, 24), 24), Errno::EINVAL);
    assert_eq!(refused(ioctl_number(Direction::Both, b'I', 0, 24), 24), Errno::ENOTTY);
}

#[test]
fn features_are_told_whatever_the_programs_buffer_held() {
    let world = world();
    let mut a = session(&world, A);
    let heap = DmaHeap::open(&mut a, "system").unwrap();
    let told = FeaturesData { features: HeapFeatures::CONTIGUOUS.0 };
    assert_eq!(heap.features(), told);
    for garbage in [0, 0xa5, 0xff] {
        let mut arg = [garbage; 8];
        heap.ioctl(&mut a, GET_FEATURES_V14, &mut arg, |_| panic!("not reached")).unwrap();
        assert_eq!(arg, told.as_bytes());
    }
}

/// The idea of Linux's dma-heap selftest: buffers are filled and closed, and those that come next, here
/// another VM's, are zero; and a buffer is shared.
#[test]
fn g5_buffers_that_one_vm_filled_are_zero_for_the_next() {
    const BUFFERS: usize = 32;
    for size in [PAGE_SIZE, MIB] {
        let world = world();
        let before = world.check();
        let (mut a, mut b) = (session(&world, A), session(&world, B));
        let heap = DmaHeap::open(&mut a, "system").unwrap();
        let count = BUFFERS.min((12 * BLOCK / size) as usize);
        let mut places = vec![];
        for _ in 0..count {
            let buffer = alloc(&mut a, heap, wish(size, O_RDWR)).unwrap();
            for page in (0..size).step_by(4096) {
                let at = Ipa(buffer.place.ipa + page);
                assert_eq!(world.cpu(A).read(at), Ok(0));
                world.cpu(A).write(at, 0xff).unwrap();
                places.push(world.manager.allows(A, at, rm::stage2::Access::Read).unwrap());
            }
            let acl = [grant(Vmid(3), Rights::RW), grant(Vmid(4), Rights::R)];
            let parcel = a.share(&NewParcel::new(&[buffer.place], &acl)).unwrap();
            a.reclaim(parcel, Sanitize::empty()).unwrap();
            places.dedup();
        }
        world.end(A);
        world.settle(A, rm::operation::STEP);
        let mut again = 0;
        for _ in 0..count {
            let buffer = alloc(&mut b, heap, wish(size, O_RDWR)).unwrap();
            for page in (0..size).step_by(4096) {
                let at = Ipa(buffer.place.ipa + page);
                assert_eq!(world.cpu(B).read(at), Ok(0));
                let pa = world.manager.allows(B, at, rm::stage2::Access::Read).unwrap();
                again += usize::from(places.contains(&pa));
            }
            close(&mut b, buffer).unwrap();
        }
        assert!(again > 0, "it was other memory");
        settle(&world);
        assert_eq!(world.check(), before);
    }
}
