//! INFO, LIST, HOLDERS, LIMITS, SET_NAME: what VMs can ask, and what they do not learn.

use rm::address::VmIndex;
use rm::config::{Roles, StreamConfig, VmConfig};
use rm::machine::Features;
use rm::machine::fake::effort::{few, some};
use rm::machine::fake::world::{Guest, RAM, Turn, World, accept, by_handle, offer, vm};
use rm_abi::extension::{
    self, ATTACH, COPY, COUNTERS, CPU_ACCESS, DETACH, DEVICES, DISCOVER, DMA_MAP, DMA_UNMAP,
    HOLDERS, HeapAllocRequest, HeapFreeRequest, Holder, HolderStage, INFO, LAST_REFUSAL, LEAF,
    LIMITS, LIST, Limit, LimitsRequest, ListFlags, ListRequest, MAP, NOTIFY_SET, Name, NameRequest,
    NotifyActions, NotifySetRequest, ParcelEntry, ParcelFlags, ParcelInfo, ParcelPhase,
    ParcelRequest, Policies, Policy, REVOKE, Resource, Rule, SET_NAME, SET_POLICY, SET_WINDOW,
    SUBSCRIBE, SetPolicyRequest, Stream, TRIM, TrimFlags, TrimRequest, VMS, WindowFlags,
    WindowRequest,
};
use rm_abi::{
    AcceptFlags, Bytes, CreateFlags, EncodeError, Handle, Rights, Transfer, Vmid, message,
};

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const C: VmIndex = VmIndex(2);
const D: VmIndex = VmIndex(3);
const PAGE: u64 = RAM.0 + 0x10_0000;
const WINDOW: u64 = 0x9000_0000;
const HEAP_AT: u64 = 0xa000_0000;
const SHARED: Transfer = Transfer::Share;
const LENT: Transfer = Transfer::Lend;

/// VMs 3, 4 and 5, and 6, which may look at all of them.
fn world() -> World {
    World::new(&[vm(3), vm(4), vm(5), VmConfig { roles: Roles::INSPECT, ..vm(6) }])
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 64];
    let length = encode(&mut payload).unwrap();
    payload.truncate(length);
    payload
}

fn about(handle: u32) -> Vec<u8> {
    encoded(|into| ParcelRequest { handle: Handle(handle) }.encode(into))
}

fn info(guest: &Guest<'_>, handle: u32) -> Result<ParcelInfo, u32> {
    let reply = guest.call(INFO, &about(handle));
    match reply[..].u32_at(0) {
        0 => Ok(ParcelInfo::decode(&reply[4..]).unwrap()),
        error => Err(error),
    }
}

fn name(guest: &Guest<'_>, handle: u32, name: &str) -> u32 {
    let request = NameRequest { handle: Handle(handle), name: Name::new(name) };
    guest.words(SET_NAME, &encoded(|into| request.encode(into))).0
}

fn holders(guest: &Guest<'_>, handle: u32) -> Result<Vec<Holder>, u32> {
    let reply = guest.call(HOLDERS, &about(handle));
    match reply[..].u32_at(0) {
        0 => {
            let count = reply[4..].u32_at(0) as usize;
            let entry = |n| Holder::decode(&reply[4..], Holder::HEAD + n * Holder::SIZE).unwrap();
            Ok((0..count).map(entry).collect())
        }
        error => Err(error),
    }
}

/// All parts of a list, `most` entries at a time.
fn list(guest: &Guest<'_>, flags: ListFlags, most: u16) -> Result<Vec<ParcelEntry>, u32> {
    let (mut cursor, mut all) = (0, vec![]);
    loop {
        let request = ListRequest { cursor, most, flags };
        let reply = guest.call(LIST, &encoded(|into| request.encode(into)));
        if reply[..].u32_at(0) != 0 {
            return Err(reply[..].u32_at(0));
        }
        let data = &reply[4..];
        let count = usize::from(data.u16_at(4));
        assert!(
            count <= most.into() && data.len() == ParcelEntry::HEAD + count * ParcelEntry::SIZE
        );
        let at = |n| ParcelEntry::HEAD + n * ParcelEntry::SIZE;
        all.extend((0..count).map(|n| ParcelEntry::decode(data, at(n)).unwrap()));
        cursor = data.u32_at(0);
        if cursor == 0 {
            return Ok(all);
        }
    }
}

fn limits(guest: &Guest<'_>, vmid: u16) -> Result<Vec<Limit>, u32> {
    let request = LimitsRequest { vmid: Vmid(vmid) };
    let reply = guest.call(LIMITS, &encoded(|into| request.encode(into)));
    match reply[..].u32_at(0) {
        0 => {
            let count = reply[4..].u32_at(0) as usize;
            let entry = |n| Limit::decode(&reply[4..], Limit::HEAD + n * Limit::SIZE).unwrap();
            Ok((0..count).map(entry).collect())
        }
        error => Err(error),
    }
}

fn used(limits: &[Limit], resource: Resource) -> u64 {
    limits.iter().find(|limit| limit.resource == resource as u16).unwrap().used
}

#[test]
fn a_party_learns_of_a_parcel_what_concerns_it() {
    for step in some([1, rm::operation::STEP], 3) {
        let world = world();
        let (a, b) = (world.caller(A), world.caller(B));
        a.step.set(step);
        b.step.set(step);
        let ranges = [(PAGE, 2), (PAGE + 0x8000, 1)];
        let handle = a.offer(SHARED, &[(3, 6), (4, 4)], &ranges).unwrap();
        assert_eq!(name(&a, handle, "ring buffer"), 0);
        let plain = ParcelInfo {
            handle: Handle(handle),
            owner: Vmid(3),
            transfer: SHARED,
            memory: rm_abi::MemoryKind::NORMAL,
            label: rm::machine::fake::world::LABEL,
            tag: 0,
            flags: ParcelFlags::empty(),
            phase: ParcelPhase::Offered,
            rights: Rights::RW,
            policy: Policies::CACHED,
            is_forced: false,
            pages: 3,
            extents: 2,
            acl: 2,
            address: 0,
            name: Name::new("ring buffer"),
        };
        assert_eq!(info(&a, handle), Ok(plain));
        assert_eq!(info(&b, handle), Ok(ParcelInfo { rights: Rights::R, ..plain }));
        b.accept_contiguous(handle, SHARED, (WINDOW, 3)).unwrap();
        let held = ParcelInfo { flags: ParcelFlags::HELD, ..plain };
        assert_eq!(info(&a, handle), Ok(held));
        let flags = ParcelFlags::MINE;
        let mine = ParcelInfo { flags, rights: Rights::R, address: WINDOW, ..plain };
        assert_eq!(info(&b, handle), Ok(mine));
        world.check();
    }
}

#[test]
fn policy_and_whether_it_is_forced_are_told() {
    for forced_write_back in [false, true] {
        let world =
            World::with_features(&[vm(3), vm(4)], Features { forced_write_back, smmu: false });
        let a = world.caller(A);
        let cached = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 1)]).unwrap();
        let told = info(&a, cached).unwrap();
        assert_eq!((told.policy, told.is_forced), (Policies::CACHED, forced_write_back));
        let attributes = [(rm_abi::Attribute::Uncached as u16, 4)];
        let uncached =
            offer(CreateFlags::empty(), &[(3, 6), (4, 6)], &[(PAGE + 0x1000, 1)], &attributes);
        let (error, uncached) = a.words(message::MEM_SHARE, &uncached);
        assert_eq!(error, 0);
        let told = info(&a, uncached).unwrap();
        assert_eq!((told.policy, told.is_forced), (Policies::UNCACHED, true));
    }
}

#[test]
fn g6_who_is_no_party_learns_nothing_from_any_question() {
    let world = world();
    let (a, c) = (world.caller(A), world.caller(C));
    let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    for message in [INFO, HOLDERS] {
        assert_eq!(c.call(message, &about(handle)), c.call(message, &about(0x7777)));
        assert_eq!(c.call(message, &about(handle)), 7_u32.to_le_bytes());
    }
    assert_eq!((name(&c, handle, "x"), name(&c, 0x7777, "x")), (7, 7));
    assert_eq!(list(&c, ListFlags::empty(), 100), Ok(vec![]));
    assert_eq!(list(&c, ListFlags::ALL, 100), Err(3));
    assert_eq!(c.last_refusal().rule, Rule::Role as u16);
    assert_eq!(limits(&c, 3), Err(3));
    // Before it is offered nobody but the owner knows of it.
    let open = offer(CreateFlags::APPEND, &[(4, 6)], &[(PAGE + 0x1000, 1)], &[]);
    let (_, open) = a.words(message::MEM_LEND, &open);
    assert_eq!(info(&world.caller(B), open), Err(7));
    assert_eq!(info(&a, open).map(|info| info.phase), Ok(ParcelPhase::Initial));
}

#[test]
fn a_busy_parcel_names_who_holds_it_and_how() {
    let world = world();
    let (a, b, c, d) = (world.caller(A), world.caller(B), world.caller(C), world.caller(D));
    let handle =
        a.offer(LENT, &[(4, 6), (5, 4), (6, 4)], &[(PAGE, 2), (PAGE + 0x8000, 1)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 3)).unwrap();
    let some = accept(handle, LENT, AcceptFlags::empty(), &[(WINDOW, 2)]);
    assert_eq!(c.words(message::MEM_ACCEPT, &some).0, 0);
    assert_eq!(a.reclaim(handle, 0), Err(0xb));
    let expected = [
        Holder {
            vmid: Vmid(4),
            stage: HolderStage::Mapped,
            rights: Rights::RW,
            stream: Stream(0),
            pages: 3,
        },
        Holder {
            vmid: Vmid(5),
            stage: HolderStage::Assigned,
            rights: Rights::R,
            stream: Stream(0),
            pages: 0,
        },
    ];
    assert_eq!(holders(&a, handle).as_deref(), Ok(&expected[..]));
    assert_eq!(holders(&d, handle).as_deref(), Ok(&expected[..]), "it inspects");
    assert_eq!(holders(&b, handle), Err(3));
    assert_eq!(name(&b, handle, "mine"), 3);
}

#[test]
fn a_list_has_every_parcel_once_whatever_its_parts() {
    let world = world();
    let (a, b) = (world.caller(A), world.caller(B));
    let handles: Vec<_> = (0..few(30, 9))
        .map(|n| a.offer(LENT, &[(4, 6)], &[(PAGE + n * 0x1000, 1)]).unwrap())
        .collect();
    let own = b.offer(LENT, &[(5, 6)], &[(PAGE, 1)]).unwrap();
    b.accept_contiguous(handles[7], LENT, (WINDOW, 1)).unwrap();
    for most in [1, 7, 100] {
        let mut listed: Vec<_> = list(&a, ListFlags::empty(), most)
            .unwrap()
            .iter()
            .map(|entry| entry.handle.0)
            .collect();
        listed.sort_unstable();
        let mut expected = handles.clone();
        expected.sort_unstable();
        assert_eq!(listed, expected, "{most} at a time");
        let of_b = list(&b, ListFlags::empty(), most).unwrap();
        assert_eq!(of_b.len(), handles.len() + 1);
        let all = list(&world.caller(D), ListFlags::ALL, most).unwrap();
        assert_eq!(all.len(), handles.len() + 1);
        let held = all.iter().find(|entry| entry.handle.0 == handles[7]).unwrap();
        assert_eq!((held.holders, held.owner), (1, Vmid(3)));
        assert!(all.iter().any(|entry| entry.handle.0 == own && entry.owner == Vmid(4)));
    }
}

#[test]
fn thousands_of_parcels_are_listed_in_short_steps_while_calls_go_on() {
    const COUNT: u64 = few(4095, 63);
    let mut owner = vm(3);
    owner.quotas.parcels = COUNT as u32 + 1;
    owner.quotas.frames = few(400, 60);
    let world = World::new(&[owner, VmConfig { roles: Roles::INSPECT, ..vm(4) }]);
    let (a, b) = (world.caller(A), world.caller(B));
    for n in 0..COUNT {
        a.offer(LENT, &[(4, 6)], &[(RAM.0 + n * 0x1000, 1)]).unwrap();
    }
    let (mut cursor, mut seen, mut turns) = (0, 0, 0_u64);
    loop {
        let request = ListRequest { cursor, most: 200, flags: ListFlags::ALL };
        let mut turn = b.send(LIST, &encoded(|into| request.encode(into)));
        while let Turn::More(token) = turn {
            // Between two steps the owner goes on with its life.
            let extra = a.offer(LENT, &[(4, 6)], &[(RAM.0 + COUNT * 0x1000, 1)]).unwrap();
            a.reclaim(extra, 0).unwrap();
            turn = b.resume(token);
            turns += 1;
        }
        let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
        seen += u64::from(reply[4..].u16_at(4));
        cursor = reply[4..].u32_at(0);
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen, COUNT);
    assert!(turns > few(200, 3), "a part of 200 entries takes many steps: {turns}");
    let through_queues = b.queue_call(
        LIST,
        &encoded(|into| {
            ListRequest { cursor: 0, most: few(100, 20), flags: ListFlags::ALL }.encode(into)
        }),
    );
    assert_eq!(through_queues[4..].u16_at(4), few(100, 20));
}

#[test]
fn limits_tell_use_and_what_is_left() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let before = limits(&a, 0).unwrap();
    assert_eq!(before.len(), Resource::ALL.len());
    let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 2), (PAGE + 0x8000, 1)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 3)).unwrap();
    let mine = limits(&a, 3).unwrap();
    assert_eq!(used(&mine, Resource::Parcels), used(&before, Resource::Parcels) + 1);
    assert_eq!(used(&mine, Resource::PagesLent), 3);
    assert_eq!(used(&mine, Resource::Extents), 2);
    assert_eq!(used(&limits(&b, 0).unwrap(), Resource::PagesAccepted), 3);
    // Who asks itself has a frame of the reply's in use.
    let seen = limits(&d, 3).unwrap();
    assert_eq!(seen[..7], mine[..7], "it inspects");
    assert_eq!(limits(&d, 99), Err(0xd));
    for limit in mine {
        assert!(limit.guaranteed <= limit.limit && limit.used <= limit.limit, "{limit:?}");
    }
}

#[test]
fn questions_are_answered_alike_by_both_transports_and_whatever_the_step() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let handle = a.offer(SHARED, &[(3, 6), (4, 6)], &[(PAGE, 2)]).unwrap();
    b.accept_contiguous(handle, SHARED, (WINDOW, 2)).unwrap();
    assert_eq!(name(&a, handle, "ring"), 0);
    let list = |flags| encoded(|into| ListRequest { cursor: 0, most: 9, flags }.encode(into));
    let questions = [
        (&a, INFO, about(handle)),
        (&b, INFO, about(handle)),
        (&a, HOLDERS, about(handle)),
        (&d, HOLDERS, about(handle)),
        (&a, LIST, list(ListFlags::empty())),
        (&b, LIST, list(ListFlags::empty())),
        (&d, LIST, list(ListFlags::ALL)),
        (&d, LIMITS, encoded(|into| LimitsRequest { vmid: Vmid(3) }.encode(into))),
    ];
    let before = world.check();
    for (guest, call, payload) in questions {
        let told = guest.call(call, &payload);
        assert_eq!(told[..4], [0; 4], "{call:#x}");
        for step in some([1, 2, rm::operation::STEP], 3) {
            guest.step.set(step);
            assert_eq!(guest.call(call, &payload), told, "{call:#x} in steps of {step}");
            assert_eq!(guest.queue_call(call, &payload), told, "{call:#x}, queued");
        }
    }
    assert_eq!(world.check(), before, "a question changes nothing");
}

#[test]
fn each_refusal_of_a_question_has_its_code_and_rule() {
    let world = world();
    let (a, b, c) = (world.caller(A), world.caller(B), world.caller(C));
    let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    let named = |handle, bytes: &[u8]| {
        let mut payload =
            encoded(|into| NameRequest { handle: Handle(handle), name: Name::NONE }.encode(into));
        payload[8..8 + bytes.len()].copy_from_slice(bytes);
        payload
    };
    let [vmid3, vmid99] = [3, 99].map(|vmid| [vmid, 0, 0, 0, 0, 0, 0, 0].to_vec());
    let flagged = [&handle.to_le_bytes()[..], &[1, 0, 0, 0]].concat();
    let before = world.check();
    let refusals = [
        (&c, INFO, about(handle), 7, Rule::NoParcel),
        (&c, HOLDERS, about(handle), 7, Rule::NoParcel),
        (&c, SET_NAME, named(handle, b"x"), 7, Rule::NoParcel),
        (&b, HOLDERS, about(handle), 3, Rule::NotOwner),
        (&b, SET_NAME, named(handle, b"x"), 3, Rule::NotOwner),
        (&a, SET_NAME, named(handle, b"x\0y"), 6, Rule::UnknownBits),
        (&a, SET_NAME, named(handle, b"\xff"), 6, Rule::UnknownBits),
        (&a, INFO, flagged.clone(), 6, Rule::UnknownBits),
        (&a, HOLDERS, flagged, 6, Rule::UnknownBits),
        (&a, LIST, vec![0; 8], 6, Rule::UnknownBits),
        (&a, LIST, vec![0, 0, 0, 0, 1, 0, 2, 0], 6, Rule::UnknownBits),
        (&a, LIST, vec![0, 0, 0, 0, 1, 0, 1, 0], 3, Rule::Role),
        (&a, LIMITS, vmid99.clone(), 3, Rule::Role),
        (&b, LIMITS, vmid3, 3, Rule::Role),
        (&world.caller(D), LIMITS, vmid99, 0xd, Rule::UnknownVm),
        (&a, INFO, vec![0; 7], 4, Rule::Malformed),
    ];
    for (guest, call, payload, code, rule) in refusals {
        assert_eq!(guest.words(call, &payload).0, code, "{call:#x} {payload:x?}");
        let last = guest.last_refusal();
        assert_eq!((last.message, last.rule, last.error), (call, rule as u16, code));
    }
    assert_eq!(info(&a, handle).unwrap().name, Name::NONE);
    assert_eq!(world.check(), before);
}

#[test]
fn a_parcel_that_is_taken_away_is_told_of_to_its_owner_alone() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let handle = a.offer(LENT, &[(4, 6), (5, 6)], &[(PAGE, 2)]).unwrap();
    b.accept_contiguous(handle, LENT, (WINDOW, 2)).unwrap();
    a.step.set(1);
    let Turn::More(token) = a.send(REVOKE, &by_handle(handle, 0)) else { panic!("in one step") };
    // Between two steps of its end, everybody but A is told what one is of a handle that never was.
    assert_eq!((info(&b, handle), info(&world.caller(C), handle)), (Err(7), Err(7)));
    assert_eq!(list(&b, ListFlags::empty(), 9), Ok(vec![]));
    let revoked = Holder {
        vmid: Vmid(4),
        stage: HolderStage::Revoking,
        rights: Rights::RW,
        stream: Stream(0),
        pages: 0,
    };
    assert_eq!(holders(&d, handle).as_deref(), Ok(&[revoked][..]));
    let seen = list(&d, ListFlags::ALL, 9).unwrap();
    let flags = ParcelFlags::HELD | ParcelFlags::SANITIZE;
    assert_eq!((seen[0].phase, seen[0].flags), (ParcelPhase::Closing, flags));
    let mut turn = a.resume(token);
    while let Turn::More(token) = turn {
        turn = a.resume(token);
    }
    let told = info(&a, handle).unwrap();
    assert_eq!((told.phase, told.flags), (ParcelPhase::Closing, ParcelFlags::SANITIZE));
    assert_eq!(holders(&a, handle), Ok(vec![]));
}

#[test]
fn a_name_goes_with_its_parcel() {
    let world = world();
    let a = world.caller(A);
    let first = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    assert_eq!(name(&a, first, "first"), 0);
    assert_eq!(name(&a, first, "a better one"), 0);
    assert_eq!(list(&a, ListFlags::empty(), 9).unwrap()[0].name, Name::new("a better one"));
    a.reclaim(first, 0).unwrap();
    assert_eq!(name(&a, first, "late"), 7);
    let second = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    assert_eq!(info(&a, second).unwrap().name, Name::NONE);
}

#[test]
fn what_stays_is_listed_once_while_others_come_and_go() {
    let world = world();
    let (a, b, d) = (world.caller(A), world.caller(B), world.caller(D));
    let lend = |guest: &Guest<'_>, n: u64| {
        guest.offer(LENT, &[(5, 6)], &[(PAGE + n * 0x1000, 1)]).unwrap()
    };
    let mut fleeting: Vec<_> = (0..8).map(|n| (n, lend(&a, n))).collect();
    let mut stays: Vec<_> = (8..16).map(|n| lend(&a, n)).collect();
    stays.extend((0..8).map(|n| lend(&b, n)));
    stays.sort_unstable();
    d.step.set(1);
    let (mut cursor, mut listed) = (0, vec![]);
    loop {
        let request = ListRequest { cursor, most: 3, flags: ListFlags::ALL };
        let mut turn = d.send(LIST, &encoded(|into| request.encode(into)));
        while let Turn::More(token) = turn {
            // Two go, and come again in each other's place.
            let gone = [fleeting.remove(0), fleeting.remove(0)];
            for (_, handle) in gone {
                a.reclaim(handle, 0).unwrap();
            }
            fleeting.extend(gone.map(|(n, _)| (n, lend(&a, n))));
            turn = d.resume(token);
        }
        let Turn::Reply(reply) = turn else { panic!("{turn:?}") };
        let data = &reply[4..];
        let entry = |n| ParcelEntry::decode(data, ParcelEntry::HEAD + n * ParcelEntry::SIZE);
        listed.extend((0..data.u16_at(4).into()).map(|n| entry(n).unwrap().handle.0));
        cursor = data.u32_at(0);
        if cursor == 0 {
            break;
        }
    }
    listed.retain(|handle| stays.contains(handle));
    listed.sort_unstable();
    assert_eq!(listed, stays);
    world.check();
}

#[test]
fn a_short_question_is_answered_beside_a_long_call() {
    let world = world();
    let a = world.caller(A);
    let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
    a.step.set(1);
    let payload = offer(CreateFlags::empty(), &[(4, 6)], &[(PAGE + 0x1000, 40)], &[]);
    let Turn::More(token) = a.send(message::MEM_LEND, &payload) else { panic!("in one step") };
    assert_eq!(info(&a, handle).map(|info| info.pages), Ok(1));
    assert_eq!(name(&a, handle, "beside"), 0);
    let list = ListRequest { cursor: 0, most: 9, flags: ListFlags::empty() };
    let busy = a.send(LIST, &encoded(|into| list.encode(into)));
    assert_eq!(busy, Turn::Error(rm_abi::HypercallError::BUSY, 0));
    // Another VM's long call is in nobody's way, and what it makes is not there yet.
    let seen = world.caller(D).call(LIST, &[0, 0, 0, 0, 9, 0, 1, 0]);
    assert_eq!(seen[4..].u16_at(4), 1);
    let mut turn = a.resume(token);
    while let Turn::More(token) = turn {
        turn = a.resume(token);
    }
    assert_eq!(self::list(&a, ListFlags::empty(), 9).map(|all| all.len()), Ok(2));
}

#[test]
fn every_extension_call_grows_by_the_same_rule() {
    let mut vms = [VmConfig { roles: Roles::all(), ..vm(3) }, vm(4)];
    let device = StreamConfig { stream: Stream(7), address_bits: 40, is_coherent: true };
    vms[0].streams[0] = Some(device);
    let world = World::with_features(&vms, Features { forced_write_back: false, smmu: true });
    world.add_heap("test", 0b1, 1);
    let (a, handle) = {
        let a = world.caller(A);
        let handle = a.offer(LENT, &[(4, 6)], &[(PAGE, 1)]).unwrap();
        (a, handle)
    };
    // Two pages, one after the other.
    let two = HeapAllocRequest { heap: 0, size: 0x2000, address: HEAP_AT };
    assert_eq!(a.words(extension::HEAP_ALLOC, &encoded(|into| two.encode(into))).0, 0);
    let own = a.offer(Transfer::Share, &[(3, 6)], &[(PAGE + 0x4000, 1)]).unwrap();
    let of_device = |last: u32| [own, 7, last].map(u32::to_le_bytes).concat();
    let list = ListRequest { cursor: 0, most: 1, flags: ListFlags::empty() };
    let trim =
        TrimRequest { handle: Handle(handle), flags: TrimFlags::empty(), offset: 0, size: 4096 };
    let will = NotifySetRequest {
        handle: Handle(handle),
        actions: NotifyActions::empty(),
        offset: 0,
        doorbell: 0,
        flag: 0,
    };
    let window = WindowRequest {
        handle: Handle(handle),
        vmid: Vmid(4),
        flags: WindowFlags::empty(),
        offset: 0,
        size: 8,
    };
    let requests: [(u32, Vec<u8>); 27] = [
        (DISCOVER, vec![]),
        (LAST_REFUSAL, vec![]),
        (SUBSCRIBE, vec![0; 4]),
        (INFO, about(handle)),
        (LIST, encoded(|into| list.encode(into))),
        (
            SET_NAME,
            encoded(|into| NameRequest { handle: Handle(handle), name: Name::NONE }.encode(into)),
        ),
        (LIMITS, vec![0; 8]),
        (HOLDERS, about(handle)),
        (
            SET_POLICY,
            encoded(|into| {
                SetPolicyRequest { handle: Handle(handle), policy: Policy::Cached }.encode(into)
            }),
        ),
        (VMS, vec![0, 0, 0, 0, 1, 0, 0, 0]),
        (MAP, [&[0, 0, 1][..], &[0; 13]].concat()),
        (COUNTERS, vec![0; 8]),
        (LEAF, vec![0; 16]),
        (COPY, vec![0; 8]),
        (SET_WINDOW, encoded(|into| window.encode(into))),
        (NOTIFY_SET, encoded(|into| will.encode(into))),
        (ATTACH, of_device(0)),
        (DMA_MAP, of_device(1)),
        (DMA_UNMAP, of_device(1)),
        (DETACH, of_device(0)[..8].to_vec()),
        (CPU_ACCESS, about(own)[..4].iter().chain(&[1, 0, 0, 0]).copied().collect()),
        (DEVICES, vec![]),
        (TRIM, encoded(|into| trim.encode(into))),
        (REVOKE, by_handle(handle, 0)),
        (extension::HEAP, vec![0; 8]),
        (extension::HEAP_ALLOC, [&[0; 9][..], &[0x10], &[0; 6], &[0xff; 8]].concat()),
        (
            extension::HEAP_FREE,
            encoded(|into| HeapFreeRequest { address: HEAP_AT, size: 0x1000 }.encode(into)),
        ),
    ];
    let tested =
        requests.iter().fold(0, |all, (message, _)| all | 1 << (message - extension::CALLS));
    assert_eq!(tested, extension::KNOWN_CALLS, "a call is missing here");
    for (message, payload) in requests {
        let longer = |byte: u8| [&payload[..], &[0, 0, byte]].concat();
        if let Some((_, shorter)) = payload.split_last() {
            assert_eq!(a.words(message, shorter).0, 4, "{message:#x} cut short");
        }
        assert_eq!(a.words(message, &longer(1)).0, 6, "{message:#x} with an unknown wish");
        assert_eq!(a.words(message, &vec![0; 233]).0, 4, "{message:#x} of more than a packet");
        assert_eq!(a.words(message, &longer(0)).0, 0, "{message:#x} of a newer client");
        // What is done already, or is over, is not done again.
        let again = match message {
            TRIM | DMA_UNMAP | DETACH => 0xc,
            ATTACH | DMA_MAP => 5,
            extension::HEAP_FREE => 0xa,
            _ => 0,
        };
        assert_eq!(a.words(message, &payload).0, again, "{message:#x}");
    }
}
