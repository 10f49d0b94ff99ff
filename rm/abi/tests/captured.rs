//! Every request that the running original answered, decoded: what it calls malformed, we do, and
//! nothing else.

use rm_abi::memparcel::accept::AcceptRequest;
use rm_abi::memparcel::append::AppendRequest;
use rm_abi::memparcel::create::CreateRequest;
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::lookup::LookupRequest;
use rm_abi::memparcel::notify::NotifyRequest;
use rm_abi::vm::decode_empty;
use rm_abi::{ErrorCode, Header, Kind, NotifyFlag, message};
use rm_vectors::{BOOTS, What, hex};

/// A packet of the captured text.
fn packet(digits: &str) -> Vec<u8> {
    let mut bytes = vec![0; digits.len() / 2];
    hex::bytes(digits, &mut bytes);
    bytes
}

/// Message id and payload of a request that was sent whole, and nothing else beside it.
fn request(packets: &str) -> Option<(u32, Vec<u8>)> {
    let packets: Vec<_> = packets.split(' ').map(packet).collect();
    let first = Header::decode(&packets[0][..])?;
    let whole = packets.len() == usize::from(first.fragments) + 1;
    let payload = packets.iter().flat_map(|packet| &packet[Header::SIZE..]).copied().collect();
    (whole && first.kind == Kind::Request).then_some((first.message, payload))
}

/// What decoding says of a notification, its list included where its flag asks for one.
fn notify(payload: &[u8]) -> Result<(), ErrorCode> {
    match NotifyRequest::decode(payload)?.flag {
        Some(NotifyFlag::Shared | NotifyFlag::Recall) => NotifyRequest::targets(payload).map(drop),
        _ => Ok(()),
    }
}

/// What decoding says of a request, if it is one that we know.
fn decode(message: u32, payload: &[u8]) -> Option<Result<(), ErrorCode>> {
    Some(match message {
        message::MEM_DONATE | message::MEM_LEND | message::MEM_SHARE => {
            CreateRequest::decode(payload).map(drop)
        }
        message::MEM_APPEND => AppendRequest::decode(payload).map(drop),
        message::MEM_ACCEPT => AcceptRequest::decode(payload).map(drop),
        message::MEM_RELEASE | message::MEM_RECLAIM => HandleRequest::decode(payload).map(drop),
        message::MEM_LOOKUP => LookupRequest::decode(payload).map(drop),
        message::MEM_NOTIFY => notify(payload),
        message::VM_GET_VMID => decode_empty(payload),
        _ => return None,
    })
}

#[test]
fn what_the_original_calls_malformed_is_and_nothing_else() {
    let (mut malformed, mut well_formed) = (0, 0);
    let exchanges = BOOTS.iter().flat_map(|boot| boot.exchanges());
    // Under Miri each takes a second.
    let (stride, some, most) = if cfg!(miri) { (61, 0, 10) } else { (1, 100, 1000) };
    for exchange in exchanges.step_by(stride) {
        let What::Message { request: packets, reply, .. } = exchange.what else { continue };
        let Some((message, payload)) = request(packets) else { continue };
        let Some(decoded) = decode(message, &payload) else { continue };
        // Packets that do not belong together are dropped.
        let Some(reply) = reply.split(' ').next().filter(|digits| !digits.is_empty()) else {
            continue;
        };
        let reply = packet(reply);
        let error = u32::from_le_bytes(reply[Header::SIZE..][..4].try_into().unwrap());
        if error == ErrorCode::MessageInvalid as u32 {
            assert_eq!(decoded, Err(ErrorCode::MessageInvalid), "{}", exchange.id);
            malformed += 1;
        } else if decoded.is_err() {
            // The original looks at a notification's list only when the parcel allows the call.
            assert!(message == message::MEM_NOTIFY && error != 0, "{}: {error:x}", exchange.id);
        } else {
            well_formed += 1;
        }
    }
    assert!(malformed > some && well_formed > most, "{malformed} malformed, {well_formed} not");
}
