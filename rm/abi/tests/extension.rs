//! The bytes of the extension calls and notifications, written out, and the rule by which they grow.

use rm_abi::extension::{
    self, AccessFlags, AttachFlags, AttachRequest, CopyRequest, CopySegment, CopySide,
    CpuAccessRequest, DetachRequest, DeviceInfo, Direction, Discovery, DmaRequest, EventKind,
    EventReason, Events, HeapAllocRequest, HeapFeatures, HeapFreeRequest, HeapInfo, HeapRequest,
    Holder, HolderStage, LastRefusal, Limit, LimitsRequest, ListFlags, ListRequest, Name,
    NameRequest, NotifyActions, NotifySetRequest, ParcelEntry, ParcelEvent, ParcelFlags,
    ParcelInfo, ParcelPhase, ParcelRequest, Policies, Policy, Resource, RevokeFlags, RevokeRequest,
    Rule, SetPolicyRequest, Stream, SubscribeRequest, TrimFlags, TrimRequest, WindowFlags,
    WindowRequest,
};
use rm_abi::{
    EncodeError, ErrorCode, Handle, MAX_PAYLOAD, MemoryKind, Rights, Transfer, Vmid, hypercall,
    message,
};

/// The bytes of a hex dump.
fn hex(dump: &str) -> Vec<u8> {
    dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let mut bytes = vec![0xaa; 256];
    let length = encode(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn ids_are_those_of_the_table() {
    assert_eq!(extension::DISCOVER, 0x5e00_0000);
    assert_eq!(extension::LAST_REFUSAL, 0x5e00_0001);
    assert_eq!(extension::SUBSCRIBE, 0x5e00_0002);
    assert_eq!(extension::REVOKE, 0x5e00_0003);
    assert_eq!(extension::INFO, 0x5e00_0004);
    assert_eq!(extension::LIST, 0x5e00_0005);
    assert_eq!(extension::SET_NAME, 0x5e00_0006);
    assert_eq!(extension::TRIM, 0x5e00_0007);
    assert_eq!(extension::LIMITS, 0x5e00_0008);
    assert_eq!(extension::HOLDERS, 0x5e00_0009);
    assert_eq!(extension::SET_POLICY, 0x5e00_000a);
    assert_eq!(extension::HEAP, 0x5e00_000f);
    assert_eq!(extension::HEAP_ALLOC, 0x5e00_0010);
    assert_eq!(extension::HEAP_FREE, 0x5e00_0011);
    assert_eq!(extension::NOTIFY_SET, 0x5e00_0012);
    assert_eq!(extension::COPY, 0x5e00_0013);
    assert_eq!(extension::SET_WINDOW, 0x5e00_0014);
    assert_eq!(extension::ATTACH, 0x5e00_0015);
    assert_eq!(extension::DETACH, 0x5e00_0016);
    assert_eq!(extension::DMA_MAP, 0x5e00_0017);
    assert_eq!(extension::DMA_UNMAP, 0x5e00_0018);
    assert_eq!(extension::CPU_ACCESS, 0x5e00_0019);
    assert_eq!(extension::DEVICES, 0x5e00_001a);
    assert_eq!(extension::PARCEL_EVENT, 0x5e10_0001);
}

#[test]
fn discovery_says_what_there_is() {
    let discovery = Discovery {
        version: extension::VERSION,
        direct_call: hypercall::DIRECT_CALL.into(),
        calls: extension::KNOWN_CALLS,
        notices: extension::KNOWN_NOTICES,
        max_acl: 16,
        max_entries: 512,
        max_payload: MAX_PAYLOAD as u32,
        vms: 3,
        forced: Policies::UNCACHED | Policies::DEVICE,
    };
    let bytes = hex("04 00 00 00 f0 01 00 00  ff ff ff 07 00 00 00 00
         02 00 00 00 00 00 00 00  10 00 00 02 18 39 00 00
         03 00 06 00");
    assert_eq!(encoded(|into| discovery.encode(into)), bytes);
    assert_eq!(bytes.len(), Discovery::SIZE);
    assert_eq!(Discovery::decode(&bytes[..]), Some(discovery));
    assert_eq!(Discovery::decode(&bytes[..35]), None);
    // A younger manager says more.
    assert_eq!(Discovery::decode(&[&bytes[..], &[9; 4]].concat()[..]), Some(discovery));
    assert!(discovery.serves(extension::SUBSCRIBE));
    assert!(discovery.serves(extension::REVOKE));
    assert!(discovery.serves(extension::SET_POLICY));
    assert!(!discovery.serves(extension::CALLS + 63));
    assert!(!discovery.serves(extension::CALLS + 64));
    assert!(!discovery.serves(message::MEM_SHARE));
}

#[test]
fn a_refusal_names_rule_resource_and_holders() {
    let mut refusal = LastRefusal {
        message: message::MEM_LEND,
        sequence: 0x1234,
        rule: Rule::Quota as u16,
        error: 2,
        resource: Resource::PagesLent as u16,
        used: 0x10,
        limit: 0x20,
        ..LastRefusal::NONE
    };
    let quota = hex("12 00 00 51 34 12 07 00  02 00 00 00 02 00 00 00
         10 00 00 00 00 00 00 00  20 00 00 00 00 00 00 00
         00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
         00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| refusal.encode(into)), quota);
    assert_eq!(LastRefusal::decode(&quota[..]), Some(refusal));
    assert_eq!(quota.len(), LastRefusal::SIZE);
    assert_eq!(LastRefusal::decode(&quota[..63]), None);

    refusal = LastRefusal { rule: Rule::Held as u16, error: 0xb, ..LastRefusal::NONE };
    refusal.holders[..2].copy_from_slice(&[Vmid(4), Vmid(0x80)]);
    refusal.holder_count = 2;
    let held = encoded(|into| refusal.encode(into));
    assert_eq!(held[12..16], [0, 0, 2, 0]);
    assert_eq!(held[32..38], [4, 0, 0x80, 0, 0, 0]);
    assert_eq!(LastRefusal::decode(&held[..]).unwrap().holders(), [Vmid(4), Vmid(0x80)]);
    assert_eq!(encoded(|into| LastRefusal::NONE.encode(into)), [0; LastRefusal::SIZE]);
}

#[test]
fn rules_and_resources_keep_their_numbers() {
    for rule in Rule::ALL {
        assert_eq!(Rule::from_wire(*rule as u16), Some(*rule));
    }
    assert!(
        Rule::ALL.is_sorted_by_key(|rule| *rule as u16),
        "a number that is used twice shows here"
    );
    for (index, resource) in (1..).zip(Resource::ALL) {
        assert_eq!(*resource as u16, index, "{resource}");
        assert_eq!(Resource::from_wire(index), Some(*resource));
    }
    assert_eq!((Rule::from_wire(0), Resource::from_wire(0)), (None, None));
    // Where one that is inserted by mistake would shift the others.
    assert_eq!((Rule::NoParcel as u16, Rule::Held as u16, Rule::UnknownBits as u16), (20, 34, 42));
    assert_eq!((Rule::VmState as u16, Rule::Policy as u16), (47, 53));
    assert_eq!((Rule::NoSmmu as u16, Rule::TooManyAttachments as u16), (70, 77));
    assert_eq!(Resource::Frames as u16, 8);
}

#[test]
fn requests_are_a_few_words() {
    let revoke = RevokeRequest { handle: Handle(0x1234_5678), flags: RevokeFlags(0) };
    let bytes = hex("78 56 34 12 00 00 00 00");
    assert_eq!(encoded(|into| revoke.encode(into)), bytes);
    assert_eq!(RevokeRequest::decode(&bytes[..]), Ok(revoke));
    assert_eq!(RevokeRequest::decode(&bytes[..7]), Err(ErrorCode::MessageInvalid));
    let recall = RevokeRequest { flags: RevokeFlags::RECALL, ..revoke };
    assert_eq!(RevokeRequest::decode(&hex("78 56 34 12 01 00 00 00")[..]), Ok(recall));
    let flagged = RevokeRequest::decode(&hex("78 56 34 12 02 00 00 00")[..]);
    assert_eq!(flagged, Err(ErrorCode::ArgumentInvalid));

    let uncached = SetPolicyRequest { handle: Handle(0x1234_5678), policy: Policy::Uncached };
    let bytes = hex("78 56 34 12 02 00 00 00");
    assert_eq!(encoded(|into| uncached.encode(into)), bytes);
    assert_eq!(SetPolicyRequest::decode(&bytes[..]), Ok(uncached));
    assert_eq!(SetPolicyRequest::decode(&bytes[..7]), Err(ErrorCode::MessageInvalid));
    for (number, policy) in [(1, Policy::Cached), (4, Policy::Device)] {
        assert_eq!(Policy::from_wire(number), Some(policy));
        assert_eq!(u32::from(policy.as_set().bits()), number);
    }
    for number in [0, 3, 5, 8, 0x1_0001] {
        let mut bytes = bytes.clone();
        bytes[4..].copy_from_slice(&u32::to_le_bytes(number));
        let refused = SetPolicyRequest::decode(&bytes[..]);
        assert_eq!(refused, Err(ErrorCode::ArgumentInvalid), "{number}");
    }

    let trim = TrimRequest {
        handle: Handle(0x1234_5678),
        flags: TrimFlags::SANITIZE,
        offset: 0x12_3456_7000,
        size: 0x1000,
    };
    let bytes = hex("78 56 34 12 01 00 00 00  00 70 56 34 12 00 00 00  00 10 00 00 00 00 00 00");
    assert_eq!(encoded(|into| trim.encode(into)), bytes);
    assert_eq!(bytes.len(), TrimRequest::SIZE);
    assert_eq!(TrimRequest::decode(&bytes[..]), Ok(trim));
    assert_eq!(TrimRequest::decode(&bytes[..23]), Err(ErrorCode::MessageInvalid));
    let mut flagged = bytes.clone();
    flagged[4] = 2;
    assert_eq!(TrimRequest::decode(&flagged[..]), Err(ErrorCode::ArgumentInvalid));

    let request = SubscribeRequest { events: Events::ACCEPTED | Events::RELEASED };
    assert_eq!(encoded(|into| request.encode(into)), [3, 0, 0, 0]);
    assert_eq!(SubscribeRequest::decode(&[3, 0, 0, 0][..]), Ok(request));
    let unknown = SubscribeRequest::decode(&[4, 0, 0, 0][..]);
    assert_eq!(unknown, Err(ErrorCode::ArgumentInvalid));
}

#[test]
fn grants_are_a_will_segments_and_a_window() {
    let will = NotifySetRequest {
        handle: Handle(0x1234_5678),
        actions: NotifyActions::all(),
        offset: 0x12_3456_7089,
        doorbell: 2,
        flag: 63,
    };
    let bytes = hex("78 56 34 12 03 00 00 00  89 70 56 34 12 00 00 00  02 00 00 00 3f 00 00 00");
    assert_eq!(encoded(|into| will.encode(into)), bytes);
    assert_eq!(bytes.len(), NotifySetRequest::SIZE);
    assert_eq!(NotifySetRequest::decode(&bytes[..]), Ok(will));
    assert_eq!(NotifySetRequest::decode(&bytes[..23]), Err(ErrorCode::MessageInvalid));
    let mut unknown = bytes;
    unknown[4] = 4;
    assert_eq!(NotifySetRequest::decode(&unknown[..]), Err(ErrorCode::ArgumentInvalid));

    let window = WindowRequest {
        handle: Handle(0x1234_5678),
        vmid: Vmid(4),
        flags: WindowFlags::END,
        offset: 100,
        size: 0x200,
    };
    let bytes = hex("78 56 34 12 04 00 01 00  64 00 00 00 00 00 00 00  00 02 00 00 00 00 00 00");
    assert_eq!(encoded(|into| window.encode(into)), bytes);
    assert_eq!(bytes.len(), WindowRequest::SIZE);
    assert_eq!(WindowRequest::decode(&bytes[..]), Ok(window));
    assert_eq!(WindowRequest::decode(&bytes[..23]), Err(ErrorCode::MessageInvalid));
    let mut unknown = bytes;
    unknown[6] = 2;
    assert_eq!(WindowRequest::decode(&unknown[..]), Err(ErrorCode::ArgumentInvalid));

    let out = CopySegment {
        source: CopySide::Parcel(Handle(0x1234_5678), 0x11),
        dest: CopySide::Own(0x4000_0022),
        length: 0x1_0000,
    };
    let back = CopySegment { source: out.dest, dest: out.source, length: 3 };
    let bytes = hex("02 00 00 00 00 00 00 00
         78 56 34 12 00 00 00 00  11 00 00 00 00 00 00 00
         22 00 00 40 00 00 00 00  00 00 01 00 00 00 00 00
         00 00 00 00 78 56 34 12  22 00 00 40 00 00 00 00
         11 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| CopyRequest::encode(&[out, back], into)), bytes);
    assert_eq!(CopyRequest::decode(&bytes[..]), Ok(CopyRequest { count: 2 }));
    assert_eq!([0, 1].map(|n| CopySegment::decode(&bytes[..], n)), [Some(out), Some(back)]);
    assert_eq!(CopyRequest::decode(&bytes[..71]), Err(ErrorCode::MessageInvalid));
    let longer = [&bytes[..], &[0; 4]].concat();
    assert_eq!(CopyRequest::decode(&longer[..]), Ok(CopyRequest { count: 2 }));
    let wish = [&bytes[..], &[1]].concat();
    assert_eq!(CopyRequest::decode(&wish[..]), Err(ErrorCode::ArgumentInvalid));
    let too_many = vec![out; CopyRequest::MAX + 1];
    let refused = CopyRequest::encode(&too_many, &mut [0; MAX_PAYLOAD]);
    assert_eq!((refused, CopyRequest::MAX), (Err(EncodeError::TooLong), 456));
}

#[test]
fn a_question_is_a_handle_a_cursor_or_a_vmid() {
    let parcel = ParcelRequest { handle: Handle(0x1234_5678) };
    let bytes = hex("78 56 34 12 00 00 00 00");
    assert_eq!(encoded(|into| parcel.encode(into)), bytes);
    assert_eq!(ParcelRequest::decode(&bytes[..]), Ok(parcel));
    let list = ListRequest { cursor: 0x1_0002, most: 0x304, flags: ListFlags::ALL };
    let bytes = hex("02 00 01 00 04 03 01 00");
    assert_eq!(encoded(|into| list.encode(into)), bytes);
    assert_eq!(ListRequest::decode(&bytes[..]), Ok(list));
    let limits = LimitsRequest { vmid: Vmid(0x80) };
    let bytes = hex("80 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| limits.encode(into)), bytes);
    assert_eq!(LimitsRequest::decode(&bytes[..]), Ok(limits));
    for unknown in ["78 56 34 12 01 00 00 00", "78 56 34 12 00 00 00 80"] {
        let refused = ParcelRequest::decode(&hex(unknown)[..]);
        assert_eq!(refused, Err(ErrorCode::ArgumentInvalid), "a flag");
    }
    for unknown in ["00 00 00 00 00 00 00 00", "00 00 00 00 01 00 02 00"] {
        let refused = ListRequest::decode(&hex(unknown)[..]);
        assert_eq!(refused, Err(ErrorCode::ArgumentInvalid), "no entry, or a flag");
    }
    for unknown in ["80 00 01 00 00 00 00 00", "80 00 00 00 00 01 00 00"] {
        let refused = LimitsRequest::decode(&hex(unknown)[..]);
        assert_eq!(refused, Err(ErrorCode::ArgumentInvalid), "a wider VMID, or a flag");
    }
}

/// The bytes of the name "ring".
const RING: &str = "72 69 6e 67 00 00 00 00  00 00 00 00 00 00 00 00
     00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00";

#[test]
fn a_name_is_text_of_at_most_32_bytes() {
    let request = NameRequest { handle: Handle(0x2005), name: Name::new("ring") };
    let bytes = [hex("05 20 00 00 00 00 00 00"), hex(RING)].concat();
    assert_eq!(encoded(|into| request.encode(into)), bytes);
    assert_eq!(NameRequest::decode(&bytes[..]), Ok(request));
    assert_eq!(request.name.as_str(), Some("ring"));
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        NameRequest::decode(&bytes[..]).map(|request| request.name.bytes().len())
    };
    assert_eq!((with(8, 0x7e), with(11, 0)), (Ok(4), Ok(3)));
    assert_eq!(with(4, 1), Err(ErrorCode::ArgumentInvalid), "a flag");
    assert_eq!(with(13, b'x'), Err(ErrorCode::ArgumentInvalid), "bytes behind its end");
    assert_eq!(with(9, 0xff), Err(ErrorCode::ArgumentInvalid), "not UTF-8");
    assert_eq!(with(11, 0xc3), Err(ErrorCode::ArgumentInvalid), "a character that is cut");
    let longest = "0123456789abcdef0123456789abcdef";
    assert_eq!(Name::new(longest).as_str(), Some(longest));
    assert_eq!(Name::new(&[longest, "g"].concat()).as_str(), Some(longest));
    assert_eq!(Name::new(&[&longest[..31], "ä"].concat()).as_str(), Some(&longest[..31]));
    assert_eq!((Name::NONE.as_str(), Name::new("")), (Some(""), Name::NONE));
}

#[test]
fn what_is_told_of_a_parcel() {
    let info = ParcelInfo {
        handle: Handle(0x2005),
        owner: Vmid(3),
        transfer: Transfer::Share,
        memory: MemoryKind::NORMAL,
        label: 0x1122_3344,
        tag: 0x55,
        flags: ParcelFlags::SANITIZED | ParcelFlags::HELD,
        phase: ParcelPhase::Offered,
        rights: Rights::RW,
        policy: Policies::UNCACHED,
        is_forced: true,
        pages: 0x1_0000_0002,
        extents: 7,
        acl: 2,
        address: 0x8_8000_1000,
        name: Name::new("ring"),
    };
    let told = format!(
        "05 20 00 00 03 00 02 00  44 33 22 11 55 00 00 00
         05 00 02 06 02 00 01 00  02 00 00 00 01 00 00 00
         07 00 00 00 02 00 00 00  00 10 00 80 08 00 00 00 {RING}"
    );
    let bytes = hex(&told);
    assert_eq!(encoded(|into| info.encode(into)), bytes);
    assert_eq!(bytes.len(), ParcelInfo::SIZE);
    assert_eq!(ParcelInfo::decode(&bytes[..]), Some(info));
    assert_eq!(ParcelInfo::decode(&bytes[..79]), None);
    // A younger manager says more.
    assert_eq!(ParcelInfo::decode(&[&bytes[..], &[9; 4]].concat()[..]), Some(info));

    let entry = ParcelEntry {
        handle: info.handle,
        owner: info.owner,
        transfer: Transfer::Lend,
        phase: ParcelPhase::Closing,
        pages: info.pages,
        label: info.label,
        holders: 3,
        flags: ParcelFlags::HELD | ParcelFlags::RECALLED,
        name: info.name,
    };
    let told = format!(
        "05 20 00 00 03 00 01 03  02 00 00 00 01 00 00 00
         44 33 22 11 03 00 14 00 {RING}"
    );
    let bytes = hex(&told);
    assert_eq!(encoded(|into| entry.encode(into)), bytes);
    assert_eq!(bytes.len(), ParcelEntry::SIZE);
    assert_eq!(ParcelEntry::decode(&bytes[..], 0), Some(entry));
    assert_eq!(ParcelEntry::decode(&bytes[1..], 0), None);
}

#[test]
fn what_is_told_of_a_holder_and_of_a_limit() {
    let holder = Holder {
        vmid: Vmid(0x80),
        stage: HolderStage::Mapped,
        rights: Rights::R,
        stream: Stream(0),
        pages: 0x1_0000_0002,
    };
    let bytes = hex("80 00 02 04 00 00 00 00  02 00 00 00 01 00 00 00");
    assert_eq!(encoded(|into| holder.encode(into)), bytes);
    assert_eq!(bytes.len(), Holder::SIZE);
    assert_eq!(Holder::decode(&bytes[..], 0), Some(holder));
    assert_eq!(Holder::decode(&bytes[..], 1), None);

    let limit =
        Limit { resource: Resource::Extents as u16, used: 1, guaranteed: 0x200, limit: 0x3_0000 };
    let bytes = hex("04 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
         00 02 00 00 00 00 00 00  00 00 03 00 00 00 00 00");
    assert_eq!(encoded(|into| limit.encode(into)), bytes);
    assert_eq!(bytes.len(), Limit::SIZE);
    assert_eq!(Limit::decode(&bytes[..], 0), Some(limit));
    assert_eq!(Limit::decode(&bytes[..], 1), None);
}

#[test]
fn device_calls_name_parcel_stream_and_what_is_wanted() {
    let (handle, stream) = (Handle(0x2005), Stream(0x0102_0304));
    let named = "05 20 00 00 04 03 02 01";
    let attach = AttachRequest { handle, stream, flags: AttachFlags::COHERENT };
    let bytes = hex(&format!("{named} 01 00 00 00"));
    assert_eq!(encoded(|into| attach.encode(into)), bytes);
    assert_eq!(AttachRequest::decode(&bytes[..]), Ok(attach));
    let unknown = hex(&format!("{named} 02 00 00 00"));
    assert_eq!(AttachRequest::decode(&unknown[..]), Err(ErrorCode::ArgumentInvalid));
    let detach = DetachRequest { handle, stream };
    assert_eq!(encoded(|into| detach.encode(into)), hex(named));
    assert_eq!(DetachRequest::decode(&hex(named)[..]), Ok(detach));
    let map = DmaRequest { handle, stream, direction: Direction::FromDevice as u32 };
    let bytes = hex(&format!("{named} 02 00 00 00"));
    assert_eq!(encoded(|into| map.encode(into)), bytes);
    assert_eq!(DmaRequest::decode(&bytes[..]), Ok(map));
    let ways = [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional].map(Some);
    assert_eq!([1, 2, 3].map(Direction::from_wire), ways);
    assert_eq!([0, 4, u32::MAX].map(Direction::from_wire), [None; 3]);

    let access = CpuAccessRequest { handle, flags: AccessFlags::WRITE | AccessFlags::END };
    let bytes = hex("05 20 00 00 06 00 00 00");
    assert_eq!(encoded(|into| access.encode(into)), bytes);
    assert_eq!(CpuAccessRequest::decode(&bytes[..]), Ok(access));
    let unknown = hex("05 20 00 00 08 00 00 00");
    assert_eq!(CpuAccessRequest::decode(&unknown[..]), Err(ErrorCode::ArgumentInvalid));
    for length in [7, 11] {
        let short = Err(ErrorCode::MessageInvalid);
        assert_eq!(DmaRequest::decode(&[0; 12][..length]).map(drop), short);
    }
}

#[test]
fn what_is_told_of_a_device() {
    let mut device = DeviceInfo {
        stream: Stream(7),
        address_bits: 32,
        is_coherent: true,
        faults: 0x1_0000_0000,
        last_fault: Some((0x9000_0004, Direction::FromDevice)),
        attachments: 3,
    };
    let bytes = hex("07 00 00 00 20 01 02 00  00 00 00 00 01 00 00 00
         04 00 00 90 00 00 00 00  03 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| device.encode(into)), bytes);
    assert_eq!(bytes.len(), DeviceInfo::SIZE);
    assert_eq!(DeviceInfo::decode(&bytes[..], 0), Some(device));
    assert_eq!(DeviceInfo::decode(&bytes[..], 1), None);
    device = DeviceInfo { last_fault: None, faults: 0, ..device };
    let bytes = encoded(|into| device.encode(into));
    assert_eq!(DeviceInfo::decode(&bytes[..], 0), Some(device));
}

#[test]
fn phases_stages_and_flags_keep_their_numbers() {
    use HolderStage::{Assigned, Mapped, Revoking};
    use ParcelPhase::{Closing, Initial, Offered};
    for (number, phase) in [(1, Initial), (2, Offered), (3, Closing), (4, ParcelPhase::Changing)] {
        assert_eq!(ParcelPhase::from_wire(number), Some(phase));
        assert_eq!(phase as u8, number);
    }
    let stages = [
        (1, Assigned),
        (2, Mapped),
        (3, HolderStage::Changing),
        (4, Revoking),
        (5, HolderStage::Attached),
        (6, HolderStage::DeviceMapped),
    ];
    for (number, stage) in stages {
        assert_eq!(HolderStage::from_wire(number), Some(stage));
        assert_eq!(stage as u8, number);
    }
    for (phase, stage) in [(0, 0), (5, 7)] {
        assert_eq!((ParcelPhase::from_wire(phase), HolderStage::from_wire(stage)), (None, None));
    }
    let flags = [
        ParcelFlags::SANITIZED,
        ParcelFlags::SANITIZE,
        ParcelFlags::HELD,
        ParcelFlags::MINE,
        ParcelFlags::RECALLED,
        ParcelFlags::POISONED,
        ParcelFlags::ATTACHED,
    ];
    assert_eq!(flags.map(|flag| flag.bits()), [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn an_event_names_parcel_borrower_and_reason() {
    let event = ParcelEvent {
        handle: Handle(0x2005),
        borrower: Vmid(0x80),
        kind: EventKind::Released,
        reason: EventReason::CALL,
        tag: 0xabcd_0001,
    };
    let bytes = hex("05 20 00 00 80 00 02 00 01 00 cd ab");
    assert_eq!(encoded(|into| event.encode(into)), bytes);
    assert_eq!(ParcelEvent::decode(&bytes[..]), Some(event));
    assert_eq!(ParcelEvent::decode(&hex("05 20 00 00 80 00 09 00 01 00 cd ab")[..]), None);
    assert_eq!(EventKind::Released.subscription(), Events::RELEASED);
}

#[test]
fn a_longer_request_may_only_bring_zeros() {
    let subscribe = |bytes: &[u8]| SubscribeRequest::decode(bytes).map(drop);
    let (short, more) = (Err(ErrorCode::MessageInvalid), Err(ErrorCode::ArgumentInvalid));
    assert_eq!(subscribe(&[1, 0, 0]), short);
    assert_eq!(subscribe(&[1, 0, 0, 0]), Ok(()));
    assert_eq!(subscribe(&[1, 0, 0, 0, 0]), Ok(()));
    assert_eq!(subscribe(&[1, 0, 0, 0, 0, 1]), more);
    let mut packet = [0; 232];
    assert_eq!(subscribe(&packet), Ok(()));
    packet[231] = 1;
    assert_eq!(subscribe(&packet), more);
    assert_eq!(subscribe(&[0; 233]), short, "longer than a packet");
    assert_eq!(extension::decode_empty(&[][..]), Ok(()));
    assert_eq!(extension::decode_empty(&[0; 8][..]), Ok(()));
    assert_eq!(extension::decode_empty(&[0, 0, 0, 8][..]), more);
}

#[test]
fn heaps_are_asked_taken_from_and_given_back_to() {
    let ask = HeapRequest { from: 3 };
    assert_eq!(encoded(|into| ask.encode(into)), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(HeapRequest::decode(&[3, 0, 0, 0, 0, 0, 0, 0][..]), Ok(ask));
    let flagged = HeapRequest::decode(&[3, 0, 0, 0, 1, 0, 0, 0][..]);
    assert_eq!(flagged, Err(ErrorCode::ArgumentInvalid));
    let info = HeapInfo {
        number: 1,
        features: HeapFeatures::CONTIGUOUS,
        size: 0x100_0000,
        free: 0x20_1000,
        largest: 0x20_0000,
        used: 0x3000,
        guaranteed: 0x40_0000,
        limit: 0x50_0000,
        name: *b"video\0\0\0\0\0\0\0\0\0\0\0",
    };
    let bytes = hex("01 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00
         00 00 00 01 00 00 00 00  00 10 20 00 00 00 00 00
         00 00 20 00 00 00 00 00  00 30 00 00 00 00 00 00
         00 00 40 00 00 00 00 00  00 00 50 00 00 00 00 00
         76 69 64 65 6f 00 00 00  00 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| info.encode(into)), bytes);
    assert_eq!(bytes.len(), HeapInfo::SIZE);
    assert_eq!(HeapInfo::decode(&bytes[..]), Some(info));
    assert_eq!(HeapInfo::decode(&bytes[..79]), None);
    assert_eq!((info.name(), HeapInfo { name: [0xff; 16], ..info }.name()), ("video", ""));
    // What a client does not know means nothing to it.
    let mut younger = bytes;
    younger[15] = 0x80;
    let features = HeapInfo::decode(&younger[..]).unwrap().features;
    assert!(features.contains(HeapFeatures::CONTIGUOUS) && features.0 == 1 << 63 | 1);
    let take = HeapAllocRequest { heap: 1, size: 0x1001, address: HeapAllocRequest::ANYWHERE };
    let bytes = hex("01 00 00 00 00 00 00 00  01 10 00 00 00 00 00 00
         ff ff ff ff ff ff ff ff");
    assert_eq!(encoded(|into| take.encode(into)), bytes);
    assert_eq!(HeapAllocRequest::decode(&bytes[..]), Ok(take));
    let mut flagged = bytes;
    flagged[4] = 1;
    assert_eq!(HeapAllocRequest::decode(&flagged[..]), Err(ErrorCode::ArgumentInvalid));
    let back = HeapFreeRequest { address: 0x9000_0000, size: 0x2000 };
    let bytes = hex("00 00 00 90 00 00 00 00  00 20 00 00 00 00 00 00");
    assert_eq!(encoded(|into| back.encode(into)), bytes);
    assert_eq!(HeapFreeRequest::decode(&bytes[..]), Ok(back));
    assert_eq!(HeapFreeRequest::decode(&bytes[..15]), Err(ErrorCode::MessageInvalid));
}
