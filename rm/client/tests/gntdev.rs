//! gntdev over the manager and the strict fake: what a program's ioctl does to pages, and what it hears.

mod common;

use std::collections::HashMap;

use common::Vcpu;
use rm::address::{Ipa, Pa, VmIndex};
use rm::audit::AuditReport;
use rm::config::VmConfig;
use rm::machine::Line;
use rm::machine::fake::world::{RAM, World, by_handle, vm};
use rm::quota::Quotas;
use rm::stage2::MemoryType;
use rm_abi::extension::REVOKE;
use rm_client::front::Errno;
use rm_client::front::gntdev::{
    Buffers, COPY_DEST_GRANT, COPY_SOURCE_GRANT, CopySegment, CopySide, DMA_COHERENT, DMA_WC, Done,
    EXP_FROM_REFS, EXP_WAIT_RELEASED, ExportFromRefs, ExportWaitReleased, GET_OFFSET_FOR_VADDR,
    GRANT_COPY, GRANT_COPY_32, GetOffsetForVaddr, GntDev, GrantCopy, GrantCopy32, GrantPlace,
    GrantRef, IMP_RELEASE, IMP_TO_REFS, ImportRelease, ImportToRefs, MAP_GRANT_REF, MapGrantRef,
    NOTIFY_CLEAR_BYTE, NOTIFY_SEND_EVENT, PORTS_PER_CHANNEL, Place, Program, SET_MAX_GRANTS,
    SET_UNMAP_NOTIFY, SetMaxGrants, UNMAP_GRANT_REF, UnmapGrantRef, UnmapNotify,
};
use rm_client::{Handle, NewParcel, Policy, Rights, Session, Vmid, WindowFlags, grant, pages};
use zerocopy::{FromBytes, IntoBytes};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
/// Where B's driver has room for mappings, and the address that its program sees.
const ROOM: u64 = 0x9000_0000;
const VADDR: u64 = 0x7f00_0000_0000;
/// Where the structs of a program are, in addresses that mean nothing to anybody else.
const ARG: u64 = 0xffff_8000_0000;
/// The program's data: its virtual address, which is RAM at [`DATA_IPA`], one page after the other swapped.
const DATA: u64 = 0x1_0000;
const DATA_IPA: u64 = RAM.0 + 0x60_0000;

type Client<'a> = Session<Vcpu<'a>>;
type Device = GntDev<16>;

/// VM 3 grants, VM 4 uses, VM 5 looks on. B's channel 2 leads to A's doorbell 1.
fn world() -> World {
    let world = World::new(&[vm(3), vm(4), vm(5)]);
    world.manager.connect_doorbells((A, 1), (B, 2));
    world
}

fn session(world: &World, vm: VmIndex) -> Client<'_> {
    Session::new(Vcpu(world.caller(vm)))
}

/// A program, and its driver's descriptors.
struct Task {
    arg: Vec<u8>,
    room: u64,
    rooms: usize,
    /// Pages of each buffer's descriptor.
    buffers: HashMap<u32, Vec<u64>>,
    next_fd: u32,
    /// From this descriptor on none can be made.
    last_fd: u32,
    is_read_only: bool,
}

impl Task {
    fn new() -> Self {
        let buffers = HashMap::new();
        Self {
            arg: vec![],
            room: ROOM,
            rooms: 0,
            buffers,
            next_fd: 40,
            last_fd: 99,
            is_read_only: false,
        }
    }
}

impl Program for Task {
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Errno> {
        let first = at.checked_sub(ARG).ok_or(Errno::EFAULT)? as usize;
        let end = first.checked_add(into.len()).ok_or(Errno::EFAULT)?;
        into.copy_from_slice(self.arg.get(first..end).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno> {
        let first = at.checked_sub(ARG).ok_or(Errno::EFAULT)? as usize;
        let end = first.checked_add(from.len()).ok_or(Errno::EFAULT)?;
        let into = self.arg.get_mut(first..end).filter(|_| !self.is_read_only);
        into.ok_or(Errno::EFAULT)?.copy_from_slice(from);
        Ok(())
    }

    fn address(&mut self, at: u64, _: bool) -> Result<u64, Errno> {
        if !(DATA..DATA + 0x4000).contains(&at) {
            return Err(Errno::EFAULT);
        }
        Ok(DATA_IPA + ((at - DATA) ^ 0x1000))
    }
}

impl Buffers for Task {
    fn room(&mut self, count: u32) -> Result<u64, Errno> {
        self.rooms += 1;
        self.room += 0x10_0000;
        assert!(count <= 16);
        Ok(self.room)
    }

    fn free(&mut self, _: u64, _: u32) {
        self.rooms -= 1;
    }

    fn install(&mut self, at: u64, count: u32) -> Result<u32, Errno> {
        if self.next_fd >= self.last_fd {
            return Err(Errno::ENOMEM);
        }
        self.next_fd += 1;
        let pages = (0..u64::from(count)).map(|n| at + n * 4096).collect();
        self.buffers.insert(self.next_fd, pages);
        Ok(self.next_fd)
    }

    fn size(&mut self, fd: u32) -> Result<u64, Errno> {
        Ok(self.buffers.get(&fd).ok_or(Errno::EBADF)?.len() as u64 * 4096)
    }

    fn page(&mut self, fd: u32, number: u32) -> Result<u64, Errno> {
        Ok(self.buffers[&fd][number as usize])
    }
}

/// A context, its program and its VM's session.
struct Open<'a> {
    device: Device,
    task: Task,
    session: Client<'a>,
}

impl<'a> Open<'a> {
    fn new(world: &'a World, vm: VmIndex) -> Self {
        Self { device: Device::new(), task: Task::new(), session: session(world, vm) }
    }

    fn call(&mut self, number: u32, arg: &[&[u8]]) -> Result<Done, Errno> {
        self.task.arg = arg.concat();
        self.device.ioctl(&mut self.session, &mut self.task, number, ARG)
    }

    fn now(&mut self, number: u32, arg: &[&[u8]]) -> Result<(), Errno> {
        self.call(number, arg).map(|done| assert_eq!(done, Done::Now))
    }

    fn answer<S: FromBytes>(&self) -> S {
        S::read_from_prefix(&self.task.arg).unwrap().0
    }

    fn reserve(&mut self, refs: &[(u32, u32)]) -> Result<u64, Errno> {
        let refs: Vec<_> = refs.iter().map(|&(domid, grant)| GrantRef { domid, grant }).collect();
        let head = MapGrantRef { count: refs.len() as u32, pad: 0, index: 77 };
        self.now(MAP_GRANT_REF, &[head.as_bytes(), refs.as_bytes()])?;
        Ok(self.answer::<MapGrantRef>().index)
    }

    fn map(&mut self, index: u64, count: u32, at: u64, writable: bool) -> Result<(), Errno> {
        let place = Place { vaddr: VADDR + (at - ROOM), ipa: at, writable };
        self.device.map(&mut self.session, (index, count), place)
    }

    fn unreserve(&mut self, index: u64, count: u32) -> Result<(), Errno> {
        self.now(UNMAP_GRANT_REF, &[UnmapGrantRef { index, count, pad: 0 }.as_bytes()])
    }

    fn notify(&mut self, index: u64, action: u32, event_channel_port: u32) -> Result<(), Errno> {
        let arg = UnmapNotify { index, action, event_channel_port };
        self.now(SET_UNMAP_NOTIFY, &[arg.as_bytes()])
    }

    fn unmap(&mut self, at: u64) -> Result<(), Errno> {
        self.device.unmap(&mut self.session, VADDR + (at - ROOM))
    }

    fn max(&mut self, count: u32) -> Result<(), Errno> {
        self.now(SET_MAX_GRANTS, &[SetMaxGrants { count }.as_bytes()])
    }

    fn copy(&mut self, segments: &[CopySegment]) -> Result<Vec<i16>, Errno> {
        let head = GrantCopy { count: segments.len() as u32, pad: 0, segments: ARG + 16 };
        self.now(GRANT_COPY, &[head.as_bytes(), segments.as_bytes()])?;
        let done = <[CopySegment]>::ref_from_bytes(&self.task.arg[16..]).unwrap();
        Ok(done.iter().map(|segment| segment.status).collect())
    }

    fn export(&mut self, flags: u32, refs: &[u32]) -> Result<u32, Errno> {
        let head = ExportFromRefs { flags, count: refs.len() as u32, fd: 0, domid: 3 };
        self.now(EXP_FROM_REFS, &[head.as_bytes(), refs.as_bytes()])?;
        Ok(self.answer::<ExportFromRefs>().fd)
    }
}

/// A grant of page `n` of A's to B.
fn granted(session: &mut Client<'_>, n: u64, rights: Rights) -> u32 {
    let acl = [grant(Vmid(3), Rights::RWX), grant(Vmid(4), rights)];
    session.share(&NewParcel::new(&[pages(PAGE + n * 0x2000, 1)], &acl)).unwrap().0
}

fn grants(session: &mut Client<'_>, count: u64) -> Vec<u32> {
    (0..count).map(|n| granted(session, n, Rights::RW)).collect()
}

fn settled(world: &World) -> AuditReport {
    while [A, B, C].iter().any(|&vm| world.manager.idle(vm)) {}
    world.check()
}

#[test]
fn a_window_of_several_grants_is_mapped_whole_or_not_at_all() {
    let world = world();
    let mut a = session(&world, A);
    let refs = grants(&mut a, 3);
    let read_only = granted(&mut a, 3, Rights::R);
    let before = settled(&world);
    (0..4).for_each(|n| world.cpu(A).write(Ipa(PAGE + n * 0x2000), n as u8 + 1).unwrap());
    for bad in 0..3 {
        // None of A's, of another domain, of no domain, to be read only, the same one twice.
        let others = [(3, 0x7777_0001), (5, refs[2]), (1 << 20, refs[2]), (3, read_only)];
        for (other, errno) in
            others.into_iter().zip([Errno::EINVAL, Errno::EINVAL, Errno::EINVAL, Errno::EPERM])
        {
            let mut b = Open::new(&world, B);
            let mut all = [(3, refs[0]), (3, refs[1]), (3, refs[2])];
            all[bad] = other;
            let index = b.reserve(&all).unwrap();
            assert_eq!(b.map(index, 3, ROOM, true), Err(errno), "{other:?} at {bad}");
            assert_eq!(settled(&world), before, "nothing is mapped");
            assert_eq!(b.map(index, 3, ROOM, true), Err(errno), "and it can be tried again");
        }
    }
    let mut b = Open::new(&world, B);
    let twice = b.reserve(&[(3, refs[0]), (3, refs[0])]).unwrap();
    assert_eq!(b.map(twice, 2, ROOM, true), Err(Errno::EPERM));
    assert_eq!(settled(&world), before);
    let index = b.reserve(&[(3, refs[0]), (3, refs[1]), (3, refs[2]), (3, read_only)]).unwrap();
    for (index, count) in [(index, 3), (index, 5), (index + 4096, 3), (index + 1, 4), (index, 0)] {
        assert_eq!(b.map(index, count, ROOM, false), Err(Errno::EINVAL), "not all of it");
    }
    b.map(index, 4, ROOM, false).unwrap();
    assert_eq!(b.map(index, 4, ROOM + 0x10_0000, false), Err(Errno::EINVAL), "mapped already");
    let seen = [0, 1, 2, 3].map(|n| world.cpu(B).read(Ipa(ROOM + n * 4096)));
    assert_eq!(seen, [Ok(1), Ok(2), Ok(3), Ok(4)], "side by side");
    b.unmap(ROOM).unwrap();
    assert_eq!(b.unmap(ROOM), Err(Errno::EINVAL));
    assert_eq!(settled(&world), before);
    b.map(index, 4, ROOM, false).unwrap();
    b.device.close(&mut b.session).unwrap();
    assert_eq!(settled(&world), before, "a close unmaps");
}

#[test]
fn an_index_is_reserved_found_by_address_and_given_back_by_index_and_count() {
    let world = world();
    let refs = grants(&mut session(&world, A), 4);
    let mut b = Open::new(&world, B);
    let all: Vec<_> = refs.iter().map(|&handle| (3, handle)).collect();
    let first = b.reserve(&all[..2]).unwrap();
    let second = b.reserve(&all[2..]).unwrap();
    assert_eq!((first, second), (0, 2 * 4096), "disjoint, in pages");
    assert_eq!(b.reserve(&[]), Err(Errno::EINVAL));
    let many = MapGrantRef { count: 65_537, pad: 0, index: 0 };
    assert_eq!(b.now(MAP_GRANT_REF, &[many.as_bytes()]), Err(Errno::EINVAL));
    let cut_short = MapGrantRef { count: 2, pad: 0, index: 0 };
    assert_eq!(b.now(MAP_GRANT_REF, &[cut_short.as_bytes(), &[0; 12]]), Err(Errno::EFAULT));
    b.task.is_read_only = true;
    assert_eq!(b.reserve(&all), Err(Errno::EFAULT), "the answer cannot be written");
    b.task.is_read_only = false;
    assert_eq!(b.reserve(&[(3, refs[0]); 13]), Err(Errno::ENOMEM), "the table is full");
    b.map(second, 2, ROOM, true).unwrap();
    let mut find = |vaddr| {
        let arg = GetOffsetForVaddr { vaddr, offset: 0, count: 0, pad: 0 };
        b.now(GET_OFFSET_FOR_VADDR, &[arg.as_bytes()])?;
        let found: GetOffsetForVaddr = b.answer();
        Ok((found.offset, found.count))
    };
    assert_eq!(find(VADDR), Ok((second, 2)));
    for vaddr in [VADDR + 4096, VADDR + 1, VADDR - 4096, 0] {
        assert_eq!(find(vaddr), Err(Errno::EINVAL), "{vaddr:#x}");
    }
    assert_eq!(b.unreserve(second, 2), Err(Errno::EBUSY), "mapped");
    b.unmap(ROOM).unwrap();
    for (index, count) in [(second, 1), (second, 3), (second + 4096, 1), (1, 0), (u64::MAX, 0)] {
        assert_eq!(b.unreserve(index, count), Err(Errno::ENOENT), "{index:#x}, {count}");
    }
    assert_eq!(b.unreserve(second, 2), Ok(()));
    assert_eq!(b.unreserve(second, 2), Err(Errno::ENOENT));
    assert_eq!(b.unreserve(first, 0), Ok(()), "0 fits any");
    assert_eq!(b.reserve(&all), Ok(0), "used again, from the lowest");
    assert_eq!(b.now(0xdead, &[]), Err(Errno::ENOTTY));
}

#[test]
fn limits_of_a_context_come_first_and_those_of_the_vm_hold_for_all() {
    let few = Quotas { pages_accepted: 6, ..Quotas::USUAL };
    let world = World::new(&[vm(3), VmConfig { quotas: few, ..vm(4) }, vm(5)]);
    let refs = grants(&mut session(&world, A), 8);
    let all: Vec<_> = refs.iter().map(|&handle| (3, handle)).collect();
    let mut b = Open::new(&world, B);
    assert_eq!(b.max(7), Err(Errno::E2BIG), "the VM may have six");
    b.max(6).unwrap();
    b.max(4).unwrap();
    assert_eq!(b.reserve(&all[..5]), Err(Errno::ENOSPC));
    assert_eq!(b.max(4), Err(Errno::EBUSY), "not first");
    let index = b.reserve(&all[..4]).unwrap();
    assert_eq!(b.reserve(&all[4..5]), Err(Errno::ENOSPC));
    b.map(index, 4, ROOM, true).unwrap();
    assert_eq!(b.max(5), Err(Errno::EBUSY));
    // Another context has a limit of its own, and the VM has one for both.
    let mut other = Open::new(&world, B);
    other.max(4).unwrap();
    let index = other.reserve(&all[4..]).unwrap();
    let before = settled(&world);
    assert_eq!(other.map(index, 4, ROOM + 0x10_0000, true), Err(Errno::ENOSPC));
    assert_eq!(settled(&world), before);
    other.unreserve(index, 4).unwrap();
    let index = other.reserve(&all[4..6]).unwrap();
    other.map(index, 2, ROOM + 0x10_0000, true).unwrap();
}

/// A window of three grants that B has mapped, the second with a notification for byte 0x10 and flag 5.
fn notified<'a>(world: &'a World) -> (Open<'a>, Vec<u32>) {
    let refs = grants(&mut session(world, A), 3);
    for n in 0..3 {
        (0..32).for_each(|at| world.cpu(A).write(Ipa(PAGE + n * 0x2000 + at), 7).unwrap());
    }
    let mut b = Open::new(world, B);
    let all: Vec<_> = refs.iter().map(|&handle| (3, handle)).collect();
    let index = b.reserve(&all).unwrap();
    b.map(index, 3, ROOM, true).unwrap();
    let port = 2 * PORTS_PER_CHANNEL + 5;
    b.notify(index + 0x1010, NOTIFY_CLEAR_BYTE | NOTIFY_SEND_EVENT, port).unwrap();
    (b, refs)
}

fn bytes(world: &World, n: u64) -> Vec<u8> {
    (15..18).map(|at| world.cpu(A).read(Ipa(PAGE + n * 0x2000 + at)).unwrap()).collect()
}

fn rung(world: &World) -> u64 {
    world.interrupts(A, Line::Doorbell(1))
}

#[test]
fn what_was_to_be_done_is_done_once_at_an_unmap_a_close_a_revocation_and_a_death() {
    for way in 0..4 {
        let world = world();
        let (mut b, refs) = notified(&world);
        assert_eq!((rung(&world), bytes(&world, 1)), (0, vec![7; 3]));
        match way {
            0 => b.unmap(ROOM).unwrap(),
            1 => b.device.close(&mut b.session).unwrap(),
            2 => {
                let a = world.caller(A);
                assert_eq!(a.words(REVOKE, &by_handle(refs[1], 0)).0, 0);
            }
            _ => {
                world.end(B);
                world.settle(B, 1);
            }
        }
        assert_eq!((rung(&world), bytes(&world, 1)), (1, vec![7, 0, 7]), "way {way}");
        assert_eq!((bytes(&world, 0), bytes(&world, 2)), (vec![7; 3], vec![7; 3]));
        if way == 2 {
            b.unmap(ROOM).unwrap();
            assert_eq!(rung(&world), 1, "one grant of the window was gone, and not told twice");
        }
        world.check();
    }
}

#[test]
fn notifications_are_checked_replaced_and_called_off() {
    let world = world();
    let (mut b, refs) = notified(&world);
    let read_only = granted(&mut session(&world, A), 8, Rights::R);
    let ro = b.reserve(&[(3, read_only)]).unwrap();
    b.map(ro, 1, ROOM + 0x10_0000, false).unwrap();
    assert_eq!(b.notify(ro, NOTIFY_CLEAR_BYTE, 0), Err(Errno::EINVAL), "it is only read");
    assert_eq!(b.notify(0x10, 4, 0), Err(Errno::EINVAL));
    assert_eq!(
        b.notify(0x10, NOTIFY_SEND_EVENT, PORTS_PER_CHANNEL),
        Err(Errno::EINVAL),
        "no such channel"
    );
    assert_eq!(b.notify(0x10, NOTIFY_SEND_EVENT, u32::MAX), Err(Errno::EINVAL));
    assert_eq!(b.notify(4 * 4096, NOTIFY_CLEAR_BYTE, 0), Err(Errno::ENOENT), "behind the last");
    // Another byte of the page takes the place of the first; other pages have their own.
    b.notify(0x1011, NOTIFY_CLEAR_BYTE, 0).unwrap();
    b.notify(0x0010, NOTIFY_CLEAR_BYTE, 0).unwrap();
    b.notify(0x2010, NOTIFY_CLEAR_BYTE, 0).unwrap();
    b.notify(0x2010, 0, 0).unwrap();
    b.unmap(ROOM).unwrap();
    assert_eq!([0, 1, 2].map(|n| bytes(&world, n)), [vec![7, 0, 7], vec![7, 7, 0], vec![7; 3]]);
    assert_eq!(rung(&world), 0, "the bell went with the first byte");
    // What is said before a page is mapped holds, if it can be; if not nothing is mapped.
    let before = settled(&world);
    let (both, clear) = (NOTIFY_CLEAR_BYTE | NOTIFY_SEND_EVENT, NOTIFY_CLEAR_BYTE);
    let index = b.reserve(&[(3, refs[0]), (3, refs[1])]).unwrap();
    b.notify(index + 0x1001, clear, 0).unwrap();
    assert_eq!(b.map(index, 2, ROOM, false), Err(Errno::EINVAL), "a byte cannot be cleared");
    b.notify(index + 0x1001, both, u32::MAX).unwrap();
    assert_eq!(b.map(index, 2, ROOM, true), Err(Errno::EINVAL), "nobody can be rung");
    assert_eq!(settled(&world), before);
    b.notify(index + 0x100f, both, 2 * PORTS_PER_CHANNEL).unwrap();
    b.map(index, 2, ROOM, true).unwrap();
    b.unmap(ROOM).unwrap();
    assert_eq!((bytes(&world, 1), rung(&world)), (vec![0, 7, 0], 1));
    b.map(index, 2, ROOM, true).unwrap();
    b.unmap(ROOM).unwrap();
    assert_eq!(rung(&world), 1, "once");
}

const fn of(grant: u32, offset: u16) -> CopySide {
    CopySide::of_grant(GrantPlace { grant, offset, domid: 3 })
}

const fn segment(source: CopySide, dest: CopySide, len: u16, flags: u16) -> CopySegment {
    CopySegment { source, dest, len, flags, status: 99, pad: 0 }
}

#[test]
fn a_copy_has_a_status_for_each_segment_and_follows_the_program_s_pages() {
    let world = world();
    let mut a = session(&world, A);
    let (rw, ro) = (granted(&mut a, 0, Rights::RW), granted(&mut a, 1, Rights::R));
    (0..4096).for_each(|at| world.cpu(A).write(Ipa(PAGE + at), (at / 256) as u8).unwrap());
    let before = settled(&world);
    let mut b = Open::new(&world, B);
    // Two pages of the program, which are not side by side in the VM.
    let whole = segment(of(rw, 0), CopySide(DATA + 0x800), 4096, COPY_SOURCE_GRANT);
    assert_eq!(b.copy(&[whole]), Ok(vec![0]));
    let first = Ipa(DATA_IPA + 0x1800);
    let second = Ipa(DATA_IPA);
    assert_eq!([world.cpu(B).read(first), world.cpu(B).read(second)], [Ok(0), Ok(8)]);
    assert_eq!(world.cpu(B).read(Ipa(DATA_IPA + 0x7ff)), Ok(15));
    let good = segment(of(rw, 0x10), CopySide(DATA), 4, COPY_SOURCE_GRANT);
    let bads = [
        (segment(CopySide(DATA), of(ro, 0), 4, COPY_DEST_GRANT), -8),
        (segment(of(0x7777_0001, 0), CopySide(DATA), 4, COPY_SOURCE_GRANT), -3),
        (
            segment(
                CopySide::of_grant(GrantPlace { grant: rw, offset: 0, domid: 5 }),
                CopySide(DATA),
                4,
                COPY_SOURCE_GRANT,
            ),
            -2,
        ),
    ];
    for (at, (bad, status)) in [0, 6, 19].into_iter().flat_map(|at| bads.map(|bad| (at, bad))) {
        let mut segments = vec![good; 20];
        segments[at] = bad;
        let mut wanted = vec![0; 20];
        wanted[at] = status;
        assert_eq!(b.copy(&segments), Ok(wanted));
    }
    // Between two grants, and into one.
    let both = COPY_SOURCE_GRANT | COPY_DEST_GRANT;
    assert_eq!(b.copy(&[segment(of(rw, 0xf00), of(rw, 0), 256, both)]), Ok(vec![0]));
    assert_eq!(world.cpu(A).read(Ipa(PAGE + 255)), Ok(15));
    // Nothing is nothing, whatever it is of.
    let nothing = segment(of(0x7777_0001, 4096), CopySide(0), 0, COPY_SOURCE_GRANT);
    assert_eq!(b.copy(&[nothing]), Ok(vec![0]));
    let refused = [
        segment(CopySide(DATA), CopySide(DATA + 8), 4, 0),
        segment(of(rw, 0), CopySide(DATA), 4, 5),
        segment(of(rw, 4095), CopySide(DATA), 2, COPY_SOURCE_GRANT),
        segment(of(rw, u16::MAX), CopySide(DATA), u16::MAX, COPY_SOURCE_GRANT),
    ];
    for segment in refused {
        assert_eq!(b.copy(&[good, segment]), Err(Errno::EINVAL), "{segment:?}");
    }
    let nowhere = segment(of(rw, 0), CopySide(DATA + 0x3fff), 2, COPY_SOURCE_GRANT);
    assert_eq!(b.copy(&[nowhere]), Err(Errno::EFAULT));
    let head = GrantCopy { count: 2, pad: 0, segments: ARG + 16 };
    assert_eq!(b.now(GRANT_COPY, &[head.as_bytes(), good.as_bytes()]), Err(Errno::EFAULT));
    let endless = GrantCopy { count: u32::MAX, pad: 0, segments: u64::MAX - 8 };
    assert_eq!(b.now(GRANT_COPY, &[endless.as_bytes()]), Err(Errno::EFAULT));
    let no_pointer = GrantCopy32 { count: 1, segments: 16 };
    assert_eq!(b.now(GRANT_COPY_32, &[no_pointer.as_bytes(), good.as_bytes()]), Err(Errno::EFAULT));
    assert_eq!(settled(&world), before, "no copy has mapped anything");
}

#[test]
fn a_window_of_bytes_is_copied_and_no_more() {
    let world = world();
    let mut a = session(&world, A);
    let handle = Handle(granted(&mut a, 0, Rights::RW));
    a.set_window(handle, Vmid(4), (100, 100), WindowFlags::empty()).unwrap();
    let mut b = Open::new(&world, B);
    let at = |offset, len| segment(of(handle.0, offset), CopySide(DATA), len, COPY_SOURCE_GRANT);
    let statuses = b.copy(&[at(100, 100), at(99, 1), at(199, 2), at(200, 1)]);
    assert_eq!(statuses, Ok(vec![0, -10, -10, -10]));
    let index = b.reserve(&[(3, handle.0)]).unwrap();
    assert_eq!(b.map(index, 1, ROOM, false), Err(Errno::EPERM));
}

#[test]
fn grants_become_a_buffer_whose_end_can_be_waited_for() {
    let world = world();
    let mut a = session(&world, A);
    let refs = grants(&mut a, 4);
    let before = settled(&world);
    let mut b = Open::new(&world, B);
    for flags in [3, 4, 8, u32::MAX] {
        assert_eq!(b.export(flags, &refs), Err(Errno::EINVAL), "flags {flags}");
    }
    assert_eq!(b.export(0, &[]), Err(Errno::EINVAL));
    assert_eq!(b.export(0, &[refs[0], refs[1], 0x7777_0001]), Err(Errno::EINVAL));
    assert_eq!(b.export(DMA_WC, &refs), Err(Errno::EINVAL), "they are cached");
    b.task.last_fd = 0;
    assert_eq!(b.export(0, &refs), Err(Errno::ENOMEM), "no descriptor");
    b.task.last_fd = 99;
    b.task.is_read_only = true;
    assert_eq!(b.export(0, &refs), Err(Errno::EFAULT), "the answer cannot be written");
    b.task.is_read_only = false;
    assert_eq!((settled(&world), b.task.rooms), (before, 0), "nothing is left of any of them");
    let fd = b.export(DMA_COHERENT, &refs).unwrap();
    assert_eq!(b.task.size(fd), Ok(4 * 4096));
    assert_eq!(settled(&world).borrowed, before.borrowed + 4);
    let wait = |b: &mut Open<'_>, fd, wait_to_ms| {
        b.call(EXP_WAIT_RELEASED, &[ExportWaitReleased { fd, wait_to_ms }.as_bytes()])
    };
    assert_eq!(wait(&mut b, 7, 100), Err(Errno::ENOENT));
    let Ok(Done::Wait(waiting)) = wait(&mut b, fd, 100) else { panic!("it is there") };
    assert_eq!(b.device.poll_released(waiting, 0), None);
    assert_eq!(b.device.poll_released(waiting, 99), None);
    assert_eq!(b.device.poll_released(waiting, 100), Some(Err(Errno::ETIMEDOUT)));
    let Ok(Done::Wait(at_once)) = wait(&mut b, fd, 0) else { panic!("it is there") };
    assert_eq!(b.device.poll_released(at_once, 0), Some(Err(Errno::ETIMEDOUT)));
    b.device.close(&mut b.session).unwrap();
    assert_eq!(
        settled(&world).borrowed,
        before.borrowed + 4,
        "the buffer outlives its context's close"
    );
    b.device.close_buffer(&mut b.session, &mut b.task, fd).unwrap();
    assert_eq!(b.device.poll_released(waiting, 50), Some(Ok(())));
    assert_eq!(wait(&mut b, fd, 100), Err(Errno::ENOENT), "it is over");
    assert_eq!(b.device.close_buffer(&mut b.session, &mut b.task, fd), Err(Errno::EBADF));
    assert_eq!((settled(&world), b.task.rooms), (before, 0));
    // The next buffer with that descriptor is another one.
    b.task.next_fd -= 1;
    assert_eq!(b.export(0, &refs), Ok(fd));
    assert_eq!(b.device.poll_released(waiting, 50), Some(Ok(())));
}

#[test]
fn write_combining_is_what_the_grant_says_and_the_same_for_both_sides() {
    let world = world();
    let mut a = session(&world, A);
    let refs = grants(&mut a, 2);
    refs.iter().for_each(|&handle| a.set_policy(Handle(handle), Policy::Uncached).unwrap());
    let mut b = Open::new(&world, B);
    assert_eq!([0, DMA_COHERENT].map(|flags| b.export(flags, &refs)), [Err(Errno::EINVAL); 2]);
    let fd = b.export(DMA_WC, &refs).unwrap();
    let at = Ipa(b.task.page(fd, 1).unwrap());
    let policy = |vm, at| {
        let page = world.manager.with_page(vm, |page| page(at, rm::stage2::Access::Read));
        page.unwrap().memory
    };
    assert_eq!(policy(B, at), MemoryType::NonCacheable);
    assert_eq!(policy(A, Ipa(PAGE + 0x2000)), MemoryType::NonCacheable);
    world.check();
}

/// A's buffer of four pages of RAM, which do not lie side by side.
fn buffer(a: &mut Open<'_>) -> u32 {
    a.task.buffers.insert(7, (0..4).map(|n| PAGE + n * 0x3000).collect());
    7
}

fn import(a: &mut Open<'_>, fd: u32, count: u32, reserved: u32) -> Result<Vec<u32>, Errno> {
    let head = ImportToRefs { fd, count, domid: 4, reserved };
    a.now(IMP_TO_REFS, &[head.as_bytes(), &vec![0; 4 * count as usize]])?;
    Ok(a.task.arg[16..]
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect())
}

fn end_import(a: &mut Open<'_>, fd: u32, reserved: u32) -> Result<(), Errno> {
    a.now(IMP_RELEASE, &[ImportRelease { fd, reserved }.as_bytes()])
}

#[test]
fn a_buffer_becomes_a_grant_for_each_page_and_its_end_waits_for_no_one() {
    let world = world();
    let mut a = Open::new(&world, A);
    let fd = buffer(&mut a);
    let before = settled(&world);
    assert_eq!(import(&mut a, fd, 4, 1), Err(Errno::EINVAL), "reserved");
    assert_eq!(
        [3, 5, 0].map(|count| import(&mut a, fd, count, 0)),
        [const { Err(Errno::EINVAL) }; 3]
    );
    assert_eq!(import(&mut a, 8, 4, 0), Err(Errno::EBADF));
    assert_eq!(end_import(&mut a, fd, 0), Err(Errno::ENOENT));
    a.task.is_read_only = true;
    assert_eq!(import(&mut a, fd, 4, 0), Err(Errno::EFAULT));
    a.task.is_read_only = false;
    assert_eq!(settled(&world), before);
    let refs = import(&mut a, fd, 4, 0).unwrap();
    (0..4).for_each(|n| world.cpu(A).write(Ipa(PAGE + n * 0x3000), n as u8 + 1).unwrap());
    let mut b = Open::new(&world, B);
    let index = b.reserve(&[(3, refs[2])]).unwrap();
    b.map(index, 1, ROOM, true).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(ROOM)), Ok(3), "the third page alone");
    world.cpu(B).write(Ipa(ROOM), 9).unwrap();
    assert_eq!(end_import(&mut a, fd, 1), Err(Errno::EINVAL));
    end_import(&mut a, fd, 0).unwrap();
    let ending = [0, 1, 2, 3].map(|n| a.device.is_ending(PAGE + n * 0x3000));
    assert_eq!(ending, [false, false, true, false], "B has it still");
    assert_eq!(world.cpu(B).read(Ipa(ROOM)), Ok(9), "and may go on");
    assert_eq!(a.device.released(&mut a.session, Handle(refs[2])), Ok(None), "it was not true");
    assert_eq!(a.device.released(&mut a.session, Handle(refs[0])), Ok(None), "that is home");
    b.unmap(ROOM).unwrap();
    let again = b.map(index, 1, ROOM, true);
    assert_eq!(again, Err(Errno::EPERM), "it cannot be begun anew");
    let home = a.device.released(&mut a.session, Handle(refs[2]));
    assert_eq!(home, Ok(Some(PAGE + 2 * 0x3000)));
    assert!(!a.device.is_ending(PAGE + 2 * 0x3000));
    assert_eq!(settled(&world), before);
    assert_eq!(world.cpu(A).read(Ipa(PAGE + 2 * 0x3000)), Ok(9));
}

#[test]
fn ten_thousand_grants_that_end_late_leave_nothing_behind() {
    let world = world();
    let mut a = Open::new(&world, A);
    let fd = buffer(&mut a);
    let before = settled(&world);
    let mut b = Open::new(&world, B);
    for _ in 0..2500 {
        let refs = import(&mut a, fd, 4, 0).unwrap();
        let all: Vec<_> = refs.iter().map(|&handle| (3, handle)).collect();
        let index = b.reserve(&all).unwrap();
        b.map(index, 4, ROOM, true).unwrap();
        end_import(&mut a, fd, 0).unwrap();
        b.unmap(ROOM).unwrap();
        b.unreserve(index, 4).unwrap();
        // Who reads nothing is offered nothing any more.
        assert_eq!(world.caller(B).packets().len(), 4);
        for (n, &handle) in (0..).zip(&refs) {
            let home = a.device.released(&mut a.session, Handle(handle)).unwrap();
            assert_eq!(home, Some(PAGE + n * 0x3000));
        }
    }
    assert_eq!(settled(&world), before);
}

#[test]
fn when_the_parcels_run_out_no_page_of_the_buffer_is_granted() {
    let few = Quotas { parcels: 3, ..Quotas::USUAL };
    let world = World::new(&[VmConfig { quotas: few, ..vm(3) }, vm(4), vm(5)]);
    let mut a = Open::new(&world, A);
    let fd = buffer(&mut a);
    let before = settled(&world);
    assert_eq!(import(&mut a, fd, 4, 0), Err(Errno::ENOSPC));
    assert_eq!(settled(&world), before);
    let pa = Pa(World::pa_of(A).0 + (PAGE - RAM.0));
    assert_eq!(world.manager.allows(A, Ipa(PAGE), rm::stage2::Access::Write), Some(pa));
}
