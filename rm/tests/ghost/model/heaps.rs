//! Memory that is nobody's until a VM takes a piece, which is zero then.

use std::ops::Range;

use super::{
    ARGUMENT, Answer, FIRST, HANDLE, MEMORY, Model, NO_MEMORY, NO_RESOURCE, PAGE, Page, RAM_END,
};

/// Pages of a heap: pieces below that have one run, and who wants as many gets all or nothing.
pub(crate) const BLOCK: u64 = 512;

/// A heap of one block.
pub(crate) struct Heap {
    pub(crate) name: &'static str,
    /// Who may use it, one bit each, and what each may have whatever the others do, and at most.
    pub(crate) vms: u32,
    pub(crate) guaranteed: u64,
    pub(crate) limit: u64,
}

/// Most of the first is with a VM that does nothing else, so the others are in each other's way; of the
/// second nobody may have much.
pub(crate) const HEAPS: [Heap; 2] = [
    Heap { name: "common", vms: 0b1111, guaranteed: 4, limit: BLOCK },
    Heap { name: "spare", vms: 0b0011, guaranteed: 8, limit: 12 },
];
pub(crate) const HOLDER: u8 = 3;
pub(crate) const HELD: u64 = BLOCK - 36;

/// How a VM stands with a heap, in pages: what is free, how much of it in one run, and what the VM has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Standing {
    pub(crate) free: u64,
    pub(crate) longest: u64,
    pub(crate) used: u64,
}

impl Heap {
    /// Its machine pages.
    fn pages(&self) -> Range<u64> {
        let first = (0x100 + u64::from(self.name.as_bytes()[0])) << 32;
        first..first + BLOCK * PAGE
    }
}

impl Model {
    /// The VM that holds most of the first heap has it from the beginning.
    pub(crate) fn hold_heap(&mut self) {
        let first = HEAPS[0].pages().start;
        self.taken.extend((0..HELD).map(|page| (first + page * PAGE, HOLDER)));
    }

    pub(crate) fn is_of_heap(pa: u64) -> bool {
        HEAPS.iter().any(|heap| heap.pages().contains(&pa))
    }

    fn used(&self, heap: &Heap, vm: u8) -> u64 {
        self.taken.range(heap.pages()).filter(|(_, by)| **by == vm).count() as u64
    }

    /// Runs of free pages: where each begins, and how many it has.
    fn free_runs(&self, heap: &Heap) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = vec![];
        for pa in heap.pages().step_by(PAGE as usize) {
            match runs.last_mut() {
                _ if self.taken.contains_key(&pa) => {}
                Some((first, pages)) if *first + *pages * PAGE == pa => *pages += 1,
                _ => runs.push((pa, 1)),
            }
        }
        runs
    }

    pub(crate) fn standing(&self, heap: &Heap, vm: u8) -> Standing {
        let runs = self.free_runs(heap);
        let longest = runs.iter().map(|(_, pages)| *pages).max().unwrap_or(0);
        let free = runs.iter().map(|(_, pages)| pages).sum();
        Standing { free, longest, used: self.used(heap, vm) }
    }

    /// Takes a piece. The answer is where it is, and its pages.
    pub(crate) fn alloc(
        &mut self,
        vm: u8,
        heap: usize,
        size: u64,
        at: Option<u64>,
    ) -> Result<(u64, u64), u32> {
        let heap = HEAPS.get(heap).filter(|heap| heap.vms >> vm & 1 != 0).ok_or(HANDLE)?;
        let pages = match size.div_ceil(PAGE) {
            small @ 1..BLOCK => small,
            large => large.next_multiple_of(BLOCK),
        };
        if size == 0 || at.is_some_and(|at| !at.is_multiple_of(PAGE)) {
            return Err(ARGUMENT);
        }
        let of_other = |other: u8| self.used(heap, other).max(heap.guaranteed);
        let others = (0..32).filter(|other| *other != vm && heap.vms >> other & 1 != 0);
        let own = self.used(heap, vm) + pages;
        if own + others.map(of_other).sum::<u64>() > BLOCK {
            return Err(NO_MEMORY);
        }
        if own > heap.limit {
            return Err(NO_RESOURCE);
        }
        let run = self.free_runs(heap).into_iter().find(|(_, free)| *free >= pages);
        let (first, _) = run.ok_or(NO_MEMORY)?;
        let at = at.unwrap_or_else(|| self.room(vm, pages));
        if (0..pages).any(|page| self.page(vm, at + page * PAGE).is_some()) {
            return Err(NO_RESOURCE);
        }
        for offset in (0..pages).map(|page| page * PAGE) {
            self.taken.insert(first + offset, vm);
            self.pages.insert((vm, at + offset), Page::Owned(first + offset));
        }
        Ok((at, pages))
    }

    /// The lowest addresses where a VM has nothing.
    pub(crate) fn room(&self, vm: u8, pages: u64) -> u64 {
        let (mut at, mut seen) = (FIRST, 0);
        while seen < pages {
            let next = at + seen * PAGE;
            match self.page(vm, next) {
                None => seen += 1,
                Some(_) => (at, seen) = (next + PAGE, 0),
            }
            // All that no call names is the VM's.
            if seen == 0 && at == FIRST + super::SPAN * PAGE {
                at = RAM_END;
            }
        }
        at
    }

    pub(crate) fn free(&mut self, vm: u8, at: u64, size: u64) -> Answer {
        if !(at | size).is_multiple_of(PAGE) || size == 0 {
            return Err(ARGUMENT);
        }
        let mut pages = vec![];
        for at in (at..at + size).step_by(PAGE as usize) {
            match self.page(vm, at) {
                Some(Page::Owned(pa)) if Self::is_of_heap(pa) => pages.push((at, pa)),
                _ => return Err(MEMORY),
            }
        }
        self.give_back(vm, &pages);
        Ok(())
    }

    fn give_back(&mut self, vm: u8, pages: &[(u64, u64)]) {
        for (at, pa) in pages {
            self.pages.remove(&(vm, *at));
            self.taken.remove(pa);
            self.wipe(&[*pa]);
        }
    }

    /// A VM has died, and its parcels have come home.
    pub(super) fn give_heaps_back(&mut self, vm: u8) {
        let own = self.pages.range((vm, 0)..=(vm, u64::MAX));
        let pages: Vec<_> = own
            .filter_map(|((_, at), page)| match page {
                Page::Owned(pa) if Self::is_of_heap(*pa) => Some((*at, *pa)),
                _ => None,
            })
            .collect();
        self.give_back(vm, &pages);
    }
}
