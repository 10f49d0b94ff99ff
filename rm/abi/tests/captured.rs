//! Malformed requests as the running original answered them (hypervisor 36ca3a2, resource manager
//! bf31a9a, under QEMU): what it calls malformed, we do, and nothing else.

use rm_abi::memparcel::accept::AcceptRequest;
use rm_abi::memparcel::append::AppendRequest;
use rm_abi::memparcel::create::CreateRequest;
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::lookup::LookupRequest;
use rm_abi::memparcel::notify::NotifyRequest;
use rm_abi::vm::decode_empty;
use rm_abi::{ErrorCode, NotifyFlag};

const MALFORMED: Result<(), ErrorCode> = Err(ErrorCode::MessageInvalid);

/// The bytes of a hex string.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.chars().filter(|digit| !digit.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect()
}

fn create(payload: &[u8]) -> Result<(), ErrorCode> {
    CreateRequest::decode(payload).map(drop)
}

/// What decoding says of a notification, its list included where its flag asks for one.
fn notify(payload: &[u8]) -> Result<(), ErrorCode> {
    match NotifyRequest::decode(payload)?.flag {
        Some(NotifyFlag::Shared | NotifyFlag::Recall) => NotifyRequest::targets(payload).map(drop),
        _ => Ok(()),
    }
}

#[test]
fn a_cut_create_is_malformed_unless_the_cut_leaves_whole_lists() {
    let lend = hex("00000000 11000000 01000000 80000600 01000000 00e0076000000000 0010000000000000
                    00000000");
    for cut in [0, 1, 4, 8, 12, 16, 19, 20, 24, 28, 32, 35, 38, 39] {
        assert_eq!(create(&lend[..cut]), MALFORMED, "LEND cut to {cut} bytes");
    }
    assert_eq!(create(&lend[..36]), Ok(()), "the attribute list may be absent");
    for trailing in [1, 4] {
        let longer = [&lend[..], &vec![0; trailing]].concat();
        assert_eq!(create(&longer), MALFORMED, "LEND and {trailing} bytes");
    }
    let share = hex("00000000 11000000 02000000 03000600 80000600 01000000 00c0036000000000
                     0010000000000000 00000000");
    for cut in [0, 1, 4, 8, 12, 16, 19, 24, 28, 32, 39, 42, 43] {
        assert_eq!(create(&share[..cut]), MALFORMED, "SHARE cut to {cut} bytes");
    }
    assert_eq!(
        create(&share[..20]),
        Ok(()),
        "the range list may be absent, and is refused as empty"
    );
}

#[test]
fn short_requests_that_name_a_parcel_are_malformed() {
    for length in [0, 4, 7] {
        assert_eq!(HandleRequest::decode(&[0; 8][..length]).map(drop), MALFORMED);
    }
    assert_eq!(HandleRequest::decode(&[0; 9][..]).map(drop), Ok(()), "longer is accepted");
}

#[test]
fn trailing_bytes_are_malformed_where_lists_end_a_request() {
    let append = hex("0b000000 00000000 01000000 00600c6000000000 0010000000000000 00000000");
    assert_eq!(AppendRequest::decode(&append[..]).map(drop), MALFORMED);
    let accept = hex("0e000000 00028000 00000000 02000000 03000600 80000600 02000000
                      0000900000000000 1000000000000000 2000900000000000 1000000000000000
                      00000000 00000000");
    assert_eq!(AcceptRequest::decode(&accept[..]).map(drop), MALFORMED);
    let lookup = hex("00000000 44000000 02000000 03000600 80000600 02000000 00000b6000000000
                      0010000000000000 00200b6000000000 0010000000000000 00000000 00000000");
    assert_eq!(LookupRequest::decode(&lookup[..]).map(drop), MALFORMED);
    for length in [12, 15] {
        assert_eq!(LookupRequest::decode(&lookup[..length]).map(drop), MALFORMED);
    }
}

#[test]
fn a_notification_needs_its_list_and_may_have_bytes_behind_it() {
    let cases = [
        ("", MALFORMED),
        ("04000000 01000000 cdab00", MALFORMED),
        ("04000000 08000000 cdab0000", MALFORMED),
        ("04000000 01000000 cdab0000 0100", MALFORMED),
        ("04000000 01000000 cdab0000 01000000", MALFORMED),
        ("04000000 01000000 cdab0000 01000000 8000", MALFORMED),
        ("04000000 01000000 cdab0000 01000000 80000000 00000000", Ok(())),
        ("04000000 02000000 cdab0000 01000000 80000000", Ok(())),
    ];
    for (payload, expected) in cases {
        assert_eq!(notify(&hex(payload)), expected, "{payload}");
    }
}

#[test]
fn asking_for_the_own_vmid_takes_no_bytes() {
    for length in [1, 4] {
        assert_eq!(decode_empty(&[0; 4][..length]), MALFORMED);
    }
}
