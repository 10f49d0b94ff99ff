//! Named heaps: memory that boot sets aside, and VMs take in pieces.
//!
//! A heap is ranges of blocks of 2 MiB with one bit for each page. A piece below 2 MiB lies in one block;
//! a larger one is whole blocks, side by side. A page whose bit says that it is free is zero: boot zeroes
//! it, and so does whoever gives it back, before the bit is cleared. That a page is a heap's is known by
//! its address, and which VM has it is in the VMs' tables; a VM may lend and share such a page but not
//! give it away, so what it is charged for is what its tables have.
//!
//! # What a VM may take
//!
//! Of each heap a VM has a guarantee and a limit, like of everything that is counted ([`quota`]). What
//! others are guaranteed and have not taken is not free for it. That makes sure of pages, not of pages
//! side by side: who needs those whatever others do is given a heap of its own.
//!
//! # Large pieces
//!
//! A piece may have any number of blocks, so neither the search nor the marking fits one hold of the
//! heap's lock. A search keeps its run of free blocks in the heap. Whoever takes a block of it cuts the run
//! there, so no search is in another's way, and when one has seen enough, all of its run is free. From
//! then on the run is taken, and the heap knows it by its ends until every bit says so.
//!
//! [`quota`]: crate::quota

use core::hint::black_box;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use heapless::Vec;
use spin::Once;

use crate::address::{PAGE_SIZE, PAGES_PER_2M, Pa, VmIndex};
use crate::config::{BootError, MAX_VMS, VmName};
use crate::lock::{self, Guard, Lock, Rank};
use crate::machine::Machine;
use crate::operation::budget::Budget;
use crate::quota::Usage;
use crate::refusal::{Refusal, Resource};

/// Most ranges of machine memory of one heap.
pub const MAX_RANGES: usize = 16;
/// Words of the bitmap for one block.
const BLOCK_WORDS: usize = PAGES_PER_2M as usize / 64;
/// Weight of a look at one block as a whole: its words, and the runs of the VMs.
const LOOK_AT_BLOCK: u32 = 12;
/// Weight of a look at each page of a block.
const LOOK_AT_PAGES: u32 = 160;
/// Weight of the marks of one block.
const MARK: u32 = 8;

/// Words of [`Storage::heap_words`](crate::manager::Storage::heap_words) that a heap of so many pages
/// needs.
pub const fn words(pages: u64) -> usize {
    pages.div_ceil(64) as usize
}

/// A heap of the boot configuration.
#[derive(Clone, Copy, Debug)]
pub struct HeapConfig {
    /// What VMs ask for. No two heaps have one name.
    pub name: VmName,
    /// Who may take pieces, one bit a VM.
    pub vms: u32,
    /// Pages that each of them can have whatever the others do.
    pub guaranteed: u64,
    /// The most pages that each of them may have.
    pub limit: u64,
}

/// The place of one heap's state.
pub struct HeapSlot<R>(Once<Heap<R>>);

impl<R> HeapSlot<R> {
    /// A place without a heap.
    #[expect(clippy::new_without_default, reason = "slots are made at boot, in place")]
    pub const fn new() -> Self {
        Self(Once::new())
    }
}

/// A range of a heap: whole blocks.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    pa: Pa,
    pages: u64,
    /// The bit of its first page.
    first: u64,
}

struct Heap<R> {
    config: HeapConfig,
    ranges: Vec<Blocks, MAX_RANGES>,
    pages: u64,
    /// Its part of the words of all heaps.
    words: Range<usize>,
    state: Lock<State, R>,
}

/// What changes of a heap.
struct State {
    free: u64,
    /// Pages that each VM has.
    used: [u64; MAX_VMS],
    runs: [Run; MAX_VMS],
}

/// Blocks, by their bits, that a VM's call is about to take or has taken.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    end: u64,
    /// They are taken, and their bits do not say so yet.
    is_taken: bool,
}

impl Run {
    const NONE: Self = Self { first: 0, end: 0, is_taken: false };
}

/// How far a walk over the blocks of a heap is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    range: usize,
    /// The next block, in pages of the range.
    page: u64,
}

/// The longest free range, as far as a walk has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Longest {
    cursor: Cursor,
    /// Free pages right before the next block.
    run: u64,
    pub(crate) pages: u64,
}

/// A heap with its bits.
pub(crate) struct View<'a, R> {
    pub(crate) number: u32,
    heap: &'a Heap<R>,
    words: &'a [AtomicU64],
}

/// A heap whose lock is held.
struct Locked<'a, R: lock::Strategy> {
    state: Guard<'a, State, R>,
    words: &'a [AtomicU64],
}

impl<R: lock::Strategy> Locked<'_, R> {
    fn word(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::Relaxed)
    }

    fn mark(&mut self, first: u64, pages: u64, taken: bool) {
        let (mut at, end) = (first, first + pages);
        while at < end {
            let count = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << (at % 64);
            let word = &self.words[(at / 64) as usize];
            let old = word.load(Ordering::Relaxed);
            let clashes = if taken { old & mask } else { !old & mask };
            assert!(clashes == 0, "G8: a page of a heap is taken once and given back once");
            word.store(old ^ mask, Ordering::Relaxed);
            at += count;
        }
    }

    /// Whether the block is taken as a whole, whatever its bits say.
    fn is_in_taken_run(&self, first: u64) -> bool {
        let taken = |run: &Run| run.is_taken && run.first <= first && first < run.end;
        self.state.runs.iter().any(taken)
    }

    fn is_block_free(&self, first: u64) -> bool {
        let word = (first / 64) as usize;
        (word..word + BLOCK_WORDS).all(|word| self.word(word) == 0) && !self.is_in_taken_run(first)
    }

    /// Goes through the pages of a block, first those that are alike in being free or not, and so on.
    fn look_at_pages(&self, first: u64, mut each: impl FnMut(bool, u64)) {
        if self.is_in_taken_run(first) {
            return each(false, PAGES_PER_2M);
        }
        for index in 0..BLOCK_WORDS {
            let (mut word, mut left) = (self.word((first / 64) as usize + index), 64);
            while left > 0 {
                let is_free = word & 1 == 0;
                let alike = if is_free { word.trailing_zeros() } else { word.trailing_ones() };
                let alike = alike.min(left);
                each(is_free, alike.into());
                word = word.checked_shr(alike).unwrap_or(0);
                left -= alike;
            }
        }
    }

    /// The first of `pages` free pages in the block.
    fn find_in_block(&self, first: u64, pages: u64) -> Option<u64> {
        let (mut at, mut run, mut found) = (first, 0, None);
        self.look_at_pages(first, |is_free, count| {
            (at, run) = (at + count, if is_free { run + count } else { 0 });
            if run >= pages && found.is_none() {
                found = Some(at - run);
            }
        });
        found
    }

    /// Adds a block to the run of a VM's search, or ends the run before it; the first block once the
    /// run is long enough.
    fn extend_run(&mut self, vm: VmIndex, first: u64, pages: u64) -> Option<u64> {
        let (is_free, run) = (self.is_block_free(first), &mut self.state.runs[usize::from(vm.0)]);
        if !is_free {
            *run = Run::NONE;
            return None;
        }
        if run.end != first {
            *run = Run { first, end: first, is_taken: false };
        }
        run.end += PAGES_PER_2M;
        (run.end - run.first == pages).then_some(run.first)
    }

    /// The pages are the VM's from now on.
    fn take(&mut self, vm: VmIndex, first: u64, pages: u64) {
        let end = first + pages;
        let own = usize::from(vm.0);
        for (_, run) in self.state.runs.iter_mut().enumerate().filter(|(other, _)| *other != own) {
            if first < run.end && run.first < end {
                assert!(!run.is_taken, "G8: a block of a heap is taken once");
                run.first = end.next_multiple_of(PAGES_PER_2M).min(run.end);
            }
        }
        self.state.free -= pages;
        self.state.used[own] += pages;
        self.state.runs[own] = if pages < PAGES_PER_2M {
            self.mark(first, pages, true);
            Run::NONE
        } else {
            Run { first, end, is_taken: true }
        };
    }
}

impl<'a, R: lock::Strategy> View<'a, R> {
    pub(crate) fn name(&self) -> VmName {
        self.heap.config.name
    }

    pub(crate) fn pages(&self) -> u64 {
        self.heap.pages
    }

    pub(crate) fn allows(&self, vm: VmIndex) -> bool {
        self.heap.config.vms >> vm.0 & 1 != 0
    }

    fn lock<M: Machine<Relax = R>>(&self, machine: &'a M) -> Locked<'a, R> {
        Locked { state: self.heap.state.lock(machine), words: self.words }
    }

    /// Pages that nobody has.
    pub(crate) fn free<M: Machine<Relax = R>>(&self, machine: &M) -> u64 {
        self.heap.state.lock(machine).free
    }

    /// How a VM stands with the heap.
    pub(crate) fn usage<M: Machine<Relax = R>>(&self, machine: &M, vm: VmIndex) -> Usage {
        let HeapConfig { guaranteed, limit, .. } = self.heap.config;
        let state = self.heap.state.lock(machine);
        let used = state.used[usize::from(vm.0)];
        Usage { used, guaranteed, limit, shared: self.heap.pages - self.kept(&state, vm) - used }
    }

    /// Pages that other VMs have or can have whatever this one does.
    fn kept(&self, state: &State, vm: VmIndex) -> u64 {
        let others = (0..MAX_VMS as u8).map(VmIndex).filter(|&other| other != vm);
        let others = others.filter(|&other| self.allows(other));
        others.map(|other| state.used[usize::from(other.0)].max(self.heap.config.guaranteed)).sum()
    }

    /// Whether the VM may have so many pages more.
    fn admit(&self, state: &State, vm: VmIndex, pages: u64) -> Result<(), Refusal> {
        let sum = state.used[usize::from(vm.0)] + pages;
        if sum > self.heap.pages - self.kept(state, vm) {
            return Err(Refusal::HeapFull);
        }
        if sum > self.heap.config.limit {
            return Err(Refusal::HeapQuota(self.number as u8));
        }
        Ok(())
    }

    /// Takes `pages` pages, below 512 or a multiple of that, as soon as the walk meets room for them:
    /// the first one's address. `None`: the walk goes on in another step. Of whole blocks the bits are
    /// still to be marked.
    pub(crate) fn take<M: Machine<Relax = R>>(
        &self,
        machine: &'a M,
        vm: VmIndex,
        cursor: &mut Cursor,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<Option<Pa>, Refusal> {
        let mut locked = self.lock(machine);
        let found = self.search(&mut locked, vm, cursor, pages, budget);
        let found = found.and_then(|found| match found {
            Some(_) if !machine.grants(vm, Resource::PagesOfHeaps) => Err(Refusal::HeapFull),
            found => Ok(found),
        });
        match found {
            Ok(Some((first, _))) => locked.take(vm, first, pages),
            Ok(None) => {}
            Err(_) => locked.state.runs[usize::from(vm.0)] = Run::NONE,
        }
        Ok(found?.map(|(_, pa)| pa))
    }

    /// Looks for room until it is found, by its bit and its address, or the budget is spent.
    fn search(
        &self,
        locked: &mut Locked<'_, R>,
        vm: VmIndex,
        cursor: &mut Cursor,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<Option<(u64, Pa)>, Refusal> {
        self.admit(&locked.state, vm, pages)?;
        while let Some(range) = self.heap.ranges.get(cursor.range) {
            if cursor.page == range.pages {
                *cursor = Cursor { range: cursor.range + 1, page: 0 };
                locked.state.runs[usize::from(vm.0)] = Run::NONE;
                continue;
            }
            let is_small = pages < PAGES_PER_2M;
            if !budget.spend(if is_small { LOOK_AT_PAGES } else { LOOK_AT_BLOCK }) {
                return Ok(None);
            }
            let block = range.first + cursor.page;
            cursor.page += PAGES_PER_2M;
            let found = if is_small {
                locked.find_in_block(block, pages)
            } else {
                locked.extend_run(vm, block, pages)
            };
            if let Some(first) = found {
                return Ok(Some((first, range.pa.add_pages(first - range.first))));
            }
        }
        Err(Refusal::HeapFull)
    }

    /// Marks blocks that the VM has taken; whether all are.
    pub(crate) fn mark_taken<M: Machine<Relax = R>>(
        &self,
        machine: &'a M,
        vm: VmIndex,
        budget: &mut Budget,
    ) -> bool {
        let mut locked = self.lock(machine);
        let mut run = locked.state.runs[usize::from(vm.0)];
        while run.first < run.end && budget.spend(MARK) {
            locked.mark(run.first, PAGES_PER_2M, true);
            run.first += PAGES_PER_2M;
        }
        let is_done = run.first == run.end;
        locked.state.runs[usize::from(vm.0)] = if is_done { Run::NONE } else { run };
        is_done
    }

    /// Looks for the longest free range. Whether all was looked at.
    pub(crate) fn measure<M: Machine<Relax = R>>(
        &self,
        machine: &'a M,
        longest: &mut Longest,
        budget: &mut Budget,
    ) -> bool {
        let locked = self.lock(machine);
        let Longest { cursor, run, pages } = longest;
        while let Some(range) = self.heap.ranges.get(cursor.range) {
            if cursor.page == range.pages {
                (*cursor, *run) = (Cursor { range: cursor.range + 1, page: 0 }, 0);
                continue;
            }
            if !budget.spend(LOOK_AT_PAGES) {
                return false;
            }
            locked.look_at_pages(range.first + cursor.page, |is_free, count| {
                *run = if is_free { *run + count } else { 0 };
                *pages = (*pages).max(*run);
            });
            cursor.page += PAGES_PER_2M;
        }
        true
    }

    /// Whether the page is this heap's.
    pub(crate) fn has(&self, pa: Pa) -> bool {
        self.range_of(pa).is_some()
    }

    fn range_of(&self, pa: Pa) -> Option<&'a Blocks> {
        self.heap.ranges.iter().find(|range| {
            pa.page().checked_sub(range.pa.page()).is_some_and(|offset| offset < range.pages)
        })
    }

    /// Gives back pages of the VM from `pa` on, of one range, which are zero and which no VM reaches:
    /// as many as the budget allows. Says how many.
    pub(crate) fn put<M: Machine<Relax = R>>(
        &self,
        machine: &'a M,
        vm: VmIndex,
        (pa, pages): (Pa, u64),
        budget: &mut Budget,
    ) -> u64 {
        let range = self.range_of(pa).expect("G8: a page of a heap is in one of its ranges");
        let first = range.first + (pa.page() - range.pa.page());
        let mut locked = self.lock(machine);
        let mut done = 0;
        while done < pages && budget.spend(MARK) {
            let part = (pages - done).min(PAGES_PER_2M);
            locked.mark(first + done, part, false);
            done += part;
        }
        locked.state.free += done;
        locked.state.used[usize::from(vm.0)] -= done;
        done
    }
}

/// All heaps of a manager, by their numbers.
pub(crate) struct Heaps<'s, R> {
    places: &'s [HeapSlot<R>],
    words: &'s [AtomicU64],
    /// How many words the heaps have. Who adds a heap holds this from the look for its name to the
    /// end, so of two of one name only one is made.
    given: Lock<usize, R>,
}

impl<'s, R: lock::Strategy> Heaps<'s, R> {
    pub(crate) const fn new(places: &'s [HeapSlot<R>], words: &'s [AtomicU64]) -> Self {
        Self { places, words, given: Lock::new(Rank::Heap, 0) }
    }

    /// Makes a heap; says how many pages it has.
    pub(crate) fn add<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        config: HeapConfig,
        ranges: &[(Pa, u64)],
    ) -> Result<u64, BootError> {
        let mut given = self.given.lock(machine);
        if config.name == VmName::default() || self.all().any(|heap| heap.name() == config.name) {
            return Err(BootError::HeapName);
        }
        let mut blocks = Vec::new();
        let mut pages: u64 = 0;
        for &(pa, count) in ranges {
            let is_whole = (pa.page() | count).is_multiple_of(PAGES_PER_2M) && count > 0;
            let range = Blocks { pa, pages: count, first: pages };
            if !is_whole || blocks.push(range).is_err() {
                return Err(BootError::Heap);
            }
            pages += count;
        }
        let HeapConfig { guaranteed, limit, vms, .. } = config;
        let sure = guaranteed.checked_mul(vms.count_ones().into());
        let words = *given..*given + words(pages);
        let place = self.places.iter().find(|place| place.0.get().is_none());
        let fits = pages > 0 && words.end <= self.words.len() && vms >> MAX_VMS == 0;
        let place =
            place.filter(|_| fits && guaranteed <= limit && sure.is_some_and(|s| s <= pages));
        let place = place.ok_or(BootError::Heap)?;
        *given = words.end;
        let state = State { free: pages, used: [0; MAX_VMS], runs: [Run::NONE; MAX_VMS] };
        let state = Lock::new(Rank::Heap, state);
        place.0.call_once(|| Heap { config, ranges: blocks, pages, words, state });
        Ok(pages)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = View<'s, R>> {
        let (places, words) = (self.places, self.words);
        // They are filled in their order.
        (0..).zip(places).map_while(move |(number, place)| {
            let heap = place.0.get()?;
            Some(View { number, heap, words: &words[heap.words.clone()] })
        })
    }

    /// A heap that the VM may use.
    pub(crate) fn get(&self, number: u32, vm: VmIndex) -> Option<View<'s, R>> {
        self.allowed(vm, |heap| heap == number)
    }

    /// The first heap that the VM may use whose number is such. It takes as long to find none whether there
    /// are others or not.
    pub(crate) fn allowed(
        &self,
        vm: VmIndex,
        is_such: impl Fn(u32) -> bool,
    ) -> Option<View<'s, R>> {
        // Opaque, so that the one is not left out where the other is false.
        self.all().find(|heap| black_box(is_such(heap.number)) & black_box(heap.allows(vm)))
    }

    /// The heap that has the page, and how many pages there are from it to the end of its range.
    pub(crate) fn at(&self, pa: Pa) -> Option<(View<'s, R>, u64)> {
        self.all().find_map(|heap| {
            let range = heap.range_of(pa)?;
            Some((heap, range.pages - (pa.page() - range.pa.page())))
        })
    }

    /// Whether the page is a heap's.
    pub(crate) fn have(&self, pa: Pa) -> bool {
        self.at(pa).is_some()
    }

    /// How a VM stands with all heaps that it may use.
    pub(crate) fn usage<M: Machine<Relax = R>>(&self, machine: &M, vm: VmIndex) -> Usage {
        let allowed = self.all().filter(|heap| heap.allows(vm));
        allowed.map(|heap| heap.usage(machine, vm)).fold(Usage::default(), |sum, more| Usage {
            used: sum.used + more.used,
            guaranteed: sum.guaranteed + more.guaranteed,
            limit: sum.limit.saturating_add(more.limit),
            shared: sum.shared + more.shared,
        })
    }
}

/// Pages of a piece of so many bytes, or nothing if there is no such piece.
pub(crate) fn rounded(size: u64) -> Option<u64> {
    let unit = if size >= PAGES_PER_2M * PAGE_SIZE { PAGES_PER_2M * PAGE_SIZE } else { PAGE_SIZE };
    let rounded = size.checked_next_multiple_of(unit)?;
    let pages = rounded / PAGE_SIZE;
    (pages > 0 && rounded <= 1 << 44).then_some(pages)
}

#[cfg(test)]
mod tests;
