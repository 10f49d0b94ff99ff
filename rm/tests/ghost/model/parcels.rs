//! A parcel from its making to its end, and what its end by force does: a revocation, a death.

use std::collections::{BTreeMap, BTreeSet};

use rm_abi::Transfer;

use super::{
    ARGUMENT, Answer, BUSY, DENIED, HANDLE, Held, IN_USE, MEMORY, Model, NO_RESOURCE, PAGE, Page,
    Parcel, READ, RELEASED, VALIDATE, VMID, VMS, WRITE, Wishes,
};

/// Parcels that a VM may have, and how many of them may be open for more pages: the quotas of the story's VMs.
const PARCELS: usize = 64;
const UNFINISHED: usize = 8;

impl Model {
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
            wills: BTreeMap::new(),
            windows: BTreeMap::new(),
            attached: BTreeMap::new(),
            accesses: BTreeMap::new(),
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
        let Parcel { owner: vm, transfer, .. } = self.parcels[index];
        let own = self.parcels[index].rights(vm);
        let keeps = own.is_some_and(|rights| rights & (READ | WRITE) == READ | WRITE);
        let (mut pages, mut units) = (vec![], vec![]);
        for list in lists {
            for (number, at) in list.iter().enumerate() {
                match self.pages.get(&(vm, *at)) {
                    // Who has taken memory of a heap is charged for it until it goes back.
                    Some(Page::Owned(pa))
                        if transfer == Transfer::Donate && Self::is_of_heap(*pa) =>
                    {
                        return Err(MEMORY);
                    }
                    Some(Page::Owned(pa)) if !pages.contains(&(*at, *pa)) => {
                        let follows = pages.last().is_some_and(|(_, last)| last + PAGE == *pa);
                        match units.last_mut() {
                            Some(unit) if number > 0 && follows => *unit += 1,
                            _ => units.push(1),
                        }
                        pages.push((*at, *pa));
                    }
                    // A device of the VM would go on with what its VM has no more.
                    Some(Page::Shared(..)) if !keeps && self.has_for_device(vm, *at) => {
                        return Err(BUSY);
                    }
                    _ => return Err(MEMORY),
                }
            }
        }
        let parcel = &mut self.parcels[index];
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
        if parcel.is_in_use() {
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
        if parcel.windows.contains_key(&vm) {
            return Err(DENIED);
        }
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

    /// Ends what a borrower has, and with it what its devices have, and does what it wanted done then.
    fn unmap(&mut self, index: usize, vm: u8) -> bool {
        let parcel = &mut self.parcels[index];
        if !parcel.held.contains_key(&vm) {
            return false;
        }
        for (at, _) in parcel.part_of(vm) {
            self.pages.remove(&(vm, at));
        }
        parcel.held.remove(&vm);
        parcel.accesses.remove(&vm);
        self.withdraw_devices(index, vm);
        self.end_part(index, vm, None);
        true
    }

    pub(super) fn bring_home(&mut self, owner: u8, pages: &[(u64, u64)], wipe: bool) {
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
        if self.parcels[index].is_in_use() {
            return Err(IN_USE);
        }
        self.end(index, wipe);
        Ok(())
    }

    /// Ends a parcel that nobody holds.
    fn end(&mut self, index: usize, wipe: bool) {
        self.end_part(index, self.parcels[index].owner, None);
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
        self.end_part(index, vm, None);
        (0..VMS).for_each(|other| self.evict(index, other));
        self.parcels[index].revoked = true;
        Ok(())
    }

    /// A VM dies and starts again: it has no part in anything any more.
    pub(crate) fn die(&mut self, vm: u8) {
        self.bells.reset(vm);
        for index in 0..self.parcels.len() {
            self.evict(index, vm);
        }
        while let Some(index) = self.parcels.iter().position(|parcel| parcel.owner == vm) {
            (0..VMS).for_each(|other| self.evict(index, other));
            self.end(index, true);
        }
        self.give_heaps_back(vm);
    }
}

impl Parcel {
    /// Whether its owner has to wait for a VM, or a device of its own.
    fn is_in_use(&self) -> bool {
        !self.held.is_empty() || !self.attached.is_empty()
    }
}
