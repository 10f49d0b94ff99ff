//! Who owns, lends, borrows and may do what: the rules, without a machine.
//!
//! This page says what there is, and how a call finds its parcel; the others what calls do: with parcels as a
//! whole ([`parcels`]) and in part ([`trims`]), at the end of somebody's part ([`wills`]), without a mapping
//! ([`copies`]), for devices ([`devices`]), and with memory that nobody owns yet ([`heaps`]).
//!
//! A share names its owner in its access list, a loan and a donation do not; a donation ends when it is
//! accepted. An answer is `Ok`, or the error code of the wire. A call that is refused leaves everything as it is,
//! but for a copy, which says how far it came.

pub(crate) mod copies;
pub(crate) mod devices;
pub(crate) mod heaps;
mod parcels;
mod trims;
pub(crate) mod wills;

use std::collections::{BTreeMap, BTreeSet};

use rm::address::VmIndex;
use rm::machine::fake::world::{RAM, RAM_PAGES, World};
use rm_abi::Transfer;

use wills::{Bells, Will};

pub(crate) const VMS: u8 = 3;
/// The pages of RAM that calls name: some before and some after a block's end.
pub(crate) const FIRST: u64 = RAM.0 + 0x20_0000 - 8 * PAGE;
pub(crate) const SPAN: u64 = 24;
pub(crate) const RAM_END: u64 = RAM.0 + RAM_PAGES * PAGE;
pub(crate) const PAGE: u64 = 4096;

// Error codes of the wire.
const NO_MEMORY: u32 = 1;
const NO_RESOURCE: u32 = 2;
const DENIED: u32 = 3;
const BUSY: u32 = 5;
const ARGUMENT: u32 = 6;
const HANDLE: u32 = 7;
const VALIDATE: u32 = 8;
const MEMORY: u32 = 0xa;
const IN_USE: u32 = 0xb;
const RELEASED: u32 = 0xc;
const VMID: u32 = 0xd;

// Rights of an access list.
const READ: u8 = 4;
const WRITE: u8 = 2;

pub(crate) type Answer = Result<(), u32>;

/// What a page is to a VM, with its machine page and rights.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Page {
    Owned(u64),
    Shared(u64, u8),
    Lent,
    Borrowed(u64, u8),
}

impl Page {
    /// The machine page that the VM reaches, and what it may do there.
    pub(crate) fn reach(self) -> Option<(u64, u8)> {
        match self {
            Self::Lent => None,
            Self::Owned(pa) => Some((pa, 7)),
            Self::Shared(pa, rights) | Self::Borrowed(pa, rights) => Some((pa, rights)),
        }
    }
}

/// What a borrower has of a parcel: where each page is, and which it has given up.
pub(crate) struct Held {
    at: Vec<u64>,
    given: Vec<bool>,
}

pub(crate) struct Parcel {
    pub(crate) handle: u32,
    pub(crate) owner: u8,
    pub(crate) transfer: Transfer,
    pub(crate) acl: Vec<(u8, u8)>,
    /// The owner's addresses and the machine's pages, in order.
    pub(crate) pages: Vec<(u64, u64)>,
    /// How many pages are contiguous in the machine, list entry by list entry: what one address is for.
    pub(crate) units: Vec<usize>,
    /// Pages that the owner has back.
    gone: Vec<bool>,
    pub(crate) held: BTreeMap<u8, Held>,
    /// Its owner may append.
    pub(crate) open: bool,
    uncached: bool,
    /// Its owner has taken it away, or asks for it.
    pub(crate) revoked: bool,
    recalled: bool,
    /// Its pages were wiped when it was made; they are when they come home.
    sanitized: bool,
    sanitize: bool,
    /// What a VM wants done when its part in a page ends.
    wills: BTreeMap<(u8, usize), Will>,
    /// The bytes that a VM may copy and no more, up to the second.
    windows: BTreeMap<u8, (u64, u64)>,
    /// Devices that are attached, and what each may do if it is mapped.
    pub(crate) attached: BTreeMap<u32, Option<u8>>,
    /// How many uses by its CPUs a VM has begun.
    accesses: BTreeMap<u8, u32>,
}

/// How a parcel is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wishes {
    pub(crate) open: bool,
    pub(crate) uncached: bool,
    pub(crate) sanitize: bool,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) pages: BTreeMap<(u8, u64), Page>,
    pub(crate) parcels: Vec<Parcel>,
    pub(crate) dead: Vec<u32>,
    /// Machine pages in parcels that are not cacheable.
    pub(crate) uncached: BTreeSet<u64>,
    /// The bytes of the machine's memory that are not 0.
    content: BTreeMap<u64, u8>,
    pub(crate) bells: Bells,
    /// Which VM has a machine page of a heap.
    taken: BTreeMap<u64, u8>,
}

impl Parcel {
    pub(crate) fn rights(&self, vm: u8) -> Option<u8> {
        self.acl.iter().find(|(named, _)| *named == vm).map(|(_, rights)| *rights)
    }

    fn may_wipe(&self, vm: u8) -> Answer {
        if self.rights(vm).is_some_and(|rights| rights & WRITE != 0) {
            Ok(())
        } else {
            Err(ARGUMENT)
        }
    }

    /// Where the owner, or who has mapped it, has the pages that are left to it, and which those are.
    fn part_of(&self, vm: u8) -> Vec<(u64, u64)> {
        let held = self.held.get(&vm);
        let is_left =
            |page: &usize| !self.gone[*page] && held.is_none_or(|held| !held.given[*page]);
        let place = |page: usize| held.map_or(self.pages[page].0, |held| held.at[page]);
        let left = (0..self.pages.len()).filter(is_left);
        left.map(|page| (place(page), self.pages[page].1)).collect()
    }
}

impl Model {
    /// VMs with RAM.
    pub(crate) fn new() -> Self {
        let mut model = Self::default();
        for vm in 0..VMS {
            for at in (0..SPAN).map(|page| FIRST + page * PAGE) {
                model.pages.insert((vm, at), Page::Owned(ram(vm, at)));
            }
        }
        model
    }

    /// What the VM has at an address. RAM that no call names stays as it is.
    pub(crate) fn page(&self, vm: u8, at: u64) -> Option<Page> {
        let named = FIRST..FIRST + SPAN * PAGE;
        let is_rest = (RAM.0..RAM_END).contains(&at) && !named.contains(&at);
        if is_rest { Some(Page::Owned(ram(vm, at))) } else { self.pages.get(&(vm, at)).copied() }
    }

    fn find(&self, vm: u8, handle: u32) -> Result<usize, u32> {
        let index = self.parcels.iter().position(|p| p.handle == handle).ok_or(HANDLE)?;
        let parcel = &self.parcels[index];
        let named = !parcel.open && !parcel.revoked && parcel.rights(vm).is_some();
        if parcel.owner == vm || named { Ok(index) } else { Err(HANDLE) }
    }

    fn own(&self, vm: u8, handle: u32) -> Result<usize, u32> {
        let index = self.find(vm, handle)?;
        if self.parcels[index].owner == vm { Ok(index) } else { Err(DENIED) }
    }

    /// As who is named by the list and not the owner.
    fn borrowed(&self, vm: u8, handle: u32, unnamed: u32) -> Result<usize, u32> {
        let index = self.find(vm, handle)?;
        self.parcels[index].rights(vm).ok_or(unnamed)?;
        if self.parcels[index].owner == vm { Err(DENIED) } else { Ok(index) }
    }

    /// A VM writes a byte.
    pub(crate) fn write(&mut self, at: u64, value: u8) {
        match value {
            0 => self.content.remove(&at),
            value => self.content.insert(at, value),
        };
    }

    /// All bytes of a machine page.
    pub(crate) fn bytes(&self, pa: u64) -> [u8; PAGE as usize] {
        let mut bytes = [0; PAGE as usize];
        for (at, value) in self.content.range(pa..pa + PAGE) {
            bytes[(at - pa) as usize] = *value;
        }
        bytes
    }

    fn wipe(&mut self, pages: &[u64]) {
        pages.iter().for_each(|pa| drop(self.take_bytes(*pa, PAGE)));
    }

    /// The bytes that are not 0 of some of the machine's memory, which is 0 then.
    fn take_bytes(&mut self, from: u64, length: u64) -> BTreeMap<u64, u8> {
        let range = self.content.range(from..from + length);
        let taken: BTreeMap<_, _> = range.map(|(at, value)| (*at, *value)).collect();
        for at in taken.keys() {
            self.content.remove(at);
        }
        taken
    }

    fn set_uncached(&mut self, pages: &[u64], uncached: bool) {
        for pa in pages {
            if uncached {
                self.uncached.insert(*pa)
            } else {
                self.uncached.remove(pa)
            };
        }
    }
}

/// The machine page of RAM.
fn ram(vm: u8, at: u64) -> u64 {
    World::pa_of(VmIndex(vm)).0 + at - RAM.0
}
