//! The pages of a parcel, as runs in the order in which the owner named them.
//!
//! An extent is the longest run of one list entry that is contiguous in the machine; it is the unit
//! that a borrower maps in a piecewise accept (`regions` in the protocol's text).

use crate::address::{Ipa, Pa};
use crate::memparcel::words::Words;

/// The extents of a parcel. Four of them need no frame.
pub(crate) type Extents = Words<2, 4>;
/// Where a borrower mapped each unit of a parcel. Two of them need no frame.
pub(crate) type Addresses = Words<1, 2>;

/// A run of physically contiguous pages of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where the owner has it.
    pub(crate) at: Ipa,
    /// Where the machine has it.
    pub(crate) pa: Pa,
    /// Its length, at least one page. Addresses have 44 bits, so it fits 32.
    pub(crate) pages: u64,
}

impl Extent {
    /// Two words: the owner's page number below the length, and the machine's page number.
    pub(crate) const fn encode(self) -> [u64; 2] {
        [self.at.page() | self.pages << 32, self.pa.page()]
    }

    pub(crate) const fn decode(record: [u64; 2]) -> Self {
        let [owner, machine] = record;
        Self { at: Ipa::of_page(owner & 0xffff_ffff), pa: Pa::of_page(machine), pages: owner >> 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_keeps_the_largest_addresses() {
        let largest = (1 << 44) - 4096;
        let extent = Extent { at: Ipa(largest), pa: Pa(largest), pages: u32::MAX.into() };
        assert_eq!(Extent::decode(extent.encode()), extent);
    }
}
