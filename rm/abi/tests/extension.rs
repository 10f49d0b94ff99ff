//! The bytes of the extension calls and notifications, written out, and the rule by which they grow.

use rm_abi::extension::{
    self, Discovery, EventKind, EventReason, Events, LastRefusal, ParcelEvent, Policies, Policy,
    Resource, RevokeFlags, RevokeRequest, Rule, SetPolicyRequest, SubscribeRequest,
};
use rm_abi::{ErrorCode, Handle, MAX_PAYLOAD, Vmid, hypercall, message};

/// The bytes of a hex dump.
fn hex(dump: &str) -> Vec<u8> {
    dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, rm_abi::EncodeError>) -> Vec<u8> {
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
    assert_eq!(extension::SET_POLICY, 0x5e00_000a);
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
    let bytes = hex("03 00 00 00 f0 01 00 00  7f 07 00 00 00 00 00 00
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

    let request = SubscribeRequest { events: Events::ACCEPTED | Events::RELEASED };
    assert_eq!(encoded(|into| request.encode(into)), [3, 0, 0, 0]);
    assert_eq!(SubscribeRequest::decode(&[3, 0, 0, 0][..]), Ok(request));
    let unknown = SubscribeRequest::decode(&[4, 0, 0, 0][..]);
    assert_eq!(unknown, Err(ErrorCode::ArgumentInvalid));
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
