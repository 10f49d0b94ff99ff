//! Random histories against a naive map of pages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult};

use super::*;
use crate::machine::fake::Fault;
use crate::machine::fake::effort::{effort, few};

/// RAM is one block of 1 GiB and one of 2 MiB; the histories play in parts of them and in a window.
const RAM_PAGES: u64 = PAGES_PER_1G + PAGES_PER_2M;
const OTHER: Pa = Pa(0x10_0000_0000);

/// What the model knows of a page.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Seen {
    state: State,
    pa: Pa,
    rights: Rights,
    memory: MemoryType,
    parcel: u16,
}

impl Seen {
    fn new(state: State, pa: Pa) -> Self {
        let mapped = matches!(state, State::Owned | State::Claimed);
        let rights = if mapped { Rights::RWX } else { Rights::empty() };
        Self { state, pa, rights, memory: MemoryType::WriteBack, parcel: 0 }
    }
}

/// A range that one operation made, and that is taken on as a whole.
#[derive(Clone, Copy, Debug)]
struct Extent {
    at: u64,
    pages: u64,
    state: State,
}

/// A step of a history. Numbers are reduced to what fits.
#[derive(Clone, Debug)]
enum Op {
    /// Claims a range of RAM, in steps of this budget.
    Claim {
        from: u64,
        pages: u64,
        budget: u32,
    },
    /// Cuts a range of RAM and lends or shares it at once.
    Short {
        from: u64,
        pages: u64,
        share: Option<(Rights, MemoryType)>,
    },
    /// Holds a range of the window for machine pages from `pa` on.
    Hold {
        from: u64,
        pages: u64,
        pa: u64,
        budget: u32,
    },
    /// Takes the extent on: which of its ways is `way`.
    Next {
        extent: usize,
        way: usize,
        rights: Rights,
        memory: MemoryType,
        budget: u32,
    },
    Merge,
}

struct Model {
    vm: Vm,
    /// Pages that are not as the VM was built.
    pages: BTreeMap<u64, Seen>,
    extents: Vec<Extent>,
}

impl Model {
    fn new() -> Self {
        Self { vm: Vm::new(RAM_PAGES, 64), pages: BTreeMap::new(), extents: Vec::new() }
    }

    fn seen(&self, page: u64) -> Seen {
        let ram = RAM.page()..RAM.page() + RAM_PAGES;
        self.pages.get(&page).copied().unwrap_or_else(|| {
            if ram.contains(&page) {
                Seen::new(State::Owned, RAM_AT.add_pages(page - ram.start))
            } else {
                Seen::new(State::Absent, Pa(0))
            }
        })
    }

    fn set(&mut self, at: u64, pages: u64, to: impl Fn(Seen) -> Seen) {
        for page in at..at + pages {
            let to = to(self.seen(page));
            self.pages.insert(page, to);
        }
    }

    /// The page is what the model says, to the manager and to a CPU.
    fn compare(&self, page: u64) -> TestCaseResult {
        let at = Ipa::of_page(page);
        let leaf = self.vm.leaf(at);
        let Leaf { state, pa, rights, memory, parcel, pages } = leaf;
        prop_assert_eq!(Seen { state, pa, rights, memory, parcel }, self.seen(page), "{:?}", at);
        prop_assert!(pages > 0);
        let allows = |at, access| self.vm.stage2.allows(self.vm.mem, at, access);
        for (access, right) in
            [(Access::Read, Rights::R), (Access::Write, Rights::W), (Access::Execute, Rights::X)]
        {
            let expected = match self.seen(page) {
                seen if seen.rights.is_empty() => Err(Fault::Translation),
                seen if seen.rights.contains(right) => Ok(seen.pa),
                _ => Err(Fault::Permission),
            };
            prop_assert_eq!(self.vm.cpu().retrying(at, access, allows), expected, "{:?}", at);
            prop_assert_eq!(allows(at, access), expected.ok());
        }
        Ok(())
    }

    /// The pages around an extent's ends, and some inside.
    fn compare_around(&self, at: u64, pages: u64) -> TestCaseResult {
        for page in [at - 1, at, at + pages / 2, at + pages - 1, at + pages] {
            self.compare(page)?;
        }
        Ok(())
    }

    fn change(&mut self, extent: Extent, to: Change, budget: u32) -> TestCaseResult {
        let at = Ipa::of_page(extent.at);
        let mut done = 0;
        while done < extent.pages {
            let mut batch = Batch::new();
            let mut budget = Budget::new(budget);
            let here = at.add_pages(done);
            let vm = &mut self.vm;
            let step =
                vm.stage2.change(vm.mem, &mut batch, here, extent.pages - done, to, &mut budget);
            prop_assert!(step > 0, "a step makes progress");
            vm.stage2.finish(vm.mem, batch);
            done += step;
            vm.check();
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> TestCaseResult {
        match *op {
            Op::Claim { from, pages, budget } => self.claim(RAM.page() + from, pages, budget),
            Op::Short { from, pages, share } => self.short(RAM.page() + from, pages, share),
            Op::Hold { from, pages, pa, budget } => {
                self.hold(WINDOW.page() + from, pages, OTHER.add_pages(pa), budget)
            }
            Op::Next { extent, way, rights, memory, budget } => {
                if self.extents.is_empty() {
                    return Ok(());
                }
                let extent = self.extents.swap_remove(extent % self.extents.len());
                self.next(extent, way, rights, memory, budget)
            }
            Op::Merge => {
                self.vm.stage2.merge_one(self.vm.mem);
                self.vm.check();
                Ok(())
            }
        }
    }

    fn claim(&mut self, at: u64, pages: u64, budget: u32) -> TestCaseResult {
        let good = (at..at + pages).take_while(|page| self.seen(*page).state == State::Owned);
        let good = good.count() as u64;
        let mut done = 0;
        let result = loop {
            if done == pages {
                break Ok(());
            }
            let here = Ipa::of_page(at + done);
            let vm = &mut self.vm;
            match vm.stage2.claim(vm.mem, here, pages - done, &mut Budget::new(budget)) {
                Ok(0) => prop_assert!(false, "a step makes progress"),
                Ok(step) => done += step,
                Err(error) => break Err(error),
            }
            vm.check();
        };
        prop_assert_eq!(done, good);
        let expected = match self.seen(at + good).state {
            _ if good == pages => Ok(()),
            State::Claimed => Err(ClaimError::Claimed),
            _ => Err(ClaimError::NotOwned),
        };
        prop_assert_eq!(result, expected);
        if done > 0 {
            self.set(at, done, |seen| Seen { state: State::Claimed, ..seen });
            self.extents.push(Extent { at, pages: done, state: State::Claimed });
        }
        Ok(())
    }

    fn short(
        &mut self,
        at: u64,
        pages: u64,
        share: Option<(Rights, MemoryType)>,
    ) -> TestCaseResult {
        if (at..at + pages).any(|page| self.seen(page).state != State::Owned) {
            return Ok(());
        }
        self.vm.stage2.cut(self.vm.mem, Ipa::of_page(at), pages).unwrap();
        self.vm.check();
        let way = usize::from(share.is_some());
        let (rights, memory) = share.unwrap_or((Rights::empty(), MemoryType::WriteBack));
        self.next(Extent { at, pages, state: State::Owned }, way, rights, memory, u32::MAX)
    }

    fn hold(&mut self, at: u64, pages: u64, pa: Pa, budget: u32) -> TestCaseResult {
        let free = (at..at + pages).all(|page| self.seen(page).state == State::Absent);
        let mut done = 0;
        while done < pages {
            let (here, pa) = (Ipa::of_page(at + done), pa.add_pages(done));
            let vm = &mut self.vm;
            match vm.stage2.hold(vm.mem, here, pa, pages - done, &mut Budget::new(budget)) {
                Ok(step) => {
                    prop_assert!(step > 0, "a step makes progress");
                    done += step;
                    vm.check();
                }
                Err(error) => {
                    prop_assert_eq!(error, HoldError::Taken);
                    prop_assert!(!free);
                    let held = Extent { at, pages: done, state: State::Held };
                    return self.change(held, Change::Unhold, u32::MAX);
                }
            }
        }
        prop_assert!(free);
        self.set(at, pages, |_| Seen::new(State::Held, Pa(0)));
        for page in at..at + pages {
            self.pages.insert(page, Seen::new(State::Held, pa.add_pages(page - at)));
        }
        self.extents.push(Extent { at, pages, state: State::Held });
        self.compare_around(at, pages)
    }

    fn next(
        &mut self,
        extent: Extent,
        way: usize,
        rights: Rights,
        memory: MemoryType,
        budget: u32,
    ) -> TestCaseResult {
        let parcel = (extent.at % 8192) as u16;
        let (to, state) = match (extent.state, way % 3) {
            (State::Owned | State::Claimed, 0) => (Change::Lend { parcel }, State::Lent),
            (State::Owned | State::Claimed, 1) => (Change::Share { rights, memory }, State::Shared),
            (State::Claimed, _) => (Change::Unclaim, State::Owned),
            (State::Lent, 0) => (Change::GiveAway, State::Absent),
            (State::Lent | State::Shared, _) => (Change::Restore, State::Owned),
            (State::Held, 0) => (Change::Borrow { rights, memory }, State::Borrowed),
            (State::Held, 1) => (Change::Own, State::Owned),
            (State::Held, _) => (Change::Unhold, State::Absent),
            _ => (Change::Unmap, State::Absent),
        };
        self.change(extent, to, budget)?;
        self.set(extent.at, extent.pages, |seen| match state {
            State::Absent => Seen::new(state, Pa(0)),
            State::Lent => Seen { parcel, ..Seen::new(state, seen.pa) },
            State::Shared | State::Borrowed => Seen { rights, memory, ..Seen::new(state, seen.pa) },
            _ => Seen::new(state, seen.pa),
        });
        if !matches!(state, State::Owned | State::Absent) {
            self.extents.push(Extent { state, ..extent });
        }
        self.compare_around(extent.at, extent.pages)
    }

    /// Undoes everything: what was given away comes home, what came stays away.
    fn unwind(&mut self) -> TestCaseResult {
        while let Some(extent) = self.extents.pop() {
            self.next(extent, 2, Rights::RWX, MemoryType::WriteBack, 100)?;
        }
        let pages = self.pages.clone();
        for (page, seen) in &pages {
            if seen.state == State::Owned && *page >= WINDOW.page() {
                self.short(*page, 1, None)?;
                let lent = self.extents.pop().unwrap();
                self.next(lent, 0, Rights::RWX, MemoryType::WriteBack, 100)?;
            }
        }
        // A block that was given away whole comes home whole: a table that was emptied is gone, and
        // with it the memory of the block.
        let absent = pages
            .iter()
            .filter(|(page, seen)| seen.state == State::Absent && **page < WINDOW.page());
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (page, _) in absent {
            match runs.last_mut() {
                Some((first, length)) if *first + *length == *page => *length += 1,
                _ => runs.push((*page, 1)),
            }
        }
        for (first, length) in runs {
            self.hold(first, length, RAM_AT.add_pages(first - RAM.page()), 100)?;
            let held = self.extents.pop().unwrap();
            self.next(held, 1, Rights::RWX, MemoryType::WriteBack, 100)?;
        }
        Ok(())
    }
}

fn pages() -> impl Strategy<Value = u64> {
    let many = few(500, 20)..few(530_u64, 40);
    prop_oneof![4 => 1..20_u64, 1 => many, 1 => Just(512), 1 => Just(few(1024, 1))]
}

fn place() -> impl Strategy<Value = u64> {
    let block = prop_oneof![4 => 0..3_u64, 1 => 510..513_u64];
    let within = prop_oneof![2 => Just(0), 2 => 0..30_u64, 1 => 490..512_u64];
    (block, within).prop_map(|(block, within)| block * PAGES_PER_2M + within)
}

fn budget() -> impl Strategy<Value = u32> {
    prop_oneof![Just(few(1, 200)), few(2, 200)..few(40_u32, 300), few(40, 300)..2000_u32]
}

fn rights() -> impl Strategy<Value = Rights> {
    prop_oneof![Just(Rights::R), Just(Rights::RX), Just(Rights::RW), Just(Rights::RWX)]
}

fn memory() -> impl Strategy<Value = MemoryType> {
    let types = [MemoryType::WriteBack, MemoryType::NonCacheable, MemoryType::Device];
    prop_oneof![3 => Just(types[0]), 1 => Just(types[1]), 1 => Just(types[2])]
}

fn op() -> impl Strategy<Value = Op> {
    // Nothing reaches beyond the end of RAM.
    let fits = |from: u64, pages: u64| from.min(RAM_PAGES - pages);
    let pa = (0..4_u64, 0..3_u64).prop_map(|(block, page)| block * PAGES_PER_2M + page);
    prop_oneof![
        3 => (place(), pages(), budget()).prop_map(move |(from, pages, budget)| {
            Op::Claim { from: fits(from, pages), pages, budget }
        }),
        3 => (place(), pages(), proptest::option::of((rights(), memory()))).prop_map(
            move |(from, pages, share)| Op::Short { from: fits(from, pages), pages, share }
        ),
        3 => (place(), pages(), pa, budget())
            .prop_map(|(from, pages, pa, budget)| Op::Hold { from, pages, pa, budget }),
        8 => (any::<usize>(), 0..3_usize, rights(), memory(), budget()).prop_map(
            |(extent, way, rights, memory, budget)| Op::Next { extent, way, rights, memory, budget }
        ),
        2 => Just(Op::Merge),
    ]
}

#[test]
fn every_history_leaves_tables_records_and_cpus_in_agreement() {
    let (cases, length) = few((16 * effort::<u32>(), 40), (1, 6));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    proptest!(config, |(history in proptest::collection::vec(op(), 1..length))| {
        let mut model = Model::new();
        let (tables, before) = (model.vm.stage2.tables(), model.vm.mem.pool.taken(VM));
        for op in &history {
            model.apply(op)?;
        }
        for page in model.pages.keys() {
            model.compare(*page)?;
        }
        model.unwind()?;
        model.vm.merge_all();
        prop_assert_eq!(model.vm.stage2.tables(), tables);
        prop_assert_eq!(model.vm.mem.pool.taken(VM), before);
        prop_assert_eq!(model.vm.leaf(RAM).pages, PAGES_PER_1G);
        for page in model.pages.keys() {
            model.compare(*page)?;
        }
    });
}
