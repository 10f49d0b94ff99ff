//! What memory holds, so that every word says whose it is.
//!
//! A page that nobody else has is full of its owner's canary. Before it goes into a parcel it is full of
//! stamps, which name the parcel and who wrote them. So a word that somebody reads and should not have
//! reached is recognised, wherever it comes from.

use rm_client::{Transfer, Vmid};

use crate::layout::{PAGE, VMID_A};
use crate::memory;

/// Most pages of a parcel.
pub(super) const MAX_PAGES: u64 = 6;
/// Offsets of the words that stand for a page.
const OFFSETS: [u64; 4] = [0, 0x7f8, 0x800, PAGE - 8];
const CANARY: u64 = 0xca << 56;
const STAMP: u64 = 0x57 << 56;

/// A VM's index.
pub(super) const fn index_of(vmid: Vmid) -> u64 {
    (vmid.0 - VMID_A) as u64
}

/// The VM with an index.
pub(super) const fn vmid_of(index: u64) -> Vmid {
    Vmid(VMID_A + index as u16)
}

/// All there is to know about a parcel, in its label: no two have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(pub(super) u32);

impl Label {
    /// Whose parcel it is: the VM's index, its vCPU, its life, and which of the vCPU's in this life.
    pub(super) const fn new([owner, vcpu, life, count]: [u64; 4]) -> Self {
        Self(((count % 0x1000) | life << 12 | vcpu << 14 | owner << 15) as u32)
    }

    /// Whom it is for (a bit for each VM), how many pages it has, and how it is made.
    pub(super) const fn with(
        self,
        borrowers: u64,
        pages: u64,
        [writable, zeroed, share]: [bool; 3],
    ) -> Self {
        let flags = (writable as u32) << 21 | (zeroed as u32) << 22 | (share as u32) << 23;
        Self(self.0 | (borrowers as u32) << 17 | flags | (pages as u32) << 24)
    }

    const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    pub(super) const fn owner(self) -> u64 {
        (self.0 >> 15 & 3) as u64
    }

    pub(super) const fn is_for(self, vm: u64) -> bool {
        self.has(17 + vm as u32)
    }

    /// Whether borrowers may write.
    pub(super) const fn is_writable(self) -> bool {
        self.has(21)
    }

    /// Whether it was zeroed when it was made.
    pub(super) const fn is_zeroed(self) -> bool {
        self.has(22)
    }

    pub(super) const fn transfer(self) -> Transfer {
        if self.has(23) { Transfer::Share } else { Transfer::Lend }
    }

    pub(super) const fn pages(self) -> u64 {
        (self.0 >> 24) as u64
    }

    const fn may_write(self, vm: u64) -> bool {
        vm == self.owner() || self.is_writable() && self.is_for(vm)
    }
}

/// The addresses of the words of a page, each with its number.
fn words(page: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..).zip(OFFSETS).map(move |(number, offset)| (number, page + offset))
}

/// One of the addresses of [`words`], and its number.
pub(super) fn word(page: u64, choice: usize) -> (u64, u64) {
    (choice as u64, page + OFFSETS[choice])
}

/// How many words stand for a page.
pub(super) const WORDS: usize = OFFSETS.len();

/// What `writer` puts into a word of page `page` of a parcel.
pub(super) const fn stamp(label: Label, writer: u64, page: u64, number: u64) -> u64 {
    STAMP | writer << 48 | (page * WORDS as u64 + number) << 40 | label.0 as u64
}

/// Fills a page of a parcel.
pub(super) fn fill(at: u64, label: Label, page: u64) {
    words(at).for_each(|(number, at)| memory::write(at, stamp(label, label.owner(), page, number)));
}

/// Checks a word that was read in a parcel.
pub(super) fn expect_stamp(found: u64, label: Label, page: u64, number: u64) {
    let writer = found >> 48 & 0xff;
    let is_stamp = found == stamp(label, writer, page, number) && label.may_write(writer);
    let is_zero = found == 0 && label.is_zeroed();
    assert!(is_stamp || is_zero, "word {number} of page {page} of {label:x?} is {found:#x}");
}

/// Checks a page that has come home: as it was when it was last used, or zeroed as a whole.
pub(super) fn check_home(at: u64, label: Label, page: u64, must_be_zero: bool) {
    let zeroed = memory::read(at) == 0;
    for (number, at) in words(at) {
        let found = memory::read(at);
        let as_the_rest = (found == 0) == zeroed || label.is_zeroed();
        assert!(
            as_the_rest && !(must_be_zero && found != 0),
            "{at:#x} of {label:x?} is {found:#x}"
        );
        if found != 0 {
            expect_stamp(found, label, page, number);
        }
    }
}

/// What a word of a page that is `vm`'s alone holds.
const fn canary(vm: u64, at: u64) -> u64 {
    CANARY | vm << 48 | at
}

/// Fills a page that nobody else has.
pub(super) fn keep(at: u64, vm: u64) {
    words(at).for_each(|(_, at)| memory::write(at, canary(vm, at)));
}

/// Checks that nobody has written to a page that nobody else has.
pub(super) fn check_kept(at: u64, vm: u64) {
    for (_, at) in words(at) {
        let found = memory::read(at);
        assert!(found == canary(vm, at), "{at:#x}, which is mine alone, holds {found:#x}");
    }
}
