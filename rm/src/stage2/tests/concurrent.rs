//! One CPU works on the tables while another uses them.

use core::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::lock::{Lock, Rank};
use crate::machine::fake::effort::few;

/// How often the one CPU changes what the other uses.
const ROUNDS: u64 = few(200, 4);

/// Ends the other thread's loop, also when the story fails.
struct Story<'a>(&'a AtomicBool);

impl Drop for Story<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A CPU that never leaves its guest meets cut and merged blocks, shared and restricted pages, and
/// pages that are retyped, without one abort that stands.
#[test]
fn a_cpu_that_reads_a_block_never_notices_what_happens_to_its_pages() {
    let vm = Vm::new(PAGES_PER_2M, 16);
    vm.cpu().write(RAM.add_pages(7), 42).unwrap();
    let (mem, cpu) = (vm.mem, vm.cpu());
    let lock = Lock::new(Rank::Vm, vm);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let allows = |at, access| lock.lock(mem.machine).stage2.allows(mem, at, access);
            let mut page = 0;
            while !done.load(Ordering::Relaxed) {
                page = (page + 1) % 16;
                let at = RAM.add_pages(page);
                assert_eq!(cpu.retrying(at, Access::Read, allows), Ok(RAM_AT.add_pages(page)));
            }
        });
        let _story = Story(&done);
        for round in 0..ROUNDS {
            let page = RAM.add_pages(round % 16);
            let share = match round % 3 {
                0 => (Rights::RWX, MemoryType::WriteBack),
                1 => (Rights::R, MemoryType::WriteBack),
                _ => (Rights::RW, MemoryType::NonCacheable),
            };
            let (rights, memory) = share;
            lock.lock(mem.machine).cut_and_change(page, 1, Change::Share { rights, memory });
            lock.lock(mem.machine).change(page, 1, Change::Restore);
            lock.lock(mem.machine).merge_all();
        }
    });
}

/// The page that a VM has lent is written by its borrower; the owner's CPU sees either its own page
/// or nothing, and after the reclaim what the borrower wrote.
#[test]
fn a_lent_page_is_out_of_reach_of_a_cpu_that_keeps_trying() {
    let vm = Vm::new(PAGES_PER_2M, 16);
    let (mem, cpu) = (vm.mem, vm.cpu());
    let lock = Lock::new(Rank::Vm, vm);
    let lent = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let before = lent.load(Ordering::SeqCst);
                let seen = cpu.read(RAM);
                let after = lent.load(Ordering::SeqCst);
                assert!(!(before && after) || seen.is_err(), "G2: {seen:?}");
            }
        });
        let _story = Story(&done);
        for _ in 0..ROUNDS {
            lock.lock(mem.machine).cut_and_change(RAM, 1, Change::Lend { parcel: 1 });
            lent.store(true, Ordering::SeqCst);
            std::thread::yield_now();
            lent.store(false, Ordering::SeqCst);
            lock.lock(mem.machine).change(RAM, 1, Change::Restore);
        }
    });
}
