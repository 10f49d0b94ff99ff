//! The bytes of whole messages, written out: a change of the wire format that nobody meant fails here.
//!
//! The messages are the worked examples of our specification of Gunyah's interface: one story, in
//! which VM 3 shares two ranges with VM 0x80.

use rm_abi::memparcel::accept::{Accept, AcceptRequest, Accepted, reply_head};
use rm_abi::memparcel::create::{Create, CreateRequest};
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall, SizeEntry};
use rm_abi::memparcel::notify::{Notify, NotifyRequest};
use rm_abi::vm::{
    ExitKind, StopFlags, VmExitRequest, VmExited, VmRequest, VmState, VmStatus, VmStopRequest,
    encode_name,
};
use rm_abi::{
    AcceptFlags, AclEntry, CreateFlags, Entry, ErrorCode, Handle, Header, Kind, MemoryKind,
    NotifyFlag, PACKET_PAYLOAD, Rights, Sanitize, SglEntry, Transfer, Vmid, VmidEntry, Writer,
    hypercall, message, reply,
};

const BORROWER: Vmid = Vmid(0x80);
const PARCEL: Handle = Handle(5);
const SHARE_ACL: [AclEntry; 2] = [
    AclEntry { vmid: BORROWER, rights: Rights::RW },
    AclEntry { vmid: Vmid::PRIMARY, rights: Rights::RW },
];
const SHARE_SGL: [SglEntry; 2] =
    [SglEntry { ipa: 0x8_8000_0000, size: 0x1000 }, SglEntry { ipa: 0x8_9000_0000, size: 0x2000 }];

/// The bytes of a hex dump.
fn hex(dump: &str) -> Vec<u8> {
    dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A whole request: header, then what `payload` writes.
fn request<E>(
    id: u32,
    sequence: u16,
    payload: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Vec<u8>
where
    E: std::fmt::Debug,
{
    let mut bytes = vec![0; 16 * 1024];
    let length = payload(&mut bytes[Header::SIZE..]).unwrap();
    bytes[..Header::SIZE].copy_from_slice(&Header::request(id, sequence).encode());
    bytes.truncate(Header::SIZE + length);
    bytes
}

fn share() -> Vec<u8> {
    let create = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::empty(),
        label: 0x11,
        acl: &SHARE_ACL,
        sgl: &SHARE_SGL,
        attributes: &[],
    };
    request(message::MEM_SHARE, 2, |into| create.encode(into))
}

#[test]
fn asking_for_the_own_vmid_is_a_header_alone() {
    let sent = request::<()>(message::VM_GET_VMID, 1, |_| Ok(0));
    assert_eq!(sent, hex("21 01 01 00 24 00 00 56"));
    assert_eq!(
        reply::word(&Header::request(message::VM_GET_VMID, 1), 3)[..],
        hex("21 02 01 00 24 00 00 56 00 00 00 00 03 00 00 00")
    );
}

#[test]
fn sharing_two_ranges_with_one_borrower() {
    let bytes = hex("21 01 02 00 13 00 00 51  00 00 00 00 11 00 00 00
         02 00 00 00 80 00 06 00  03 00 06 00 02 00 00 00
         00 00 00 80 08 00 00 00  00 10 00 00 00 00 00 00
         00 00 00 90 08 00 00 00  00 20 00 00 00 00 00 00
         00 00 00 00");
    assert_eq!(share(), bytes);

    let payload = &bytes[Header::SIZE..];
    let read = CreateRequest::decode(payload).unwrap();
    assert_eq!((read.memory, read.label), (MemoryKind::NORMAL, 0x11));
    assert!(read.acl.iter(payload).eq(SHARE_ACL));
    assert!(read.sgl.iter(payload).eq(SHARE_SGL));
    assert!(read.attributes.is_empty());

    let header = Header::decode(&bytes[..]).unwrap();
    assert_eq!(
        reply::word(&header, PARCEL.0)[..],
        hex("21 02 02 00 13 00 00 51 00 00 00 00 05 00 00 00")
    );
}

#[test]
fn an_absent_attribute_list_is_an_empty_one() {
    let bytes = share();
    let payload = &bytes[Header::SIZE..bytes.len() - 4];
    assert!(CreateRequest::decode(payload).unwrap().attributes.is_empty());
}

#[test]
fn notifying_a_borrower_of_a_share() {
    let notify = Notify {
        handle: PARCEL,
        flag: NotifyFlag::Shared,
        tag: 0xabcd_0001,
        targets: &[VmidEntry(BORROWER)],
    };
    let sent = request(message::MEM_NOTIFY, 5, |into| notify.encode(into));
    assert_eq!(
        sent,
        hex("21 01 05 00 17 00 00 51 05 00 00 00 01 00 00 00 01 00 cd ab 01 00 00 00 80 00 00 00")
    );
    let payload = &sent[Header::SIZE..];
    assert_eq!(NotifyRequest::decode(payload).unwrap().flag, Some(NotifyFlag::Shared));
    let targets = NotifyRequest::targets(payload).unwrap();
    assert!(targets.iter(payload).eq([VmidEntry(BORROWER)]));

    let header = Header::decode(&sent[..]).unwrap();
    assert_eq!(reply::status(&header, Ok(()))[..], hex("21 02 05 00 17 00 00 51 00 00 00 00"));
}

#[test]
fn the_notification_names_sizes_but_no_addresses() {
    let offer = Offer {
        handle: PARCEL,
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Share,
        sanitized: false,
        owner: Vmid::PRIMARY,
        label: 0x11,
        tag: 0xabcd_0001,
    };
    let sizes = [SizeEntry(0x1000), SizeEntry(0x2000)];
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(
        &Header {
            kind: Kind::Notification,
            fragments: 0,
            sequence: 0,
            message: message::MEM_SHARED,
        }
        .encode(),
    );
    assert_eq!(offer.encode(&SHARE_ACL, &sizes, &[], &mut bytes[8..]), Ok(56));
    assert_eq!(
        bytes[..],
        hex("21 03 00 00 11 00 10 51  05 00 00 00 00 02 00 00
             03 00 00 00 11 00 00 00  01 00 cd ab 02 00 00 00
             80 00 06 00 03 00 06 00  02 00 00 00 00 10 00 00
             00 00 00 00 00 20 00 00  00 00 00 00 00 00 00 00")
    );
    let (read, lists) = Offer::decode(&bytes[8..]).unwrap();
    assert_eq!(read, offer);
    assert!(lists.sizes.iter(&bytes[8..]).eq(sizes));
}

#[test]
fn the_short_notifications_round_trip() {
    let news = BorrowerNews { handle: PARCEL, borrower: BORROWER, tag: 0xabcd_0001 };
    let mut bytes = [0; 12];
    assert_eq!(news.encode(&mut bytes), Ok(BorrowerNews::SIZE));
    assert_eq!(bytes[..], hex("05 00 00 00 80 00 00 00 01 00 cd ab"));
    assert_eq!(BorrowerNews::decode(&bytes[..]), Some(news));

    let recall = Recall { handle: PARCEL, tag: 0xabcd_0001 };
    let mut bytes = [0; 8];
    assert_eq!(recall.encode(&mut bytes), Ok(Recall::SIZE));
    assert_eq!(bytes[..], hex("05 00 00 00 01 00 cd ab"));
    assert_eq!(Recall::decode(&bytes[..]), Some(recall));
}

#[test]
fn accepting_at_one_contiguous_range() {
    let accept = Accept {
        handle: PARCEL,
        memory: MemoryKind::NORMAL,
        transfer: Transfer::Share,
        flags: AcceptFlags::MAP_CONTIGUOUS | AcceptFlags::DONE,
        label: 0,
        acl: &[],
        sgl: &[SglEntry { ipa: 0x9000_0000, size: 0x3000 }],
        attributes: &[],
    };
    let sent = request(message::MEM_ACCEPT, 8, |into| accept.encode(into));
    assert_eq!(
        sent,
        hex("21 01 08 00 11 00 00 51  05 00 00 00 00 02 90 00
             00 00 00 00 00 00 00 00  01 00 00 00 00 00 00 90
             00 00 00 00 00 30 00 00  00 00 00 00 00 00 00 00")
    );
    let read = AcceptRequest::decode(&sent[Header::SIZE..]).unwrap();
    assert_eq!((read.handle, read.transfer), (PARCEL, Some(Transfer::Share)));
    assert_eq!((read.flags, read.map_for()), (accept.flags, Vmid(0)));

    let header = Header::decode(&sent[..]).unwrap();
    assert_eq!(reply::status(&header, Ok(()))[..], hex("21 02 08 00 11 00 00 51 00 00 00 00"));
    assert_eq!(
        reply::status(&header, Err(ErrorCode::Denied))[..],
        hex("21 02 08 00 11 00 00 51 03 00 00 00")
    );
}

#[test]
fn an_accept_that_names_no_range_is_told_the_ranges() {
    let header = Header::request(message::MEM_ACCEPT, 7);
    let mut bytes = reply_head(&header, 1, true).to_vec();
    let mut entry = [0; SglEntry::SIZE];
    SHARE_SGL[0].encode(&mut Writer::new(&mut entry));
    bytes.extend(entry);
    assert_eq!(
        bytes,
        hex("21 02 07 00 11 00 00 51  00 00 00 00 01 00 01 00
             00 00 00 80 08 00 00 00  00 10 00 00 00 00 00 00")
    );
    let data = reply::decode(&bytes[Header::SIZE..]).unwrap();
    let accepted = Accepted::decode(data).unwrap();
    assert!(accepted.incomplete);
    assert!(accepted.sgl.iter(data).eq([SHARE_SGL[0]]));
}

#[test]
fn reclaiming_what_is_held_and_releasing_it() {
    let give_back = HandleRequest { handle: PARCEL, flags: Sanitize::empty() };
    let reclaim = request(message::MEM_RECLAIM, 6, |into| give_back.encode(into));
    assert_eq!(reclaim, hex("21 01 06 00 15 00 00 51 05 00 00 00 00 00 00 00"));
    let refusal =
        reply::status(&Header::decode(&reclaim[..]).unwrap(), Err(ErrorCode::MemoryInUse));
    assert_eq!(refusal[..], hex("21 02 06 00 15 00 00 51 0b 00 00 00"));
    assert_eq!(
        reply::decode(&refusal[Header::SIZE..]),
        Err(reply::ReplyError::Refused(ErrorCode::MemoryInUse))
    );

    let release = request(message::MEM_RELEASE, 9, |into| give_back.encode(into));
    assert_eq!(release, hex("21 01 09 00 14 00 00 51 05 00 00 00 00 00 00 00"));
    assert_eq!(HandleRequest::decode(&release[Header::SIZE..]), Ok(give_back));
    assert_eq!(
        reply::status(&Header::decode(&release[..]).unwrap(), Ok(()))[..],
        hex("21 02 09 00 14 00 00 51 00 00 00 00")
    );
}

#[test]
fn lending_with_more_pages_to_come() {
    let create = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::APPEND,
        label: 0,
        acl: &[AclEntry { vmid: BORROWER, rights: Rights::RWX }],
        sgl: &[SglEntry { ipa: 0xa000_0000, size: 0x20_0000 }],
        attributes: &[],
    };
    let sent = request(message::MEM_LEND, 9, |into| create.encode(into));
    assert_eq!(
        sent,
        hex("21 01 09 00 12 00 00 51  00 00 02 00 00 00 00 00
             01 00 00 00 80 00 07 00  01 00 00 00 00 00 00 a0
             00 00 00 00 00 00 20 00  00 00 00 00 00 00 00 00")
    );
    assert_eq!(
        reply::word(&Header::decode(&sent[..]).unwrap(), 8)[..],
        hex("21 02 09 00 12 00 00 51 00 00 00 00 08 00 00 00")
    );
}

#[test]
fn a_long_message_is_cut_inside_an_entry_and_counts_its_packets() {
    let sgl: Vec<_> =
        (0..20).map(|i| SglEntry { ipa: 0x1_0000_0000 + i * 0x1_0000, size: 0x1000 }).collect();
    let create = Create {
        memory: MemoryKind::NORMAL,
        flags: CreateFlags::empty(),
        label: 0x22,
        acl: &[AclEntry { vmid: BORROWER, rights: Rights::RW }],
        sgl: &sgl,
        attributes: &[],
    };
    let mut payload = [0; 512];
    let length = create.encode(&mut payload).unwrap();
    assert_eq!(length, 344);

    let fragments = Header::fragments_for(length);
    let first = Header { fragments, ..Header::request(message::MEM_LEND, 12) };
    let second = Header { kind: Kind::Continuation, ..first };
    assert_eq!(first.encode()[..], hex("21 05 0c 00 12 00 00 51"));
    assert_eq!(second.encode()[..], hex("21 04 0c 00 12 00 00 51"));
    let (head, tail) = payload[..length].split_at(PACKET_PAYLOAD);
    assert_eq!(
        head[..56],
        hex("00 00 00 00 22 00 00 00
             01 00 00 00 80 00 06 00  14 00 00 00 00 00 00 00
             01 00 00 00 00 10 00 00  00 00 00 00 00 00 01 00
             01 00 00 00 00 10 00 00  00 00 00 00 00 00 02 00")
    );
    assert_eq!(tail.len(), 112);
    assert_eq!(
        tail[..56],
        hex("01 00 00 00 00 10 00 00
             00 00 00 00 00 00 0e 00  01 00 00 00 00 10 00 00
             00 00 00 00 00 00 0f 00  01 00 00 00 00 10 00 00
             00 00 00 00 00 00 10 00  01 00 00 00 00 10 00 00")
    );
}

#[test]
fn the_packets_of_a_message_are_counted_from_its_payload() {
    for (payload, fragments) in [(0, 0), (1, 0), (232, 0), (233, 1), (8216, 35), (14616, 62)] {
        assert_eq!(Header::fragments_for(payload), fragments, "{payload} bytes");
    }
    assert_eq!(Header { fragments: 35, ..Header::request(0, 0) }.encode()[1], 0x8d);
}

#[test]
fn allocating_a_vm_and_leaving_one() {
    let sent = request(message::VM_ALLOCATE, 16, |into| Writer::new(into).u16(0).u16(0).finish());
    assert_eq!(sent, hex("21 01 10 00 01 00 00 56 00 00 00 00"));
    assert_eq!(
        reply::word(&Header::decode(&sent[..]).unwrap(), 0x80)[..],
        hex("21 02 10 00 01 00 00 56 00 00 00 00 80 00 00 00")
    );

    let exit = VmExitRequest { flags: 0, code: 1 };
    let sent = request(message::VM_EXIT, 17, |into| exit.encode(into));
    assert_eq!(sent, hex("21 01 11 00 85 00 00 56 00 00 01 00"));
    assert_eq!(VmExitRequest::decode(&sent[Header::SIZE..]), Ok(exit));
}

#[test]
fn the_life_of_a_vm_is_told_and_changed() {
    let sent = request(message::VM_START, 8, |into| VmRequest { vmid: BORROWER }.encode(into));
    assert_eq!(sent, hex("21 01 08 00 04 00 00 56 80 00 00 00"));
    let stop = VmStopRequest { vmid: BORROWER, flags: StopFlags::FORCE, reason: 7 };
    let sent = request(message::VM_STOP, 9, |into| stop.encode(into));
    assert_eq!(sent, hex("21 01 09 00 05 00 00 56 80 00 01 00 07 00 00 00"));
    assert_eq!(VmStopRequest::decode(&sent[Header::SIZE..]), Ok(stop));

    let mut into = [0; 16];
    let status = VmStatus { vmid: BORROWER, state: VmState::Running };
    let length = status.encode(&mut into).unwrap();
    assert_eq!(into[..length], hex("80 00 00 00 03 00 00 00"));
    assert_eq!(VmStatus::decode(&into[..length]), Some(status));
    let exited = VmExited { vmid: BORROWER, kind: ExitKind::Stopped, flags: 1, code: 2 };
    let length = exited.encode(&mut into).unwrap();
    assert_eq!(into[..length], hex("80 00 07 00 04 00 00 00 01 00 02 00"));
    assert_eq!(VmExited::decode(&into[..length]), Some(exited));
    let length = encode_name(b"guest", &mut into).unwrap();
    assert_eq!(into[..length], hex("01 00 00 00 02 00 05 00 67 75 65 73 74 00 00 00"));
}

#[test]
fn a_call_has_one_number_and_two_encodings() {
    assert_eq!(hypercall::native(hypercall::DIRECT_CALL), 0x61f0);
    assert_eq!(hypercall::smccc(hypercall::DIRECT_CALL), 0xc600_81f0);
    assert_eq!(hypercall::number_of_native(0x61f0), Some(hypercall::DIRECT_CALL));
    assert_eq!(hypercall::number_of_smccc(0xc600_81f0), Some(hypercall::DIRECT_CALL));
    assert_eq!(hypercall::number_of_smccc(0xc601_801b), Some(hypercall::MSGQUEUE_SEND));
    for foreign in [0, 0x5fff, 0x6200, 0xffff] {
        assert_eq!(hypercall::number_of_native(foreign), None);
    }
    // A 32-bit call, a yielding one, a reserved bit, another owner, too large a number.
    for foreign in [0x8600_801b, 0x4600_801b, 0xc602_801b, 0xc400_801b, 0xc600_8200, 0xc600_c01b] {
        assert_eq!(hypercall::number_of_smccc(foreign), None);
    }
}
