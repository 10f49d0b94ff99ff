//! dma-buf's calls over the manager and the strict fake: devices, brackets, maps, references.

mod common;

use common::Vcpu;
use rm::address::{Ipa, VmIndex};
use rm::config::{StreamConfig, VmConfig};
use rm::machine::Features;
use rm::machine::fake::world::{RAM, World, vm};
use rm_client::front::Errno;
use rm_client::front::dmabuf::{
    self, Buffer, SEEK_END, SEEK_SET, SYNC_END, SYNC_READ, SYNC_START, SYNC_WRITE, Sync,
};
use rm_client::{
    Acceptance, AttachFlags, Counter, Direction, Error, ErrorCode, Handle, HolderStage, LARGEST,
    NewParcel, Rights, Rule, Session, SglEntry, Stream, Transfer, Vmid, grant, pages,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const PAGE: u64 = RAM.0 + 0x7000;
const WINDOW: SglEntry = pages(0x9000_0000, 4);
/// A device of B's that does not look into the caches.
const DEVICE: Stream = Stream(0x40);
const BOTH: Direction = Direction::Bidirectional;

type Client<'a> = Session<Vcpu<'a>, LARGEST>;

fn world(smmu: bool) -> World {
    let mut vms: [VmConfig; 2] = [vm(3), vm(4)];
    vms[1].streams[0] = Some(StreamConfig { stream: DEVICE, address_bits: 40, is_coherent: false });
    World::with_features(&vms, Features { forced_write_back: false, smmu })
}

fn session(world: &World, vm: VmIndex) -> Client<'_> {
    Session::with_capacity(Vcpu(world.caller(vm)))
}

/// Four pages of A's, which B has accepted with these rights.
fn shared(world: &World, rights: Rights) -> Handle {
    let (mut a, mut b) = (session(world, A), session(world, B));
    let acl = [grant(Vmid(3), Rights::RW), grant(Vmid(4), rights)];
    let parcel = a.share(&NewParcel::new(&[pages(PAGE, 4)], &acl)).unwrap();
    b.accept_at(&Acceptance::new(parcel, Transfer::Share).contiguous(), &[WINDOW]).unwrap();
    parcel
}

#[test]
fn a_device_writes_into_a_buffer_and_a_cpu_reads_it_between_the_brackets() {
    let world = world(true);
    let parcel = shared(&world, Rights::RW);
    let mut b = session(&world, B);
    let device = world.device(DEVICE);
    b.attach(parcel, DEVICE, AttachFlags::empty()).unwrap();
    b.dma_map(parcel, DEVICE, BOTH).unwrap();
    let sync = |b: &mut Client<'_>, flags| dmabuf::sync(b, Sync { flags }, parcel);
    device.write(Ipa(WINDOW.ipa + 8), 7).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(WINDOW.ipa + 8)), Ok(0));
    sync(&mut b, SYNC_READ | SYNC_WRITE | SYNC_START).unwrap();
    assert_eq!(world.cpu(B).read(Ipa(WINDOW.ipa + 8)), Ok(7));
    world.cpu(B).write(Ipa(WINDOW.ipa + 9), 8).unwrap();
    sync(&mut b, SYNC_READ | SYNC_WRITE | SYNC_END).unwrap();
    assert_eq!(device.read(Ipa(WINDOW.ipa + 9)), Ok(8));

    assert_eq!(sync(&mut b, SYNC_READ | SYNC_END), Err(Errno::EINVAL), "it has ended");
    for flags in [0, SYNC_END, 8, SYNC_READ | 8, SYNC_WRITE | 1 << 63] {
        assert_eq!(sync(&mut b, flags), Err(Errno::EINVAL), "{flags:#x}");
    }
    b.dma_unmap(parcel, DEVICE, BOTH).unwrap();
    assert!(device.read(Ipa(WINDOW.ipa)).is_err());
    assert_eq!(b.detach(parcel, DEVICE), Ok(()));
    assert_eq!(b.detach(parcel, DEVICE), Err(Error::Refused(ErrorCode::MemoryReleased)));
    assert_eq!(dmabuf::sync(&mut b, Sync { flags: SYNC_READ }, Handle(0x7777)), Err(Errno::ENOENT));
    world.check();
}

#[test]
fn a_buffer_lists_the_devices_that_are_attached_to_it() {
    let world = world(true);
    let parcel = shared(&world, Rights::RW);
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    dmabuf::set_name(&mut a, parcel, b"camera frames\0").unwrap();
    let quiet = dmabuf::buffer_info(&mut a, parcel, |_| panic!("no device yet")).unwrap();
    assert_eq!((quiet.size, quiet.holders, quiet.attachments), (4 * 4096, 1, 0));
    b.attach(parcel, DEVICE, AttachFlags::empty()).unwrap();
    b.dma_map(parcel, DEVICE, Direction::FromDevice).unwrap();
    let mut seen = vec![];
    let info = dmabuf::buffer_info(&mut a, parcel, |device| seen.push(*device)).unwrap();
    assert_eq!(info, dmabuf::BufferInfo { attachments: 1, ..quiet });
    assert_eq!(info.name.as_str(), Some("camera frames"));
    let [device] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((device.vmid, device.stream, device.pages), (Vmid(4), DEVICE, 4));
    assert_eq!((device.stage, device.rights), (HolderStage::DeviceMapped, Rights::W));
    assert_eq!(dmabuf::buffer_info(&mut b, parcel, |_| ()), Err(Errno::EPERM));
    let devices: Vec<_> = b.devices().unwrap().collect();
    assert_eq!((devices.len(), devices[0].stream, devices[0].attachments), (1, DEVICE, 1));
    assert_eq!(a.devices().unwrap().count(), 0);
}

#[test]
fn a_machine_without_an_smmu_says_why_it_attaches_nothing() {
    let world = world(false);
    let parcel = shared(&world, Rights::RW);
    let mut b = session(&world, B);
    let refused = b.attach(parcel, DEVICE, AttachFlags::empty());
    assert_eq!(refused, Err(Error::Refused(ErrorCode::Unimplemented)));
    let rule = Rule::from_wire(b.last_refusal().unwrap().rule).unwrap();
    assert!(rule.to_string().starts_with("the machine has no SMMU"), "{rule}");
    assert_eq!(Errno::from(refused.unwrap_err()), Errno::EOPNOTSUPP);
}

#[test]
fn a_map_is_checked_for_its_range_and_for_who_may_write() {
    let size = WINDOW.size;
    let buffer = |rights| Buffer::imported(Handle(5), WINDOW, rights);
    let all = buffer(Rights::RW);
    assert_eq!(all.map(0, size, true, Rights::RW), Ok(WINDOW));
    let rest = SglEntry { ipa: WINDOW.ipa + 0x3000, size: 100 };
    assert_eq!(all.map(0x3000, 100, false, Rights::R), Ok(rest));
    for (offset, length, error) in [
        (0x1000, u64::MAX, Errno::EOVERFLOW),
        (!0xfff, 0x1000, Errno::EOVERFLOW),
        (0, size + 1, Errno::EINVAL),
        (0x1000, size, Errno::EINVAL),
        (size, 0x1000, Errno::EINVAL),
        (0, 0, Errno::EINVAL),
        (1, 0x1000, Errno::EINVAL),
    ] {
        assert_eq!(
            all.map(offset, length, true, Rights::RW),
            Err(error),
            "{offset:#x} {length:#x}"
        );
    }
    // By the descriptor, and by the access list.
    assert_eq!(all.map(0, size, true, Rights::R), Err(Errno::EACCES));
    assert_eq!(all.map(0, size, false, Rights::W), Err(Errno::EACCES));
    assert_eq!(buffer(Rights::R).map(0, size, true, Rights::RW), Err(Errno::EPERM));
    assert_eq!(buffer(Rights::R).map(0, size, false, Rights::RW), Ok(WINDOW));
    assert_eq!((all.page(3), all.page(4)), (Ok(WINDOW.ipa + 0x3000), Err(Errno::EINVAL)));
    assert_eq!(all.page(u64::MAX), Err(Errno::EINVAL));
}

#[test]
fn who_goes_past_the_checks_meets_stage_2() {
    let world = world(true);
    let parcel = shared(&world, Rights::R);
    let buffer = Buffer::imported(parcel, WINDOW, Rights::R);
    assert_eq!(buffer.map(0, 4096, true, Rights::RW), Err(Errno::EPERM));
    assert!(world.cpu(B).write(Ipa(WINDOW.ipa), 1).is_err());
}

#[test]
fn the_size_is_what_it_was_whatever_happens_to_the_buffer() {
    let world = world(true);
    let parcel = shared(&world, Rights::RW);
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let mut buffer = Buffer::imported(parcel, WINDOW, Rights::RW);
    let sizes = |buffer: &Buffer, b: &mut Client<'_>| {
        let told = b.info(parcel).unwrap().pages * 4096;
        (buffer.seek(0, SEEK_END), buffer.size(), told)
    };
    let size = (Ok(WINDOW.size), WINDOW.size, WINDOW.size);
    assert_eq!(sizes(&buffer, &mut b), size);
    assert_eq!(buffer.seek(0, SEEK_SET), Ok(0));
    for (offset, whence) in [(1, SEEK_END), (-1, SEEK_END), (0, 1), (4096, SEEK_SET), (0, 3)] {
        assert_eq!(buffer.seek(offset, whence), Err(Errno::EINVAL), "{offset} from {whence}");
    }
    let grown = a.append(parcel, &[pages(PAGE + 0x1_0000, 1)], true);
    assert_eq!(grown, Err(Error::Refused(ErrorCode::Denied)));
    b.attach(parcel, DEVICE, AttachFlags::empty()).unwrap();
    assert_eq!(sizes(&buffer, &mut b), size);
    b.trim(parcel, 0, 4096, rm_client::TrimFlags::empty()).unwrap();
    assert_eq!(sizes(&buffer, &mut b), size, "a hole is no other size");
    assert_eq!(buffer.put(&mut b), Ok(0));
}

#[test]
fn views_are_counted_and_keep_the_buffer() {
    let world = world(true);
    let parcel = shared(&world, Rights::RW);
    let mut b = session(&world, B);
    let mut buffer = Buffer::imported(parcel, WINDOW, Rights::RW);
    assert_eq!((buffer.vmap(), buffer.vmap()), (Ok(WINDOW.ipa), Ok(WINDOW.ipa)));
    assert_eq!(buffer.vunmap(WINDOW.ipa + 4096), Err(Errno::EINVAL), "another address");
    assert_eq!(buffer.put(&mut b), Err(Errno::EBUSY));
    assert_eq!((buffer.vunmap(WINDOW.ipa), buffer.vunmap(WINDOW.ipa)), (Ok(()), Ok(())));
    assert_eq!(buffer.vunmap(WINDOW.ipa), Err(Errno::EINVAL), "there is none left");
    assert!(world.cpu(B).read(Ipa(WINDOW.ipa)).is_ok(), "the refused one changed nothing");
    assert_eq!(buffer.put(&mut b), Ok(0));
    assert!(world.cpu(B).read(Ipa(WINDOW.ipa)).is_err());
    assert_eq!(Buffer::imported(parcel, WINDOW, Rights::R).vmap(), Err(Errno::EPERM));
}

#[test]
fn the_last_of_a_hundred_references_releases_once() {
    let world = world(true);
    let parcel = shared(&world, Rights::RW);
    let (mut a, mut b) = (session(&world, A), session(&world, B));
    let mut exported = Buffer::exported(parcel, pages(PAGE, 4), Rights::RW);
    let mut buffer = Buffer::imported(parcel, WINDOW, Rights::RW);
    let calls = |b: &mut Client<'_>| b.counters(Vmid(0)).unwrap().of(Counter::Calls).unwrap();
    let before = calls(&mut b);
    (0..100).for_each(|_| buffer.get().unwrap());
    for left in (1..=100).rev() {
        assert_eq!(buffer.put(&mut b), Ok(left));
    }
    assert_eq!(calls(&mut b), before + 1, "nobody was called but for the count");
    assert!(world.cpu(B).read(Ipa(WINDOW.ipa)).is_ok());
    assert_eq!(exported.put(&mut a), Err(Errno::EBUSY), "B has it, and the reference stays");
    assert_eq!(buffer.put(&mut b), Ok(0));
    assert_eq!(calls(&mut b), before + 3, "one release");
    assert_eq!((buffer.put(&mut b), buffer.get()), (Err(Errno::EBADF), Err(Errno::EBADF)));
    assert_eq!(exported.put(&mut a), Ok(0));
    assert_eq!(world.check().parcels, 0);
}
