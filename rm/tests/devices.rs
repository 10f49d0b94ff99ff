//! Devices of VMs and parcels: a device reaches a parcel while it is attached and mapped, with the rights of
//! direction and access list, and no longer. No board here has an SMMU, so it is shown on the strict twin.

use rm::address::{Ipa, VmIndex};
use rm::config::{BootError, StreamConfig, VmConfig};
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, by_handle, offer, vm};
use rm::machine::fake::{DevicePage, FakeDevice};
use rm::machine::{DeviceFault, Direction, Features, Stream};
use rm::operation::STEP;
use rm::quota::{Amounts, Quotas};
use rm_abi::extension::{
    ATTACH, AttachFlags, AttachRequest, COUNTERS, Count, Counter, DETACH, DEVICES, DISCOVER,
    DMA_MAP, DMA_UNMAP, DetachRequest, DeviceInfo, Discovery, DmaRequest, HOLDERS, Holder,
    HolderStage, LIST, LastRefusal, ListFlags, ListRequest, ParcelEntry, ParcelFlags, Policy,
    REVOKE, Rule, SET_POLICY, SET_WINDOW, SetPolicyRequest, TRIM, TrimFlags, TrimRequest,
    WindowFlags, WindowRequest,
};
use rm_abi::{AcceptFlags, Bytes, CreateFlags, Handle, Rights, Transfer, Vmid, message};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
/// Where a device of 32 bits does not get.
const HIGH: u64 = 0x1_0000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;
const STEPS: &[u32] = few(&[1, 200, STEP], &[30]);
const TO: u32 = Direction::ToDevice as u32;
const FROM: u32 = Direction::FromDevice as u32;
const BOTH: u32 = Direction::Bidirectional as u32;
/// A's device; two of B's, the second of which does not look into caches; one of B's with 32 bits; C's.
const A_DEVICE: Stream = Stream(0x30);
const B_DEVICE: Stream = Stream(0x40);
const B_BLIND: Stream = Stream(0x41);
const B_SMALL: Stream = Stream(0x42);
const C_DEVICE: Stream = Stream(0x50);

const SMMU: Features = Features { forced_write_back: false, smmu: true };

const fn device(stream: Stream, address_bits: u8, is_coherent: bool) -> Option<StreamConfig> {
    Some(StreamConfig { stream, address_bits, is_coherent })
}

fn configs() -> [VmConfig; 3] {
    let mut vms = [vm(3), vm(4), vm(5)];
    vms[0].streams[0] = device(A_DEVICE, 40, true);
    vms[1].streams[0] = device(B_DEVICE, 64, true);
    vms[1].streams[1] = device(B_BLIND, 48, false);
    vms[1].streams[2] = device(B_SMALL, 32, true);
    vms[2].streams[0] = device(C_DEVICE, 40, true);
    vms
}

fn world() -> World {
    World::with_features(&configs(), SMMU)
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, rm_abi::EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).unwrap();
    payload.truncate(length);
    payload
}

fn attach_request(handle: u32, stream: Stream, flags: AttachFlags) -> Vec<u8> {
    let request = AttachRequest { handle: Handle(handle), stream, flags };
    encoded(|into| request.encode(into))
}

fn dma(handle: u32, stream: Stream, direction: u32) -> Vec<u8> {
    let request = DmaRequest { handle: Handle(handle), stream, direction };
    encoded(|into| request.encode(into))
}

fn attach(guest: &Guest<'_>, handle: u32, stream: Stream) -> u32 {
    guest.words(ATTACH, &attach_request(handle, stream, AttachFlags::empty())).0
}

fn detach(guest: &Guest<'_>, handle: u32, stream: Stream) -> u32 {
    let request = DetachRequest { handle: Handle(handle), stream };
    guest.words(DETACH, &encoded(|into| request.encode(into))).0
}

fn map(guest: &Guest<'_>, handle: u32, stream: Stream, direction: u32) -> u32 {
    guest.words(DMA_MAP, &dma(handle, stream, direction)).0
}

fn unmap(guest: &Guest<'_>, handle: u32, stream: Stream, direction: u32) -> u32 {
    guest.words(DMA_UNMAP, &dma(handle, stream, direction)).0
}

fn revoke(guest: &Guest<'_>, handle: u32) -> u32 {
    guest.words(REVOKE, &by_handle(handle, 0)).0
}

fn trim(guest: &Guest<'_>, handle: u32, first: u64, pages: u64) -> u32 {
    let (offset, size) = (first * 4096, pages * 4096);
    let request = TrimRequest { handle: Handle(handle), flags: TrimFlags::empty(), offset, size };
    guest.words(TRIM, &encoded(|into| request.encode(into))).0
}

fn rule(guest: &Guest<'_>) -> Option<Rule> {
    Rule::from_wire(guest.last_refusal().rule)
}

/// Whether a device can read and write at an address.
fn reaches(device: &FakeDevice<'_>, at: u64) -> (bool, bool) {
    (device.read(Ipa(at)).is_ok(), device.write(Ipa(at), 0x55).is_ok())
}

const NOTHING: (bool, bool) = (false, false);

/// Two runs of A's, of two pages and of one, which B has mapped one behind the other.
const RUNS: [(u64, u64); 2] = [(PAGE, 2), (PAGE + 0x8000, 1)];

fn lent_to_b(world: &World, rights: u8) -> u32 {
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(LENT, &[(4, rights)], &RUNS).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 3)).unwrap();
    handle
}

#[test]
fn g3_a_device_reaches_a_parcel_only_while_it_is_attached_and_mapped() {
    for &step in STEPS {
        let world = world();
        let before = world.check();
        let handle = lent_to_b(&world, 6);
        let b = world.caller(B);
        b.step.set(step);
        let device = world.device(B_DEVICE);
        assert_eq!(reaches(&device, WINDOW), NOTHING, "before it is attached");
        assert_eq!(attach(&b, handle, B_DEVICE), 0);
        assert_eq!(reaches(&device, WINDOW), NOTHING, "attached");
        let directions = [(TO, (true, false)), (FROM, (false, true)), (BOTH, (true, true))];
        for (direction, expected) in directions {
            assert_eq!(map(&b, handle, B_DEVICE, direction), 0);
            for page in 0..3 {
                assert_eq!(reaches(&device, WINDOW + page * 4096), expected, "{direction}");
            }
            for beside in [WINDOW - 4096, WINDOW + 3 * 4096, RAM.0, PAGE, 0] {
                assert_eq!(reaches(&device, beside), NOTHING, "{beside:#x} is not of the parcel");
            }
            assert_eq!(reaches(&world.device(B_SMALL), WINDOW), NOTHING, "another device");
            assert_eq!(reaches(&world.device(A_DEVICE), WINDOW), NOTHING, "another VM's");
            assert_eq!(world.check().of_devices, 3);
            assert_eq!(unmap(&b, handle, B_DEVICE, direction), 0);
            assert_eq!(reaches(&device, WINDOW), NOTHING, "unmapped");
            world.check();
        }
        assert_eq!(detach(&b, handle, B_DEVICE), 0);
        b.release(handle, 0).unwrap();
        world.caller(A).reclaim(handle, 0).unwrap();
        while world.manager.idle(A) {}
        assert_eq!(world.check(), before, "steps of {step}");
    }
}

#[test]
fn device_and_cpu_see_one_content() {
    let world = world();
    let handle = lent_to_b(&world, 6);
    let (b, cpu, device) = (world.caller(B), world.cpu(B), world.device(B_DEVICE));
    assert_eq!((attach(&b, handle, B_DEVICE), map(&b, handle, B_DEVICE, BOTH)), (0, 0));
    cpu.write(Ipa(WINDOW + 0x2004), 7).unwrap();
    assert_eq!(device.read(Ipa(WINDOW + 0x2004)), Ok(7), "the second run");
    device.write(Ipa(WINDOW + 0x1008), 9).unwrap();
    assert_eq!(cpu.read(Ipa(WINDOW + 0x1008)), Ok(9));
    world.check();
}

#[test]
fn g3_a_direction_takes_the_rights_that_it_needs_and_gives_no_others() {
    for rights in some([4, 5, 6, 7], 2) {
        for direction in [TO, FROM, BOTH] {
            let world = world();
            let handle = lent_to_b(&world, rights);
            let b = world.caller(B);
            assert_eq!(attach(&b, handle, B_DEVICE), 0);
            let writes = rights & 2 != 0;
            if direction == TO || writes {
                assert_eq!(map(&b, handle, B_DEVICE, direction), 0);
                let expected = (direction & TO != 0, direction & FROM != 0);
                assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), expected);
            } else {
                assert_eq!(map(&b, handle, B_DEVICE, direction), 3);
                assert_eq!(rule(&b), Some(Rule::DeviceRights));
                assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), NOTHING);
            }
            world.check();
        }
    }
}

/// What a refused call must leave as it was.
fn state(world: &World) -> (rm::audit::AuditReport, Vec<Vec<DevicePage>>) {
    let pages = world
        .manager
        .streams()
        .map(|(_, context)| world.manager.machine().device_pages(context.stream));
    let pages = pages.collect();
    (world.check(), pages)
}

#[test]
fn g4_calls_that_are_refused_change_nothing() {
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let handle = a.offer(LENT, &[(4, 6), (5, 4)], &RUNS).unwrap();
    let refused = |who: &Guest<'_>, what: u32, error: u32, why: Rule| {
        assert_eq!((what, rule(who)), (error, Some(why)));
    };
    let before = state(&world);
    // Nobody has accepted it, and its owner has lent it away.
    refused(&b, attach(&b, handle, B_DEVICE), 0xc, Rule::NotHeld);
    refused(&a, attach(&a, handle, A_DEVICE), 3, Rule::DeviceRights);
    assert_eq!(state(&world), before);

    b.accept_contiguous(handle, LENT, (WINDOW, 3)).unwrap();
    let before = state(&world);
    // A foreign device is told from no device by nothing.
    refused(&b, attach(&b, handle, A_DEVICE), 3, Rule::NoDevice);
    let foreign = b.last_refusal();
    refused(&b, attach(&b, handle, Stream(0x99)), 3, Rule::NoDevice);
    assert_eq!(b.last_refusal(), foreign);
    refused(&b, attach(&b, handle + 1, B_DEVICE), 7, Rule::NoParcel);
    refused(&c, attach(&c, handle, C_DEVICE), 0xc, Rule::NotHeld);
    let coherent =
        |stream| b.words(ATTACH, &attach_request(handle, stream, AttachFlags::COHERENT)).0;
    refused(&b, coherent(B_BLIND), 5, Rule::DeviceLimits);
    assert_eq!(b.words(ATTACH, &attach_request(handle, B_DEVICE, AttachFlags(2))).0, 6);
    for call in [DETACH, DMA_MAP, DMA_UNMAP] {
        refused(
            &b,
            b.words(call, &dma(handle, B_DEVICE, 0)[..8]).0,
            if call == DETACH { 0xc } else { 4 },
            if call == DETACH { Rule::NotBegun } else { Rule::Malformed },
        );
    }
    refused(&b, map(&b, handle, B_DEVICE, TO), 0xc, Rule::NotBegun);
    refused(&b, unmap(&b, handle, B_DEVICE, TO), 0xc, Rule::NotBegun);
    refused(&b, map(&b, handle, A_DEVICE, TO), 3, Rule::NoDevice);
    assert_eq!(state(&world), before);

    assert_eq!(coherent(B_DEVICE), 0);
    let before = state(&world);
    refused(&b, attach(&b, handle, B_DEVICE), 5, Rule::DeviceInUse);
    for none in [0, 4, u32::MAX] {
        refused(&b, map(&b, handle, B_DEVICE, none), 6, Rule::Direction);
    }
    refused(&b, unmap(&b, handle, B_DEVICE, TO), 0xc, Rule::NotBegun);
    assert_eq!(state(&world), before);

    assert_eq!(map(&b, handle, B_DEVICE, TO), 0);
    let before = state(&world);
    refused(&b, map(&b, handle, B_DEVICE, TO), 5, Rule::DeviceInUse);
    refused(&b, map(&b, handle, B_DEVICE, FROM), 5, Rule::DeviceInUse);
    refused(&b, unmap(&b, handle, B_DEVICE, FROM), 6, Rule::Direction);
    refused(&b, unmap(&b, handle, B_DEVICE, 0), 6, Rule::Direction);
    refused(&b, detach(&b, handle, B_DEVICE), 5, Rule::DeviceInUse);
    refused(&b, trim(&b, handle, 1, 1), 5, Rule::DeviceInUse);
    // To who is no party the parcel is none, whatever its devices.
    let other = a.offer(LENT, &[(4, 6)], &[(PAGE + 0x1_0000, 1)]).unwrap();
    refused(&c, attach(&c, other, C_DEVICE), 7, Rule::NoParcel);
    refused(&c, map(&c, other, Stream(0x99), 0), 7, Rule::NoParcel);
    a.reclaim(other, 0).unwrap();
    assert_eq!(state(&world), before);

    // Who was asked for it back may go on, and nobody may begin.
    a.words(REVOKE, &[&handle.to_le_bytes()[..], &1_u32.to_le_bytes()].concat());
    refused(&b, attach(&b, handle, B_SMALL), 3, Rule::Closing);
    assert_eq!(unmap(&b, handle, B_DEVICE, TO), 0);
    assert_eq!(revoke(&a, handle), 0);
    refused(&b, map(&b, handle, B_DEVICE, TO), 7, Rule::NoParcel);
    world.check();
}

#[test]
fn g3_a_vm_that_may_only_copy_has_no_device_attached() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &RUNS).unwrap();
    let window = |size| {
        let (vmid, flags) = (Vmid(4), WindowFlags::empty());
        let request = WindowRequest { handle: Handle(handle), vmid, flags, offset: 0, size };
        a.words(SET_WINDOW, &encoded(|into| request.encode(into))).0
    };
    assert_eq!(window(2 * 4096), 0);
    let before = state(&world);
    let accepted = b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap_err();
    assert_eq!((accepted, rule(&b)), (3, Some(Rule::Window)));
    assert_eq!((attach(&b, handle, B_DEVICE), rule(&b)), (3, Some(Rule::Window)), "as to accept");
    assert_eq!(state(&world), before);
    assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), NOTHING);
    // Without the window it may map, and so may its device.
    assert_eq!(window(0), 0);
    b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
    assert_eq!((attach(&b, handle, B_DEVICE), map(&b, handle, B_DEVICE, BOTH)), (0, 0));
    assert_ne!(window(2 * 4096), 0, "not under a device");
    assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), (true, true));
    world.check();
}

#[test]
fn a_device_with_short_addresses_is_not_attached_to_what_it_cannot_reach() {
    for &step in STEPS {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        for (at, error) in [(HIGH - 3 * 4096, 0), (HIGH - 2 * 4096, 5), (HIGH, 5)] {
            let handle = a.offer(LENT, &[(4, 6)], &RUNS).unwrap();
            b.accept_contiguous(handle, LENT, (at, 3)).unwrap();
            let before = state(&world);
            assert_eq!(attach(&b, handle, B_SMALL), error, "{at:#x}");
            if error != 0 {
                assert_eq!(rule(&b), Some(Rule::DeviceLimits));
                assert_eq!(state(&world), before);
            }
            assert_eq!(attach(&b, handle, B_DEVICE), 0, "it has all addresses");
            b.release(handle, 0).unwrap();
            a.reclaim(handle, 0).unwrap();
        }
    }
}

fn holders(guest: &Guest<'_>, handle: u32) -> Vec<Holder> {
    let reply = guest.call(HOLDERS, &by_handle(handle, 0));
    let count = reply[..].u32_at(4) as usize;
    let holder = |n| Holder::decode(&reply[8..], n * Holder::SIZE).unwrap();
    (0..count).map(holder).collect()
}

fn listed(guest: &Guest<'_>) -> ParcelEntry {
    let request = ListRequest { cursor: 0, most: 1, flags: ListFlags::empty() };
    let reply = guest.call(LIST, &encoded(|into| request.encode(into)));
    ParcelEntry::decode(&reply[4 + ParcelEntry::HEAD..], 0).unwrap()
}

#[test]
fn a_parcel_with_an_attachment_is_not_reclaimed_and_says_which_device_it_is() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &RUNS).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
    assert!(!listed(&a).flags.contains(ParcelFlags::ATTACHED));
    assert_eq!((attach(&a, handle, A_DEVICE), attach(&b, handle, B_DEVICE)), (0, 0));
    assert_eq!(map(&b, handle, B_DEVICE, FROM), 0);
    assert_eq!(
        holders(&a, handle)[1..],
        [
            Holder {
                vmid: Vmid(3),
                stage: HolderStage::Attached,
                rights: Rights::empty(),
                stream: A_DEVICE,
                pages: 0
            },
            Holder {
                vmid: Vmid(4),
                stage: HolderStage::DeviceMapped,
                rights: Rights::W,
                stream: B_DEVICE,
                pages: 3
            },
        ]
    );
    assert!(listed(&a).flags.contains(ParcelFlags::ATTACHED));
    // What ends B's part in it ends its devices' part.
    b.release(handle, 0).unwrap();
    assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), NOTHING);
    assert_eq!(a.reclaim(handle, 0), Err(0xb));
    assert_eq!(a.last_refusal().holders(), [Vmid(3)], "a device of its own");
    let policy = SetPolicyRequest { handle: Handle(handle), policy: Policy::Uncached };
    assert_eq!(a.words(SET_POLICY, &encoded(|into| policy.encode(into))).0, 0xb);
    assert_eq!(detach(&a, handle, A_DEVICE), 0);
    a.reclaim(handle, 0).unwrap();
    world.check();
}

/// The request of every call about a device.
fn about_device(handle: u32, stream: Stream) -> [(u32, Vec<u8>); 4] {
    let detach = DetachRequest { handle: Handle(handle), stream };
    [
        (ATTACH, attach_request(handle, stream, AttachFlags::empty())),
        (DETACH, encoded(|into| detach.encode(into))),
        (DMA_MAP, dma(handle, stream, TO)),
        (DMA_UNMAP, dma(handle, stream, TO)),
    ]
}

#[test]
fn g6_another_vms_device_and_another_vms_parcel_are_refused_as_none() {
    let world = world();
    let lent = lent_to_b(&world, 6);
    let (a, c) = (world.caller(A), world.caller(C));
    let b = world.caller(B);
    assert_eq!([attach(&b, lent, B_DEVICE), map(&b, lent, B_DEVICE, TO)], [0, 0]);
    let answers = |guest: &Guest<'_>, handle, stream| {
        about_device(handle, stream).map(|(message, payload)| {
            let reply = guest.call(message, &payload);
            (reply, LastRefusal { sequence: 0, ..guest.last_refusal() })
        })
    };
    // A stream of B's, of C's, and of nobody, for a parcel of the caller's own.
    let nobodys = answers(&a, lent, Stream(0x77));
    assert!(nobodys.iter().all(|(reply, _)| reply[..] == 3_u32.to_le_bytes()), "{nobodys:?}");
    for stream in [B_DEVICE, B_BLIND, C_DEVICE, Stream(0), Stream(u32::MAX)] {
        assert_eq!(answers(&a, lent, stream), nobodys, "{stream:?}");
    }
    // A parcel that is attached and mapped by others, and none, with any stream.
    for stream in [C_DEVICE, B_DEVICE, A_DEVICE, Stream(0x77)] {
        let none = answers(&c, 0x7fff_e001, stream);
        assert!(none.iter().all(|(reply, _)| reply[..] == 7_u32.to_le_bytes()), "{none:?}");
        assert_eq!(answers(&c, lent, stream), none, "{stream:?}");
    }
}

#[test]
fn g6_a_parcel_has_eight_attachments_and_one_of_them_for_each_party() {
    let mut vms: [VmConfig; 3] = [vm(3), vm(4), vm(5)];
    for (index, vm) in (0..).zip(&mut vms) {
        vm.streams =
            core::array::from_fn(|n| device(Stream(0x10 * (index + 1) + n as u32), 40, true));
        vm.quotas.frames_reserved = vm.quotas.frames;
    }
    let world = World::with_features(&vms, SMMU);
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6), (5, 6)], &RUNS).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
    c.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
    for n in 0..4 {
        assert_eq!(attach(&a, handle, Stream(0x10 + n)), 0);
    }
    for n in 0..3 {
        assert_eq!(attach(&b, handle, Stream(0x20 + n)), 0);
    }
    let refused = |guest: &Guest<'_>, stream| {
        let before = state(&world);
        let said = (attach(guest, handle, stream), rule(guest));
        assert_eq!(said, (2, Some(Rule::TooManyAttachments)), "{stream:?}");
        assert_eq!(state(&world), before);
    };
    refused(&b, Stream(0x23));
    assert_eq!(attach(&c, handle, Stream(0x30)), 0, "it has none yet");
    refused(&c, Stream(0x31));
    assert_eq!(holders(&a, handle).len(), 2 + 8);
    assert_eq!(detach(&b, handle, Stream(0x22)), 0);
    assert_eq!(attach(&c, handle, Stream(0x31)), 0);
    assert_eq!(revoke(&a, handle), 0);
    assert_eq!(holders(&a, handle).len(), 4, "the owner's own stay");
    world.check();
}

#[test]
fn g2_pages_that_the_own_device_has_are_not_lent() {
    let world = world();
    let a = world.caller(A);
    // Memory for a device of one's own is shared with nobody else.
    let handle = a.offer(SHARED, &[(3, 6)], &RUNS).unwrap();
    let device = world.device(A_DEVICE);
    assert_eq!((attach(&a, handle, A_DEVICE), map(&a, handle, A_DEVICE, BOTH)), (0, 0));
    assert_eq!(reaches(&device, PAGE + 0x8000), (true, true), "where its VM has it");
    let before = state(&world);
    let twice = [(PAGE + 0x2_0000, 1), (PAGE + 0x1000, 1)];
    for ranges in [&RUNS[1..], &twice] {
        assert_eq!(a.offer(LENT, &[(4, 6)], ranges), Err(5));
        assert_eq!(rule(&a), Some(Rule::DeviceInUse));
        assert_eq!(
            a.offer(SHARED, &[(3, 4), (4, 6)], ranges),
            Err(5),
            "it would not keep to write"
        );
        assert_eq!(a.offer(SHARED, &[(3, 6), (4, 6)], ranges), Err(0xa), "in a parcel already");
    }
    while world.manager.idle(A) {}
    assert_eq!(state(&world).1, before.1);
    assert_eq!(unmap(&a, handle, A_DEVICE, BOTH), 0);
    assert_eq!(a.offer(LENT, &[(4, 6)], &RUNS), Err(0xa));
    assert_eq!(detach(&a, handle, A_DEVICE), 0);
    a.reclaim(handle, 0).unwrap();
    let lent = a.offer(LENT, &[(4, 6)], &RUNS).unwrap();
    assert_eq!(reaches(&device, PAGE), NOTHING);
    a.reclaim(lent, 0).unwrap();
}

/// How B loses a parcel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Release,
    Revoke,
    Death,
}

#[test]
fn g5_a_device_that_never_stops_writing_reaches_no_page_that_its_vm_has_lost() {
    for loss in [Loss::Release, Loss::Revoke, Loss::Death] {
        for (step, stream) in
            STEPS.iter().copied().flat_map(|s| [B_DEVICE, B_BLIND].map(|d| (s, d)))
        {
            let world = world();
            let handle = lent_to_b(&world, 6);
            let (a, b) = (world.caller(A), world.caller(B));
            assert_eq!((attach(&b, handle, stream), map(&b, handle, stream, BOTH)), (0, 0));
            [&a, &b].iter().for_each(|guest| guest.step.set(step));
            let device = world.device(stream);
            let writes = || {
                let pages = [0, 1, 2].map(|page| Ipa(WINDOW + page * 4096 + 5));
                pages.map(|at| device.post(at, 0xdd).is_ok())
            };
            assert_eq!(writes(), [true; 3]);
            // Between any two steps the device tries again, and what it has under way arrives late.
            let each = |guest: &Guest<'_>, message, payload: &[u8]| {
                let mut turn = guest.send(message, payload);
                while let Turn::More(token) = turn {
                    world.manager.machine().check_no_stale();
                    writes();
                    turn = guest.resume(token);
                }
                turn
            };
            let done = Turn::Reply(vec![0; 4]);
            match loss {
                Loss::Release => {
                    assert_eq!(each(&b, message::MEM_RELEASE, &by_handle(handle, 1)), done);
                }
                Loss::Revoke => assert_eq!(each(&a, REVOKE, &by_handle(handle, 0)), done),
                Loss::Death => {
                    world.end(B);
                    while world.manager.pending(B) {
                        writes();
                        world.manager.step(B, &mut rm::operation::budget::Budget::new(step));
                    }
                }
            }
            assert_eq!(writes(), [false; 3], "{loss:?}");
            // The reclaim zeroes, and nothing is under way that would change that.
            assert_eq!(each(&a, message::MEM_RECLAIM, &by_handle(handle, 0)), done);
            device.land();
            for at in [PAGE, PAGE + 0x1000, PAGE + 0x8000] {
                assert_eq!(world.cpu(A).read(Ipa(at + 5)), Ok(0), "{loss:?} {step} {stream:?}");
            }
            assert_eq!(world.check().of_devices, 0);
        }
    }
}

#[test]
fn a_share_that_is_given_up_keeps_what_a_device_wrote() {
    for stream in [B_DEVICE, B_BLIND] {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &RUNS).unwrap();
        b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
        world.cpu(A).write(Ipa(PAGE), 1).unwrap();
        assert_eq!((attach(&b, handle, stream), map(&b, handle, stream, FROM)), (0, 0));
        world.device(stream).post(Ipa(WINDOW + 0x1000), 0x33).unwrap();
        b.release(handle, 0).unwrap();
        a.reclaim(handle, 0).unwrap();
        assert_eq!(world.cpu(A).read(Ipa(PAGE + 0x1000)), Ok(0x33));
        assert_eq!(world.cpu(A).read(Ipa(PAGE)), Ok(1));
        world.check();
    }
}

#[test]
fn an_owner_that_dies_takes_its_devices_along() {
    for &step in STEPS {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        let own = a.offer(SHARED, &[(3, 6)], &[(PAGE + 0x4_0000, 3)]).unwrap();
        assert_eq!((attach(&a, own, A_DEVICE), map(&a, own, A_DEVICE, BOTH)), (0, 0));
        let handle = lent_to_b(&world, 6);
        assert_eq!((attach(&b, handle, B_DEVICE), map(&b, handle, B_DEVICE, BOTH)), (0, 0));
        world.end(A);
        world.settle(A, step);
        world.start(A);
        assert_eq!(reaches(&world.device(A_DEVICE), PAGE + 0x4_0000), NOTHING);
        assert_eq!(reaches(&world.device(B_DEVICE), WINDOW), NOTHING);
        let report = world.check();
        assert_eq!((report.of_devices, report.parcels), (0, 0));
        // Its next life has its devices again.
        let again = a.offer(SHARED, &[(3, 6)], &RUNS).unwrap();
        assert_eq!((attach(&a, again, A_DEVICE), map(&a, again, A_DEVICE, BOTH)), (0, 0));
    }
}

#[test]
fn what_is_trimmed_is_not_mapped_for_a_device() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 6)]).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 6)).unwrap();
    assert_eq!((attach(&a, handle, A_DEVICE), attach(&b, handle, B_DEVICE)), (0, 0));
    assert_eq!((map(&a, handle, A_DEVICE, TO), map(&b, handle, B_DEVICE, TO)), (0, 0));
    assert_eq!((trim(&b, handle, 2, 2), rule(&b)), (5, Some(Rule::DeviceInUse)));
    assert_eq!(unmap(&b, handle, B_DEVICE, TO), 0);
    assert_eq!(trim(&b, handle, 2, 2), 0);
    assert_eq!(map(&b, handle, B_DEVICE, TO), 0);
    let seen = |stream, at| {
        (0..6).map(|n| world.device(stream).read(Ipa(at + n * 4096)).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(seen(B_DEVICE, WINDOW), [true, true, false, false, true, true]);
    assert_eq!(seen(A_DEVICE, PAGE), [true; 6]);
    // The owner's own device has them still.
    assert_eq!((trim(&a, handle, 2, 2), rule(&a)), (5, Some(Rule::DeviceInUse)));
    assert_eq!(unmap(&a, handle, A_DEVICE, TO), 0);
    assert_eq!(trim(&a, handle, 2, 2), 0);
    assert_eq!(map(&a, handle, A_DEVICE, BOTH), 0);
    assert_eq!(seen(A_DEVICE, PAGE), [true, true, false, false, true, true]);
    // They are its own again, and go to somebody else while both devices are at work.
    let other = a.offer(LENT, &[(5, 6)], &[(PAGE + 2 * 4096, 2)]).unwrap();
    assert_eq!(world.check().of_devices, 8);
    a.reclaim(other, 0).unwrap();
    b.release(handle, 0).unwrap();
    assert_eq!(world.check().of_devices, 4);
}

/// A parcel of pages that are everywhere.
fn scattered(world: &World, pages: u64) -> u32 {
    let (a, b) = (world.caller(A), world.caller(B));
    let ranges: Vec<_> = (0..pages).map(|page| (PAGE + page * 0x2000, 1)).collect();
    let handle = a.offer(LENT, &[(4, 6)], &ranges).unwrap();
    let flags = AcceptFlags::DONE;
    let places: Vec<_> =
        (0..pages).map(|page| (WINDOW + (page * 7 % pages) * 0x20_0000, 1)).collect();
    let request = rm::machine::fake::world::accept(handle, LENT, flags, &places);
    assert_eq!(b.words(message::MEM_ACCEPT, &request).0, 0);
    handle
}

#[test]
fn a_call_on_a_device_is_taken_over_wherever_it_stands() {
    // What B is at, and what comes between two of its steps.
    let calls = [ATTACH, DMA_MAP, DMA_UNMAP];
    let calls = calls.into_iter().flat_map(|call| [B_DEVICE, B_BLIND].map(|d| (call, d)));
    for (call, stream) in some(calls, 3) {
        for loss in [Loss::Revoke, Loss::Death] {
            for steps in some(1.., 6) {
                let world = world();
                let handle = scattered(&world, 4);
                let (a, b) = (world.caller(A), world.caller(B));
                if call != ATTACH {
                    assert_eq!(attach(&b, handle, stream), 0);
                }
                if call == DMA_UNMAP {
                    assert_eq!(map(&b, handle, stream, BOTH), 0);
                }
                b.step.set(1);
                let payload = match call {
                    ATTACH => attach_request(handle, stream, AttachFlags::empty()),
                    _ => dma(handle, stream, BOTH),
                };
                let mut turn = b.send(call, &payload);
                for _ in 1..steps {
                    let Turn::More(token) = turn else { break };
                    turn = b.resume(token);
                }
                let Turn::More(token) = turn else {
                    assert!(steps > 3, "{call:#x} took {steps} steps");
                    break;
                };
                match loss {
                    Loss::Death => {
                        world.end(B);
                        world.settle(B, 1);
                    }
                    _ => {
                        assert_eq!(revoke(&a, handle), 0);
                        while let Turn::More(_) = turn {
                            turn = b.resume(token);
                        }
                        assert_eq!(turn, Turn::Reply(vec![7, 0, 0, 0]), "after {steps} steps");
                    }
                }
                assert!(world.device(stream).pages().is_empty());
                world.check();
                a.reclaim(handle, 0).unwrap();
                assert_eq!(world.check().of_devices, 0);
            }
        }
    }
}

#[test]
fn other_calls_find_a_mapping_that_is_at_work_busy() {
    for steps in some(0.., 4) {
        let world = world();
        let handle = scattered(&world, 3);
        let b = world.caller(B);
        assert_eq!(attach(&b, handle, B_BLIND), 0);
        b.step.set(1);
        let mut turn = b.send(DMA_MAP, &dma(handle, B_BLIND, BOTH));
        for _ in 0..steps {
            let Turn::More(token) = turn else { break };
            turn = b.resume(token);
        }
        let Turn::More(token) = turn else { break };
        // Other calls on the device, the parcel and the range find it in use.
        let other = world.caller(B);
        for (call, payload) in
            [(DETACH, &dma(handle, B_BLIND, 0)[..8]), (DMA_UNMAP, &dma(handle, B_BLIND, BOTH)[..])]
        {
            match other.send(call, payload) {
                Turn::Reply(reply) => assert_eq!(reply[..4], [5, 0, 0, 0]),
                turn => panic!("{turn:?}"),
            }
        }
        while let Turn::More(_) = turn {
            turn = b.resume(token);
        }
        assert_eq!(turn, Turn::Reply(vec![0; 4]));
        assert_eq!(unmap(&b, handle, B_BLIND, BOTH), 0);
        world.check();
    }
}

#[test]
fn g7_tables_of_a_device_are_its_vm_s_and_a_map_without_them_changes_nothing() {
    let mut vms = configs();
    vms[1].quotas = Quotas { frames: 24, frames_reserved: 20, ..Quotas::USUAL };
    let world = World::with_features(&vms, SMMU);
    // Each page is in a 2 MiB range of its own, and takes a table.
    let handle = scattered(&world, 6);
    let b = world.caller(B);
    assert_eq!(attach(&b, handle, B_DEVICE), 0);
    let used = world.manager.frames_used(B);
    assert_eq!(map(&b, handle, B_DEVICE, TO), 0);
    assert_eq!(world.manager.frames_used(B), used + 7, "a table each, and one above");
    assert_eq!(attach(&b, handle, B_SMALL), 0);
    let before = state(&world);
    for &step in STEPS {
        b.step.set(step);
        assert_eq!((map(&b, handle, B_SMALL, TO), rule(&b)), (1, Some(Rule::NoFrame)));
        assert_eq!(state(&world), before);
    }
    // Giving up needs none.
    b.release(handle, 0).unwrap();
    assert!(world.manager.frames_used(B) < used);
    world.check();
}

#[test]
fn g7_a_table_that_the_vm_does_not_need_makes_room_for_one_of_its_device() {
    // As many frames as B takes for all of it, and none that it shares with others.
    let worlds = STEPS.iter().copied().flat_map(|step| [(step, 20, 0), (step, 19, 1)]);
    for (step, reserved, error) in worlds {
        let mut vms = configs();
        vms[1].quotas.frames_reserved = reserved;
        let world = World::with_shared(&vms, Amounts::NONE, 0).unwrap();
        let b = world.caller(B);
        // A block is cut and whole again, in a table that nobody has merged yet.
        let cut = b.offer(LENT, &[(3, 6)], &[(PAGE, 1)]).unwrap();
        b.reclaim(cut, 0).unwrap();
        assert_eq!(world.check().mergeable, 1);
        let handle = scattered(&world, 6);
        assert_eq!(attach(&b, handle, B_DEVICE), 0);
        b.step.set(step);
        assert_eq!(map(&b, handle, B_DEVICE, TO), error, "of {reserved}, by {step}");
        if error == 0 {
            assert_eq!(world.device(B_DEVICE).pages().len(), 6);
        } else {
            assert_eq!(rule(&b), Some(Rule::SharedQuota));
            assert!(world.device(B_DEVICE).pages().is_empty());
        }
        world.check();
    }
}

#[test]
fn g7_a_map_of_many_pages_is_done_in_short_steps() {
    let (pages, step) = few((4096, STEP), (600, 150));
    for stream in some([B_DEVICE, B_BLIND], 2) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        b.step.set(step);
        let handle = a.offer(LENT, &[(4, 6)], &[(RAM.0, pages)]).unwrap();
        b.accept_contiguous(handle, LENT, (WINDOW, pages)).unwrap();
        assert_eq!(attach(&b, handle, stream), 0);
        for call in [DMA_MAP, DMA_UNMAP] {
            let counted = || {
                let counters = world.manager.machine().counters();
                counters.table_writes + 64 * counters.cleaned
            };
            let (mut before, mut steps) = (counted(), 0);
            let mut turn = b.send(call, &dma(handle, stream, BOTH));
            while let Turn::More(token) = turn {
                assert!(counted() - before < 2 * u64::from(step), "{call:#x}, step {steps}");
                (before, steps) = (counted(), steps + 1);
                turn = b.resume(token);
            }
            assert_eq!(turn, Turn::Reply(vec![0; 4]));
            assert!(steps >= 3, "{steps}");
        }
        // One that is done without its caller.
        let Turn::More(_) = b.send(DMA_MAP, &dma(handle, stream, BOTH)) else { panic!("at once") };
        while world.manager.pending(B) {
            world.manager.step(B, &mut rm::operation::budget::Budget::new(step));
        }
        assert_eq!(world.check().of_devices, pages);
        assert_eq!(revoke(&a, handle), 0);
        assert_eq!(world.check().of_devices, 0);
    }
}

fn devices(guest: &Guest<'_>) -> Vec<DeviceInfo> {
    let reply = guest.call(DEVICES, &[]);
    let count = reply[..].u32_at(4) as usize;
    (0..count).map(|n| DeviceInfo::decode(&reply[12..], n * DeviceInfo::SIZE).unwrap()).collect()
}

#[test]
fn what_the_smmu_refuses_a_device_is_counted_and_told_to_its_vm() {
    let world = world();
    let handle = lent_to_b(&world, 4);
    let (a, b) = (world.caller(A), world.caller(B));
    let quiet = devices(&b);
    assert_eq!(
        quiet.iter().map(|device| device.stream).collect::<Vec<_>>(),
        [B_DEVICE, B_BLIND, B_SMALL]
    );
    assert_eq!((quiet[2].address_bits, quiet[1].is_coherent, quiet[0].faults), (32, false, 0));
    assert_eq!((attach(&b, handle, B_DEVICE), map(&b, handle, B_DEVICE, TO)), (0, 0));
    let fault = world.device(B_DEVICE).write(Ipa(WINDOW + 0x1008), 1).unwrap_err();
    let expected = DeviceFault {
        stream: B_DEVICE,
        at: Ipa(WINDOW + 0x1008),
        direction: Direction::FromDevice,
    };
    assert_eq!(fault, expected);
    assert_eq!(world.manager.device_fault(&fault), Some(B));
    let loud = devices(&b)[0];
    assert_eq!((loud.faults, loud.attachments), (1, 1));
    assert_eq!(loud.last_fault, Some((WINDOW + 0x1008, Direction::FromDevice)));
    let reply = b.call(COUNTERS, &[0; 8]);
    let counts: Vec<_> = (0..Counter::ALL.len())
        .map(|n| Count::decode(&reply[4..], Count::HEAD + n * Count::SIZE).unwrap())
        .collect();
    let faults = counts.iter().find(|count| count.counter == Counter::DeviceFaults as u16);
    assert_eq!(faults.unwrap().value, 1);
    assert_eq!(devices(&a)[0].faults, 0, "no other VM's");
    let stranger = DeviceFault { stream: Stream(0x99), ..fault };
    assert_eq!(world.manager.device_fault(&stranger), None);
}

#[test]
fn a_machine_without_an_smmu_refuses_to_attach_and_says_why() {
    let world = World::new(&configs());
    assert_eq!(world.manager.streams().count(), 0);
    let handle = lent_to_b(&world, 6);
    let b = world.caller(B);
    let before = world.check();
    for (handle, stream) in [(handle, B_DEVICE), (handle, Stream(0x99)), (0x7777, B_DEVICE)] {
        assert_eq!(attach(&b, handle, stream), u32::MAX);
        assert_eq!(rule(&b), Some(Rule::NoSmmu));
    }
    assert_eq!(
        Rule::NoSmmu.to_string(),
        "the machine has no SMMU, so no device of a VM could be kept to a parcel"
    );
    assert_eq!((map(&b, handle, B_DEVICE, TO), rule(&b)), (3, Some(Rule::NoDevice)));
    assert_eq!(devices(&b), []);
    let announced = |world: &World| {
        let reply = world.caller(B).call(DISCOVER, &[]);
        Discovery::decode(&reply[4..]).unwrap().serves(ATTACH)
    };
    assert!(!announced(&world) && announced(&self::world()));
    assert_eq!(world.check(), before);
}

#[test]
fn devices_that_make_no_sense_do_not_boot() {
    let boots = |change: fn(&mut [VmConfig; 3])| {
        let mut vms = configs();
        change(&mut vms);
        World::with_shared(&vms, Amounts::NONE, 0).map(drop)
    };
    assert_eq!(boots(|_| {}), Ok(()));
    let twice = |vms: &mut [VmConfig; 3]| vms[2].streams[1] = device(B_SMALL, 40, true);
    assert_eq!(boots(twice), Err(BootError::Streams));
    let short = |vms: &mut [VmConfig; 3]| vms[2].streams[1] = device(Stream(1), 12, true);
    assert_eq!(boots(short), Err(BootError::Streams));
    // A frame for the root of each.
    let bare = |vms: &mut [VmConfig; 3]| vms[1].quotas.frames_reserved = Quotas::MIN_FRAMES + 2;
    assert_eq!(boots(bare), Err(BootError::Frames));
    let enough = |vms: &mut [VmConfig; 3]| vms[1].quotas.frames_reserved = Quotas::MIN_FRAMES + 3;
    assert_eq!(boots(enough), Ok(()));
    assert_eq!(world().manager.streams().count(), 5);
}

#[test]
fn an_unfinished_parcel_has_no_devices() {
    let world = world();
    let a = world.caller(A);
    let request = offer(CreateFlags::APPEND, &[(3, 6), (4, 6)], &RUNS[..1], &[]);
    let handle = a.words(message::MEM_SHARE, &request).1;
    assert_eq!(attach(&a, handle, A_DEVICE), 5);
    a.append(handle, true, &RUNS[1..]).unwrap();
    assert_eq!((attach(&a, handle, A_DEVICE), map(&a, handle, A_DEVICE, TO)), (0, 0));
    assert_eq!(a.append(handle, true, &[(PAGE + 0x2_0000, 1)]), Err(3), "its size stays");
    assert_eq!(world.device(A_DEVICE).pages().len(), 3);
}
