//! Whatever bytes arrive, decoding answers; and what it accepts lies within the payload.

use proptest::prelude::*;
use rm_abi::extension::{
    self, CopyRequest, CopySegment, Discovery, Holder, LastRefusal, Limit, LimitsRequest,
    ListRequest, NameRequest, NotifySetRequest, ParcelEntry, ParcelEvent, ParcelInfo,
    ParcelRequest, SubscribeRequest, WindowRequest,
};
use rm_abi::memparcel::accept::{AcceptRequest, Accepted};
use rm_abi::memparcel::append::AppendRequest;
use rm_abi::memparcel::create::{Create, CreateRequest};
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::lookup::LookupRequest;
use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall};
use rm_abi::memparcel::notify::NotifyRequest;
use rm_abi::vm::{VmExitRequest, decode_empty};
use rm_abi::{
    AclEntry, AttributeEntry, Bytes, CreateFlags, EncodeError, Entry, ErrorCode, Header, List,
    MemoryKind, Rights, SglEntry, Vmid, hypercall, reply,
};

/// Payloads: any bytes, and bytes whose counts are small enough to lead deep into the lists.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(prop_oneof![9 => Just(0), 2 => 0u8..4, 1 => any::<u8>()], 0..200),
    ]
}

/// Reads every entry, which is out of bounds if the list is.
fn read_all<E: Entry>(list: &List<E>, payload: &[u8]) {
    assert_eq!(list.iter(payload).count(), list.len());
    assert!(list.at + list.len() * E::SIZE <= payload.len());
}

proptest! {
    #[test]
    fn no_payload_makes_decoding_panic(payload in payload()) {
        let bytes = &payload[..];
        if let Ok(request) = CreateRequest::decode(bytes) {
            read_all(&request.acl, bytes);
            read_all(&request.sgl, bytes);
            read_all(&request.attributes, bytes);
        }
        if let Ok(request) = AcceptRequest::decode(bytes) {
            read_all(&request.acl, bytes);
            read_all(&request.sgl, bytes);
            read_all(&request.attributes, bytes);
        }
        if let Ok(request) = LookupRequest::decode(bytes) {
            read_all(&request.acl, bytes);
            read_all(&request.sgl, bytes);
            read_all(&request.attributes, bytes);
        }
        if let Ok(request) = AppendRequest::decode(bytes) {
            read_all(&request.sgl, bytes);
        }
        if let Ok(targets) = NotifyRequest::targets(bytes) {
            read_all(&targets, bytes);
        }
        if let Some((_, lists)) = Offer::decode(bytes) {
            read_all(&lists.acl, bytes);
            read_all(&lists.sizes, bytes);
            read_all(&lists.attributes, bytes);
        }
        if let Some(accepted) = Accepted::decode(bytes) {
            read_all(&accepted.sgl, bytes);
        }
        let _ = (NotifyRequest::decode(bytes), HandleRequest::decode(bytes));
        let _ = (VmExitRequest::decode(bytes), decode_empty(bytes), reply::decode(bytes));
        let _ = (BorrowerNews::decode(bytes), Recall::decode(bytes));
        let _ = (Discovery::decode(bytes), ParcelEvent::decode(bytes));
        let _ = LastRefusal::decode(bytes).map(|refusal| refusal.holders().len());
        let _ = (ParcelInfo::decode(bytes), ParcelRequest::decode(bytes));
        let _ = (ListRequest::decode(bytes), LimitsRequest::decode(bytes));
        let _ = (NotifySetRequest::decode(bytes), WindowRequest::decode(bytes));
        if let Ok(CopyRequest { count }) = CopyRequest::decode(bytes) {
            let segments = (0..count as usize).map(|n| CopySegment::decode(bytes, n));
            assert_eq!(segments.count(), count as usize);
        }
        let _ = (ParcelEntry::decode(bytes, 8), Holder::decode(bytes, 4), Limit::decode(bytes, 8));
        if let Ok(request) = NameRequest::decode(bytes) {
            prop_assert!(request.name.as_str().is_some());
        }
        // A longer request asks for nothing more than a shorter one, or is refused.
        if extension::decode_empty(bytes).is_ok() {
            prop_assert!(bytes.iter().all(|byte| *byte == 0));
        }
        if let Ok(request) = SubscribeRequest::decode(bytes) {
            prop_assert_eq!(SubscribeRequest::decode(&bytes[..4]), Ok(request));
            prop_assert!(bytes[4..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn extension_data_survives_its_encoding(bytes in prop::collection::vec(any::<u8>(), 64..80)) {
        let mut buffer = [0; 64];
        if let Some(discovery) = Discovery::decode(&bytes[..]) {
            let length = discovery.encode(&mut buffer).unwrap();
            prop_assert_eq!(&buffer[..length], &bytes[..length]);
        }
        if let Some(refusal) = LastRefusal::decode(&bytes[..]) {
            let length = refusal.encode(&mut buffer).unwrap();
            prop_assert_eq!(&buffer[..length], &bytes[..length]);
        }
        if let Some(event) = ParcelEvent::decode(&bytes[..]) {
            let length = event.encode(&mut buffer).unwrap();
            prop_assert_eq!(&buffer[..length], &bytes[..length]);
        }
    }

    #[test]
    fn a_header_survives_its_encoding(bytes in prop::array::uniform8(any::<u8>())) {
        if let Some(header) = Header::decode(&bytes[..]) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn function_ids_decode_to_what_encodes_to_them(id: u32, immediate: u16) {
        if let Some(number) = hypercall::number_of_smccc(id) {
            prop_assert_eq!(hypercall::smccc(number), id & !(1 << 16));
        }
        if let Some(number) = hypercall::number_of_native(immediate) {
            prop_assert_eq!(hypercall::native(number), immediate);
        }
    }

    #[test]
    fn a_request_that_was_encoded_decodes_to_the_same(
        label: u32,
        flags: u8,
        acl in prop::collection::vec((any::<u16>(), any::<u8>()), 1..20),
        sgl in prop::collection::vec((any::<u64>(), any::<u64>()), 1..20),
        attributes in prop::collection::vec((any::<u16>(), any::<u16>()), 0..4),
        room in 0usize..600,
    ) {
        let acl: Vec<_> = acl.into_iter()
            .map(|(vmid, rights)| AclEntry { vmid: Vmid(vmid), rights: Rights(rights) }).collect();
        let sgl: Vec<_> = sgl.into_iter().map(|(ipa, size)| SglEntry { ipa, size }).collect();
        let attributes: Vec<_> = attributes.into_iter()
            .map(|(attribute, vmid)| AttributeEntry { attribute, vmid: Vmid(vmid) }).collect();
        let create = Create {
            memory: MemoryKind::NORMAL,
            flags: CreateFlags(flags),
            label,
            acl: &acl,
            sgl: &sgl,
            attributes: &attributes,
        };
        let size = 8 + 3 * 4 + 4 * acl.len() + 16 * sgl.len() + 4 * attributes.len();
        let mut buffer = vec![0; room];
        let encoded = create.encode(&mut buffer);
        if room < size {
            prop_assert_eq!(encoded, Err(EncodeError::BufferTooSmall));
        } else {
            let payload = &buffer[..encoded.unwrap()];
            let read = CreateRequest::decode(payload).unwrap();
            prop_assert_eq!((read.label, read.flags.0), (label, flags));
            prop_assert!(read.acl.iter(payload).eq(acl));
            prop_assert!(read.sgl.iter(payload).eq(sgl));
            prop_assert!(read.attributes.iter(payload).eq(attributes));
        }
    }
}

/// A long message in pieces, read through the default methods of [`Bytes`].
struct Pieces<'a>(&'a [u8]);

impl Bytes for Pieces<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn u8_at(&self, at: usize) -> u8 {
        self.0[at]
    }
}

#[test]
fn fields_read_the_same_wherever_the_message_lies() {
    let bytes: Vec<u8> = (1..=16).collect();
    let pieces = Pieces(&bytes);
    for at in 0..8 {
        assert_eq!(pieces.u16_at(at), bytes[..].u16_at(at));
        assert_eq!(pieces.u32_at(at), bytes[..].u32_at(at));
        assert_eq!(pieces.u64_at(at), bytes[..].u64_at(at));
    }
}

/// A create payload up to its first list, then `rest`.
fn create_with(rest: &[u8]) -> Result<CreateRequest, ErrorCode> {
    let mut payload = vec![0; 8];
    payload.extend(rest);
    CreateRequest::decode(&payload[..])
}

#[test]
fn list_rules_are_checked_in_their_order() {
    use ErrorCode::{MessageInvalid, NoResource};
    let empty = [0; 4];
    let error = |rest: &[u8]| create_with(rest).unwrap_err();
    // The shortest create has three empty lists.
    assert!(create_with(&[0; 12]).is_ok());
    assert_eq!(error(&[0; 11]), MessageInvalid);
    // Bytes behind the last list, and a list head that is cut off.
    assert_eq!(error(&[0; 13]), MessageInvalid);
    // 513 entries are refused as such, before the missing bytes are noticed; 512 are not.
    assert_eq!(error(&[&empty[..], &[1, 2, 0, 0], &empty].concat()), NoResource);
    assert_eq!(error(&[&empty[..], &[0, 2, 0, 0], &empty].concat()), MessageInvalid);
    // An entry that ends behind the payload.
    assert_eq!(error(&[&empty[..], &[1, 0, 0, 0], &[0; 15]].concat()), MessageInvalid);
    assert!(create_with(&[&empty[..], &[1, 0, 0, 0], &[0; 16]].concat()).is_ok());
}
