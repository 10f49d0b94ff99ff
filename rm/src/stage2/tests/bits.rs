//! The bits of descriptors, spelled out.

use super::*;
use crate::stage2::descriptor::{ADDRESS, address, is_valid, lent, table};

const PLAIN: Encoder = Encoder::new(Features { forced_write_back: false, smmu: false });
const FORCED: Encoder = Encoder::new(Features { forced_write_back: true, smmu: false });

#[test]
fn leaves_have_the_bits_that_the_manual_gives_them() {
    let (all, cached) = (Rights::RWX, MemoryType::WriteBack);
    assert_eq!(PLAIN.owned(3), 1 << 55 | 0x7ff);
    assert_eq!(PLAIN.owned(2), 1 << 55 | 0x7fd);
    assert_eq!(FORCED.owned(3), 1 << 55 | 0x7db);
    assert_eq!(PLAIN.leaf(1, State::Owned, all, cached), PLAIN.owned(1));
    let read = PLAIN.leaf(3, State::Borrowed, Rights::R, cached);
    assert_eq!(read, 4 << 55 | 1 << 54 | 0x77f);
    let uncached = FORCED.leaf(3, State::Shared, Rights::RW, MemoryType::NonCacheable);
    assert_eq!(uncached, 3 << 55 | 1 << 54 | 0x4d7);
    let device = PLAIN.leaf(3, State::Device, Rights::RW, MemoryType::Device);
    assert_eq!(device, 5 << 55 | 1 << 54 | 0x4c7);
    assert_eq!(table(Pa(0x1234_5000)), 0x1234_5003);
}

#[test]
fn a_leaf_tells_what_was_written_into_it() {
    for encoder in [PLAIN, FORCED] {
        for rights in [Rights::R, Rights::RX, Rights::RW, Rights::RWX] {
            for memory in [MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device] {
                let entry = encoder.leaf(2, State::Shared, rights, memory) | 0x4000_0000;
                assert_eq!(State::of(entry), State::Shared);
                assert_eq!(descriptor::rights(entry), rights);
                assert_eq!(descriptor::memory(entry), memory);
                assert_eq!(address(entry), Pa(0x4000_0000));
                assert!(!is_table(entry, 2));
            }
        }
    }
}

#[test]
fn every_parcel_fits_an_invalid_leaf_beside_every_address() {
    let highest = Pa(ADDRESS);
    for parcel in 0..8192 {
        let entry = lent(parcel) | highest.0;
        assert!(!is_valid(entry) && !is_table(entry, 2));
        assert_eq!(descriptor::parcel(entry), parcel);
        assert_eq!(address(entry), highest);
        assert_eq!(State::of(entry), State::Lent);
    }
}
