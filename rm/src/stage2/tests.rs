//! One VM's tables over the strict machine.

mod bits;
mod blocks;
mod concurrent;
mod frames;
mod model;
mod order;
mod part;
mod search;

use std::boxed::Box;
use std::vec::Vec;

use core::sync::atomic::AtomicU32;

use rm_abi::Rights;

use super::descriptor::{self, Level, PAGE_LEVEL, is_table};
use super::*;
use crate::address::{PAGE_SIZE, PAGES_PER_2M};
use crate::frame_pool::FrameRecord;
use crate::machine::Features;
use crate::machine::fake::{FakeMachine, VirtualCpu};
use crate::operation::budget::Budget;

/// Where the VM of most tests has its RAM, and where the machine has it.
const RAM: Ipa = Ipa(0x4000_0000);
const RAM_AT: Pa = Pa(0x8000_0000);
/// Where it borrows.
const WINDOW: Ipa = Ipa(0x20_0000_0000);
const VM: VmIndex = VmIndex(3);
const TAG: TlbTag = TlbTag(7);

type Mem = Memory<'static, 'static, FakeMachine>;

/// A VM and the machine below it.
struct Vm {
    mem: Mem,
    stage2: Stage2,
}

/// Enough work for anything.
fn plenty() -> Budget {
    Budget::new(u32::MAX)
}

fn machine(frames: usize, features: Features) -> Mem {
    let machine = Box::leak(Box::new(FakeMachine::with_features(frames, features)));
    let records = (0..frames).map(|_| FrameRecord::default()).collect::<Vec<_>>().leak();
    let stack = (0..frames).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().leak();
    Memory { machine, pool: Box::leak(Box::new(FramePool::new(records, stack))) }
}

impl Vm {
    /// A VM with `ram` pages at [`RAM`] and up to `frames` frames.
    fn new(ram: u64, frames: u32) -> Self {
        let mem = machine(frames as usize, Features::default());
        mem.pool.set_quota(mem.machine, VM, 0, frames).unwrap();
        Self::on(mem, ram)
    }

    fn on(mem: Mem, ram: u64) -> Self {
        let mut stage2 = Stage2::new(mem, VM, TAG, MAX_IPA_PAGES).unwrap();
        stage2.give(mem, RAM, RAM_AT, ram).unwrap();
        let vm = Self { mem, stage2 };
        vm.check();
        vm
    }

    fn cpu(&self) -> VirtualCpu<'static> {
        self.mem.machine.cpu(self.stage2.context())
    }

    fn leaf(&self, at: Ipa) -> Leaf {
        self.stage2.leaf(self.mem, at)
    }

    fn state(&self, at: Ipa) -> State {
        self.leaf(at).state
    }

    /// A whole change in one step, with its invalidation.
    fn change(&mut self, at: Ipa, pages: u64, to: Change) {
        let mut batch = Batch::new();
        let mut done = 0;
        while done < pages {
            let at = at.add_pages(done);
            done += self.stage2.change(self.mem, &mut batch, at, pages - done, to, &mut plenty());
        }
        self.stage2.finish(self.mem, batch);
        self.check();
    }

    /// Cuts and changes, as a short call does.
    fn cut_and_change(&mut self, at: Ipa, pages: u64, to: Change) {
        self.stage2.cut(self.mem, at, pages).unwrap();
        self.change(at, pages, to);
    }

    fn hold(&mut self, at: Ipa, pa: Pa, pages: u64) -> Result<(), HoldError> {
        let mut done = 0;
        while done < pages {
            let (at, pa) = (at.add_pages(done), pa.add_pages(done));
            done += self.stage2.hold(self.mem, at, pa, pages - done, &mut plenty())?;
        }
        self.check();
        Ok(())
    }

    fn merge_all(&mut self) {
        while self.stage2.merge_one(self.mem) {
            self.check();
        }
    }

    /// The records agree with the tables, the accounts with both, and no CPU is behind.
    fn check(&self) {
        let mut seen = (0, 0);
        self.check_table(self.stage2.root, descriptor::ROOT_LEVEL, 0, &mut seen);
        let (tables, listed) = seen;
        assert_eq!(self.stage2.tables(), tables);
        assert_eq!(self.stage2.mergeable(), listed);
        assert_eq!(self.mem.pool.taken(VM), tables);
        assert_eq!(self.mem.pool.used(VM), tables - listed);
        assert_eq!(self.mem.machine.tables_of(TAG), tables as usize);
        self.mem.machine.check_no_stale();
    }

    fn check_table(&self, table: FrameIndex, level: Level, first: u64, seen: &mut (u32, u32)) {
        let record = self.mem.pool.record(table);
        let size = descriptor::pages_of(level);
        let frame = self.mem.frame(table);
        let (mut uses, mut deviants) = (0, 0);
        for index in 0..512 {
            let entry = frame.read(index);
            let page = index as u64 * size;
            uses += u32::from(entry != 0);
            let plain = |home: Pa| self.stage2.encoder.owned(level) | home.add_pages(page).0;
            let mut at_home = record.home().is_some_and(|home| entry == plain(home));
            if is_table(entry, level) {
                let below = self.mem.frame_at(descriptor::address(entry));
                self.check_table(below, level + 1, first + page, seen);
                let below = self.mem.pool.record(below);
                let here = record.home().map(|home| home.add_pages(page));
                at_home = below.is_listed() && here.is_some() && below.home() == here;
            }
            deviants += u32::from(!at_home);
        }
        assert_eq!(record.uses(), uses, "uses of {table:?} at level {level}");
        assert!(uses > 0 || table == self.stage2.root, "{table:?} is empty and linked");
        if record.home().is_some() {
            assert_eq!(record.deviants(), deviants, "deviants of {table:?} at level {level}");
        }
        assert_eq!(record.is_listed(), record.home().is_some() && deviants == 0);
        assert_eq!((record.level(), record.first_page()), (level, first));
        assert!(level <= PAGE_LEVEL);
        seen.0 += 1;
        seen.1 += u32::from(record.is_listed());
    }
}
