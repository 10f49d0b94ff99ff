//! The bytes of the calls that take the role `inspect`, written out.

use rm_abi::extension::{
    self, Count, Counter, CountersRequest, LeafInfo, LeafRequest, MapEntry, MapRequest, PageState,
    Policy, VmEntry, VmRoles, VmsRequest,
};
use rm_abi::vm::VmState;
use rm_abi::{EncodeError, ErrorCode, Handle, Rights, Vmid};

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
    let ids = [extension::VMS, extension::MAP, extension::COUNTERS, extension::LEAF];
    assert_eq!(ids, [0x5e00_000b, 0x5e00_000c, 0x5e00_000d, 0x5e00_000e]);
}

#[test]
fn a_vm_of_the_list_tells_its_name_life_and_roles() {
    let request = VmsRequest { cursor: 2, most: 0x0105 };
    let bytes = hex("02 00 00 00 05 01 00 00");
    assert_eq!(encoded(|into| request.encode(into)), bytes);
    assert_eq!(VmsRequest::decode(&bytes[..]), Ok(request));
    for wrong in ["02 00 00 00 00 00 00 00", "02 00 00 00 05 01 01 00"] {
        assert_eq!(VmsRequest::decode(&hex(wrong)[..]), Err(ErrorCode::ArgumentInvalid));
    }
    let entry = VmEntry {
        vmid: Vmid(0x80),
        state: VmState::Running,
        roles: VmRoles::INSPECT | VmRoles::MANAGE,
        frames: 0x1234,
        name: *b"sensor\0\0\0\0\0\0\0\0\0\0",
    };
    let bytes = hex("80 00 03 00 03 00 00 00  34 12 00 00 00 00 00 00
         73 65 6e 73 6f 72 00 00  00 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| entry.encode(into)), bytes);
    assert_eq!(VmEntry::decode(&bytes[..], 0), Some(entry));
    assert_eq!(entry.name(), b"sensor");
    assert_eq!(VmEntry::decode(&bytes[..31], 0), None);
    assert_eq!(VmEntry::decode(&hex("80 00 04")[..], 0), None);
}

#[test]
fn a_run_of_a_map_tells_where_what_and_how() {
    let request =
        MapRequest { vmid: Vmid(4), most: 9, parcel: Handle(0x2005), cursor: 0x40_0000_1000 };
    let bytes = hex("04 00 09 00 05 20 00 00  00 10 00 00 40 00 00 00");
    assert_eq!(encoded(|into| request.encode(into)), bytes);
    assert_eq!(MapRequest::decode(&bytes[..]), Ok(request));
    let none = hex("04 00 00 00 05 20 00 00  00 10 00 00 40 00 00 00");
    assert_eq!(MapRequest::decode(&none[..]), Err(ErrorCode::ArgumentInvalid));
    let entry = MapEntry {
        ipa: 0x4000_0000,
        pages: 0x200,
        pa: 0x1_0020_0000,
        state: PageState::Borrowed,
        rights: Rights::RW,
        policy: Policy::Uncached,
        parcel: Handle(0x2005),
    };
    let bytes = hex("00 00 00 40 00 00 00 00  00 02 00 00 00 00 00 00
         00 00 20 00 01 00 00 00  04 06 02 00 05 20 00 00");
    assert_eq!(encoded(|into| entry.encode(into)), bytes);
    assert_eq!(MapEntry::decode(&bytes[..], 0), Some(entry));
    for (at, wrong) in [(24, 0), (24, 8), (26, 3)] {
        let mut bytes = bytes.clone();
        bytes[at] = wrong;
        assert_eq!(MapEntry::decode(&bytes[..], 0), None, "{wrong} at {at}");
    }
}

#[test]
fn counters_keep_their_numbers() {
    let request = CountersRequest { vmid: Vmid(3) };
    let bytes = hex("03 00 00 00 00 00 00 00");
    assert_eq!(encoded(|into| request.encode(into)), bytes);
    assert_eq!(CountersRequest::decode(&bytes[..]), Ok(request));
    let flagged = hex("03 00 00 00 01 00 00 00");
    assert_eq!(CountersRequest::decode(&flagged[..]), Err(ErrorCode::ArgumentInvalid));
    for (number, counter) in (1..).zip(Counter::ALL) {
        assert_eq!(*counter as u16, number, "{counter:?}");
    }
    let count = Count { counter: Counter::PagesZeroed as u16, value: 0x1_0000_0002 };
    let bytes = hex("04 00 00 00 00 00 00 00  02 00 00 00 01 00 00 00");
    assert_eq!(encoded(|into| count.encode(into)), bytes);
    assert_eq!(Count::decode(&bytes[..], 0), Some(count));
    assert_eq!(Count::decode(&bytes[..], 1), None);
}

#[test]
fn a_leaf_is_told_bit_by_bit() {
    let request = LeafRequest { vmid: Vmid(3), ipa: 0x4000_1234 };
    let bytes = hex("03 00 00 00 00 00 00 00  34 12 00 40 00 00 00 00");
    assert_eq!(encoded(|into| request.encode(into)), bytes);
    assert_eq!(LeafRequest::decode(&bytes[..]), Ok(request));
    let leaf =
        LeafInfo { level: 2, descriptor: 0x0080_0001_0000_07fd, ipa: 0x4000_0000, pages: 512 };
    let bytes = hex("02 00 00 00 00 00 00 00  fd 07 00 00 01 00 80 00
         00 00 00 40 00 00 00 00  00 02 00 00 00 00 00 00");
    assert_eq!(encoded(|into| leaf.encode(into)), bytes);
    assert_eq!(LeafInfo::decode(&bytes[..]), Some(leaf));
    assert_eq!(LeafInfo::decode(&bytes[..31]), None);
}
