//! Who owns, lends, borrows and may do what: the rules, without a machine.
//!
//! A share names its owner in its access list, a loan and a donation do not; a donation ends when it is
//! accepted. An answer is `Ok`, or the error code of the wire. A call that is refused leaves everything as it is.

use std::collections::{BTreeMap, BTreeSet};

use rm_abi::Transfer;

pub(crate) const VMS: u8 = 3;

// Error codes of the wire.
const NO_RESOURCE: u32 = 2;
const DENIED: u32 = 3;
const ARGUMENT: u32 = 6;
const HANDLE: u32 = 7;
const VALIDATE: u32 = 8;
const MEMORY: u32 = 0xa;
const IN_USE: u32 = 0xb;
const RELEASED: u32 = 0xc;
const VMID: u32 = 0xd;

/// Parcels that a VM may have, and how many of them may be open for more pages: the quotas of the story's VMs.
const PARCELS: usize = 64;
const UNFINISHED: usize = 8;
/// Runs of pages that may leave a parcel, and that a borrower may give up of it.
const OWNER_HOLES: usize = 8;
const BORROWER_HOLES: usize = 4;

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
    revoked: bool,
    recalled: bool,
    /// Its pages were wiped when it was made; they are when they come home.
    sanitized: bool,
    sanitize: bool,
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
    /// The first byte of machine pages, where it is not 0.
    pub(crate) content: BTreeMap<u64, u8>,
}

fn runs(pages: &[bool]) -> usize {
    (0..pages.len()).filter(|&page| pages[page] && (page == 0 || !pages[page - 1])).count()
}

fn with(pages: &[bool], range: &std::ops::Range<usize>) -> Vec<bool> {
    (0..pages.len()).map(|page| pages[page] || range.contains(&page)).collect()
}

impl Parcel {
    fn rights(&self, vm: u8) -> Option<u8> {
        self.acl.iter().find(|(named, _)| *named == vm).map(|(_, rights)| *rights)
    }

    fn may_wipe(&self, vm: u8) -> Answer {
        if self.rights(vm).is_some_and(|rights| rights & 2 != 0) { Ok(()) } else { Err(ARGUMENT) }
    }
}

impl Model {
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

    fn wipe(&mut self, pages: &[u64]) {
        self.content.retain(|pa, _| !pages.contains(pa));
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

    pub(crate) fn offer(
        &mut self,
        vm: u8,
        transfer: Transfer,
        acl: &[(u8, u8)],
        lists: &[Vec<u64>],
        wishes: Wishes,
    ) -> Answer {
        let own = self.parcels.iter().filter(|parcel| parcel.owner == vm);
        let open = own.clone().filter(|parcel| parcel.open).count();
        if own.count() == PARCELS || wishes.open && open == UNFINISHED {
            return Err(NO_RESOURCE);
        }
        let parcel = Parcel {
            handle: 0,
            owner: vm,
            transfer,
            acl: acl.to_vec(),
            pages: vec![],
            units: vec![],
            gone: vec![],
            held: BTreeMap::new(),
            open: wishes.open,
            uncached: wishes.uncached,
            revoked: false,
            recalled: false,
            sanitized: wishes.sanitize,
            sanitize: false,
        };
        self.parcels.push(parcel);
        let index = self.parcels.len() - 1;
        let taken = self.take(index, lists);
        if taken.is_err() {
            self.parcels.pop();
        }
        taken
    }

    /// Takes pages out of their owner's reach, as far as the list says, and adds them to a parcel.
    fn take(&mut self, index: usize, lists: &[Vec<u64>]) -> Answer {
        let vm = self.parcels[index].owner;
        let (mut pages, mut units) = (vec![], vec![]);
        for list in lists {
            for (number, at) in list.iter().enumerate() {
                match self.pages.get(&(vm, *at)) {
                    Some(Page::Owned(pa)) if !pages.contains(&(*at, *pa)) => {
                        let follows = pages.last().is_some_and(|(_, last)| last + 4096 == *pa);
                        match units.last_mut() {
                            Some(unit) if number > 0 && follows => *unit += 1,
                            _ => units.push(1),
                        }
                        pages.push((*at, *pa));
                    }
                    _ => return Err(MEMORY),
                }
            }
        }
        let parcel = &mut self.parcels[index];
        let own = parcel.rights(vm);
        parcel.gone.extend(pages.iter().map(|_| false));
        parcel.units.extend(units);
        parcel.pages.extend(&pages);
        let (uncached, wiped) = (parcel.uncached, parcel.sanitized);
        for (at, pa) in &pages {
            let page = own.map_or(Page::Lent, |rights| Page::Shared(*pa, rights));
            self.pages.insert((vm, *at), page);
        }
        let machine: Vec<_> = pages.iter().map(|(_, pa)| *pa).collect();
        self.set_uncached(&machine, uncached);
        if wiped {
            self.wipe(&machine);
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, vm: u8, handle: u32, lists: &[Vec<u64>], end: bool) -> Answer {
        let index = self.own(vm, handle)?;
        if !self.parcels[index].open {
            return Err(DENIED);
        }
        self.take(index, lists)?;
        self.parcels[index].open = !end;
        Ok(())
    }

    pub(crate) fn set_policy(&mut self, vm: u8, handle: u32, uncached: bool) -> Answer {
        let index = self.own(vm, handle)?;
        let parcel = &mut self.parcels[index];
        if parcel.transfer == Transfer::Donate && uncached {
            return Err(ARGUMENT);
        }
        if parcel.revoked {
            return Err(DENIED);
        }
        if !parcel.held.is_empty() {
            return Err(IN_USE);
        }
        parcel.uncached = uncached;
        let pages = self.left(index);
        self.set_uncached(&pages, uncached);
        Ok(())
    }

    /// The machine pages that have not left a parcel.
    fn left(&self, index: usize) -> Vec<u64> {
        let Parcel { pages, gone, .. } = &self.parcels[index];
        pages.iter().zip(gone).filter(|(_, gone)| !**gone).map(|((_, pa), _)| *pa).collect()
    }

    /// An accept of all pages at these addresses, which are for the parcel that the caller means.
    pub(crate) fn accept(
        &mut self,
        vm: u8,
        handle: u32,
        transfer: Transfer,
        at: &[u64],
        (wiped, wipe): (bool, bool),
    ) -> Answer {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.transfer != transfer {
            return Err(ARGUMENT);
        }
        if wiped && !parcel.sanitized {
            return Err(VALIDATE);
        }
        self.borrowed(vm, handle, VMID)?;
        if parcel.held.contains_key(&vm) || parcel.recalled {
            return Err(DENIED);
        }
        if wipe {
            parcel.may_wipe(vm)?;
        }
        if at.len() != parcel.pages.len() {
            return Err(ARGUMENT);
        }
        let mut fresh = BTreeSet::new();
        let there = |page: &usize| !parcel.gone[*page];
        for page in (0..at.len()).filter(there) {
            if self.pages.contains_key(&(vm, at[page])) || !fresh.insert(at[page]) {
                return Err(NO_RESOURCE);
            }
        }
        let rights = parcel.rights(vm).expect("a borrower");
        let donated = transfer == Transfer::Donate;
        for (page, &here_at) in at.iter().enumerate() {
            let parcel = &self.parcels[index];
            let ((owner_at, pa), owner) = (parcel.pages[page], parcel.owner);
            if parcel.gone[page] {
                continue;
            }
            let here = if donated { Page::Owned(pa) } else { Page::Borrowed(pa, rights) };
            self.pages.insert((vm, here_at), here);
            if donated {
                self.pages.remove(&(owner, owner_at));
            }
        }
        let given = vec![false; at.len()];
        let parcel = &mut self.parcels[index];
        parcel.sanitize |= wipe;
        parcel.held.insert(vm, Held { at: at.to_vec(), given });
        if donated {
            self.dead.push(self.parcels.remove(index).handle);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, vm: u8, handle: u32, wipe: bool) -> Answer {
        let index = self.borrowed(vm, handle, HANDLE)?;
        let parcel = &self.parcels[index];
        if !parcel.held.contains_key(&vm) {
            return Err(RELEASED);
        }
        if wipe {
            parcel.may_wipe(vm)?;
        }
        self.parcels[index].sanitize |= wipe;
        self.unmap(index, vm);
        Ok(())
    }

    fn unmap(&mut self, index: usize, vm: u8) -> bool {
        let parcel = &mut self.parcels[index];
        let Some(Held { at, given }) = parcel.held.remove(&vm) else { return false };
        let mapped = (0..at.len()).filter(|&page| !parcel.gone[page] && !given[page]);
        for page in mapped {
            self.pages.remove(&(vm, at[page]));
        }
        true
    }

    /// A range of a parcel's pages goes home, or is given up by a borrower.
    pub(crate) fn trim(
        &mut self,
        vm: u8,
        handle: u32,
        first: usize,
        count: usize,
        wipe: bool,
    ) -> Answer {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.owner == vm && parcel.revoked {
            return Err(DENIED);
        }
        if parcel.owner != vm && !parcel.held.contains_key(&vm) {
            return Err(RELEASED);
        }
        let range = first..first + count;
        if count == 0 || range.end > parcel.pages.len() {
            return Err(ARGUMENT);
        }
        if parcel.gone[range.clone()].contains(&true) {
            return Err(RELEASED);
        }
        if parcel.owner == vm {
            self.trim_as_owner(index, &range, wipe)
        } else {
            self.trim_as_borrower(vm, index, &range, wipe)
        }
    }

    fn trim_as_owner(
        &mut self,
        index: usize,
        range: &std::ops::Range<usize>,
        wipe: bool,
    ) -> Answer {
        let parcel = &mut self.parcels[index];
        let gone = with(&parcel.gone, range);
        if runs(&gone) > OWNER_HOLES {
            return Err(NO_RESOURCE);
        }
        if parcel.held.values().any(|held| held.given[range.clone()].contains(&false)) {
            return Err(IN_USE);
        }
        parcel.gone = gone;
        let (owner, wipe) = (parcel.owner, wipe || parcel.sanitize);
        let home = parcel.pages[range.clone()].to_vec();
        self.bring_home(owner, &home, wipe);
        Ok(())
    }

    fn trim_as_borrower(
        &mut self,
        vm: u8,
        index: usize,
        range: &std::ops::Range<usize>,
        wipe: bool,
    ) -> Answer {
        let parcel = &self.parcels[index];
        let held = &parcel.held[&vm];
        if held.given[range.clone()].contains(&true) {
            return Err(RELEASED);
        }
        if wipe {
            parcel.may_wipe(vm)?;
        }
        let given = with(&held.given, range);
        if runs(&given) > BORROWER_HOLES {
            return Err(NO_RESOURCE);
        }
        let spots = held.at[range.clone()].to_vec();
        let machine: Vec<_> = parcel.pages[range.clone()].iter().map(|(_, pa)| *pa).collect();
        for at in spots {
            self.pages.remove(&(vm, at));
        }
        if wipe {
            self.wipe(&machine);
        }
        self.parcels[index].held.get_mut(&vm).expect("it holds").given = given;
        Ok(())
    }

    fn bring_home(&mut self, owner: u8, pages: &[(u64, u64)], wipe: bool) {
        let machine: Vec<_> = pages.iter().map(|(_, pa)| *pa).collect();
        self.set_uncached(&machine, false);
        if wipe {
            self.wipe(&machine);
        }
        for (at, pa) in pages {
            self.pages.insert((owner, *at), Page::Owned(*pa));
        }
    }

    pub(crate) fn reclaim(&mut self, vm: u8, handle: u32, wipe: bool) -> Answer {
        let index = self.own(vm, handle)?;
        if !self.parcels[index].held.is_empty() {
            return Err(IN_USE);
        }
        self.end(index, wipe);
        Ok(())
    }

    /// Ends a parcel that nobody holds.
    fn end(&mut self, index: usize, wipe: bool) {
        let Parcel { handle, owner, pages, gone, sanitize, .. } = self.parcels.remove(index);
        let left = pages.iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(page, _)| *page);
        self.bring_home(owner, &left.collect::<Vec<_>>(), wipe || sanitize);
        self.dead.push(handle);
    }

    /// Takes a parcel away from a VM that has it, which cannot take its data with it.
    fn evict(&mut self, index: usize, vm: u8) {
        if self.unmap(index, vm) {
            let parcel = &mut self.parcels[index];
            parcel.sanitize |= parcel.transfer == Transfer::Lend;
        }
    }

    pub(crate) fn revoke(&mut self, vm: u8, handle: u32, polite: bool) -> Answer {
        let index = self.own(vm, handle)?;
        if self.parcels[index].open {
            return Ok(());
        }
        if polite {
            self.parcels[index].recalled = true;
            return Ok(());
        }
        (0..VMS).for_each(|other| self.evict(index, other));
        self.parcels[index].revoked = true;
        Ok(())
    }

    /// A VM dies and starts again: it has no part in anything any more.
    pub(crate) fn die(&mut self, vm: u8) {
        for index in 0..self.parcels.len() {
            self.evict(index, vm);
        }
        while let Some(index) = self.parcels.iter().position(|parcel| parcel.owner == vm) {
            (0..VMS).for_each(|other| self.evict(index, other));
            self.end(index, true);
        }
    }
}
