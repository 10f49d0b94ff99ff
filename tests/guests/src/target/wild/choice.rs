//! Numbers, addresses and names: what matters and its neighbours more often than anything.

use core::sync::atomic::Ordering;

use rm_client::{Handle, Rights, Vmid};

use super::{MADE, SEEN, Wild, spared};
use crate::layout::{
    BLOCK, CONSOLE, CPU_INTERFACE, DISTRIBUTOR, LINK_AB, LINK_AC, MEMORY, PAGE, PAGES,
    REDISTRIBUTOR, REDISTRIBUTOR_STRIDE, VMID_A, VMID_B, VMID_C, VMID_D, WINDOW,
};
use crate::probe;
use crate::steady::{POSTED, POSTS};

/// Numbers that are the last or first of something.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    7,
    8,
    0x80,
    0xff,
    240,
    0x200,
    0x201,
    0xffff,
    PAGE - 1,
    PAGE,
    BLOCK,
    0xffff_ffff,
    1 << 44,
    !0xfff,
    !0,
];

/// Pages where something begins or ends: the VM's memory from its second block on, what a peer shares with
/// it, where the manager maps first and where others map, devices, addresses of a block, of a GiB, of the
/// last page of 36, 39, 40 and 44 bits.
const PLACES: [u64; 22] = [
    0,
    BLOCK - PAGE,
    DISTRIBUTOR - PAGE,
    DISTRIBUTOR,
    CPU_INTERFACE,
    DISTRIBUTOR + 0xf000,
    REDISTRIBUTOR,
    REDISTRIBUTOR + 0x1_0000,
    REDISTRIBUTOR + REDISTRIBUTOR_STRIDE,
    REDISTRIBUTOR + 2 * REDISTRIBUTOR_STRIDE,
    CONSOLE,
    PAGES,
    PAGES + BLOCK - PAGE,
    PAGES + BLOCK,
    PAGES + MEMORY - BLOCK - PAGE,
    PAGES + MEMORY - BLOCK,
    LINK_AB.peer,
    LINK_AC.peer,
    WINDOW,
    (1 << 36) - PAGE,
    (1 << 40) - PAGE,
    (1 << 44) - PAGE,
];

/// Pages of its own that the VM uses most: both sides of a block's end, so that blocks are cut.
const POOL: u64 = 48;
/// Pages from where the manager maps first in which a parcel is looked for.
const MAPPED: u64 = 16;

impl Wild {
    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.one_of(&EDGES),
            1 => self.random.below(16),
            2 => 1 << self.random.below(64),
            _ => self.random.word(),
        }
    }

    /// One of the VM's own pages.
    pub(super) fn own_page(&mut self) -> u64 {
        PAGES + BLOCK - POOL / 2 * PAGE + self.random.below(POOL) * PAGE
    }

    /// The address of a page, mostly.
    pub(super) fn page(&mut self) -> u64 {
        let at = match self.random.below(12) {
            0..=6 => self.own_page(),
            7 => PAGES + MEMORY - BLOCK + self.random.below(MAPPED) * PAGE,
            8 => WINDOW + self.random.below(MAPPED) * PAGE,
            9..=10 => self.random.one_of(&PLACES),
            _ => self.number(),
        };
        spared::address(at)
    }

    /// Any address.
    pub(super) fn address(&mut self) -> u64 {
        let offset = match self.random.below(5) {
            0 => 0,
            1 => self.random.below(PAGE),
            2 => self.random.below(PAGE) & !7,
            3 => PAGE - self.random.below(16),
            _ => self.random.below(16).wrapping_neg(),
        };
        spared::address(self.page().wrapping_add(offset))
    }

    /// A number of bytes, mostly of few pages.
    pub(super) fn size(&mut self) -> u64 {
        match self.random.below(12) {
            0 => self.number(),
            1 => BLOCK,
            _ => (1 + self.random.below(4)) * PAGE,
        }
    }

    /// The name of a VM, mostly.
    pub(super) fn vmid(&mut self) -> Vmid {
        if self.random.once_in(24) {
            return Vmid(self.number() as u16);
        }
        if self.random.once_in(8) {
            return Vmid(self.random.one_of(&[VMID_C, VMID_D, 0, 3, 0xff]));
        }
        Vmid(self.random.one_of(&[VMID_A, VMID_B]))
    }

    /// Rights that may be granted, mostly.
    pub(super) fn rights(&mut self) -> Rights {
        if self.random.once_in(24) {
            return Rights(self.number() as u8);
        }
        self.random.one_of(&[Rights::R, Rights::RX, Rights::RW, Rights::RWX])
    }

    /// The handle of a parcel that the VM has made, mostly. It may be gone.
    pub(super) fn own_handle(&mut self) -> Handle {
        if self.random.once_in(4) {
            return self.handle();
        }
        Handle(self.random.one_of(&MADE.each_ref()).load(Ordering::Relaxed))
    }

    /// The handle of a parcel: one that the VM was told, one that is none of its business, or any.
    pub(super) fn handle(&mut self) -> Handle {
        match self.random.below(16) {
            0 => Handle(self.number() as u32),
            1..=3 => {
                let post = LINK_AC.peer + POSTED + self.random.below(POSTS) * 8;
                // The page may have been given back.
                Handle(probe::read(post).unwrap_or(0) as u32)
            }
            4..=8 => Handle(self.random.one_of(&MADE.each_ref()).load(Ordering::Relaxed)),
            _ => Handle(self.random.one_of(&SEEN.each_ref()).load(Ordering::Relaxed)),
        }
    }
}
