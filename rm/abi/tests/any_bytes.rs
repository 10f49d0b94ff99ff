//! Whatever bytes arrive, decoding answers; and what it accepts lies within the payload.

mod decode;

use std::fs;
use std::path::Path;

use decode::decode;
use proptest::prelude::*;
use rm_abi::extension::{Discovery, LastRefusal, ParcelEvent};
use rm_abi::memparcel::create::{Create, CreateRequest};
use rm_abi::{
    AclEntry, AttributeEntry, Bytes, CreateFlags, EncodeError, ErrorCode, Header, MemoryKind,
    Rights, SglEntry, Vmid, hypercall,
};

/// Payloads: any bytes, and bytes whose counts are small enough to lead deep into the lists.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(prop_oneof![9 => Just(0), 2 => 0u8..4, 1 => any::<u8>()], 0..200),
    ]
}

proptest! {
    #[test]
    fn no_payload_makes_decoding_panic(payload in payload()) {
        decode(&payload);
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

/// The types of a source that can be decoded.
fn decoded(source: &str) -> Vec<String> {
    let mut name = "";
    let mut names = vec![];
    for line in source.lines() {
        if let Some(type_) = line.strip_prefix("impl ").and_then(|rest| rest.strip_suffix(" {")) {
            name = type_;
        }
        if line.trim_start().starts_with("pub fn decode<") {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
#[cfg_attr(miri, ignore = "Miri shows no files")]
fn every_decoder_is_asked() {
    fn read(folder: &Path, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => read(&path, names),
                false => names.extend(decoded(&fs::read_to_string(path).unwrap())),
            }
        }
    }
    let mut names = vec![];
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert!(names.len() > 40, "{names:?}");
    let asked = include_str!("decode/mod.rs");
    names.retain(|name| !asked.contains(&format!("{name}::decode(")));
    assert!(names.is_empty(), "decode/mod.rs does not ask {names:?}");
}
