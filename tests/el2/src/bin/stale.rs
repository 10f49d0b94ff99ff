//! A translation that a VM has lost is dead on every CPU when the call returns, also on one that never
//! leaves its guest; and this program would notice if it were not.
//!
//! CPU 1 runs a guest that reads one word for ever, so its TLB always holds the page. CPU 0 takes the
//! page away by calls. The control takes it away once more, over a machine that leaves invalidations
//! out: then the guest must read on. (On real hardware a TLB may forget by itself, so there only the
//! first part would prove something; QEMU's forgets nothing.)
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use boards::QEMU_VIRT;
use el2_tests::calls;
use el2_tests::guest::{Guest, Stop};
use el2_tests::view::View;
use el2_tests::world::{PROGRAM, RAM, WINDOW, build, vmid};
use hyp::boot::Boot;
use hyp::machine::El2;
use hyp::{Exit, exit};
use rm::address::{Ipa, PAGE_SIZE, Pa, VmIndex};
use rm::machine::{Features, Frame, Line, Machine, Scope, TranslationContext};
use rm::manager::Manager;
use rm::stage2::Access;
use rm_abi::{AcceptFlags, AclEntry, Attribute, Handle, Rights, SglEntry, Transfer};
use spin::Once;

hyp::entry!(QEMU_VIRT, main);

const OWNER: VmIndex = VmIndex(0);
const WATCHER: VmIndex = VmIndex(1);
/// Two pages of the owner, far from each other.
const FIRST: Ipa = RAM.add_pages(700);
const SECOND: Ipa = RAM.add_pages(2100);
/// Where the watcher has what it borrows.
const WORD: Ipa = WINDOW.add_pages(3);
/// A page of the watcher's own memory.
const REPORT: Ipa = RAM.add_pages(1);
/// Microseconds in which a running guest gets somewhere.
const A_MOMENT: u64 = 200_000;
const TOO_LONG: u64 = 20_000_000;

/// The machine, with a switch that leaves invalidations out.
struct Deaf {
    hardware: El2,
    is_deaf: AtomicBool,
}

impl Machine for Deaf {
    type Relax = <El2 as Machine>::Relax;

    fn invalidate(&self, context: TranslationContext, scope: Scope<'_>) {
        if !self.is_deaf.load(Ordering::Relaxed) {
            self.hardware.invalidate(context, scope);
        }
    }

    fn features(&self) -> Features {
        self.hardware.features()
    }

    fn frames(&self) -> &[Frame] {
        self.hardware.frames()
    }

    fn frames_base(&self) -> Pa {
        self.hardware.frames_base()
    }

    fn publish(&self) {
        self.hardware.publish();
    }

    fn zero_page(&self, page: Pa) {
        self.hardware.zero_page(page);
    }

    fn clean_invalidate_page(&self, page: Pa) {
        self.hardware.clean_invalidate_page(page);
    }

    fn read(&self, from: Pa, into: &mut [u8], cached: bool) {
        self.hardware.read(from, into, cached);
    }

    fn write(&self, to: Pa, from: &[u8], cached: bool) {
        self.hardware.write(to, from, cached);
    }

    fn interrupt(&self, vm: VmIndex, line: Line) {
        self.hardware.interrupt(vm, line);
    }

    fn held_ranks(&self) -> &AtomicU64 {
        self.hardware.held_ranks()
    }
}

static MANAGER: Once<Manager<'static, Deaf>> = Once::new();
/// The guest may start.
static READY: AtomicBool = AtomicBool::new(false);
/// Faults that the guest has taken, and how many of them CPU 0 has answered by mapping the page.
static FAULTS: AtomicU32 = AtomicU32::new(0);
static ANSWERED: AtomicU32 = AtomicU32::new(0);

fn main(boot: Boot) -> ! {
    hyp::configure(hyp::machine::features());
    boot.start_cpus(watch);
    let deaf = |hardware| Deaf { hardware, is_deaf: AtomicBool::new(false) };
    let manager = MANAGER.call_once(|| build(boot.memory, deaf));
    write(address(manager, OWNER, FIRST), 111);
    write(address(manager, OWNER, SECOND), 222);

    let handle = lend(manager, FIRST);
    READY.store(true, Ordering::Release);
    expect(manager, 111, "the guest reads what it has accepted");

    let turns = take_away(manager, handle);
    expect_fault(
        manager,
        1,
        turns,
        "a page that is gone faults on a CPU that never left its guest",
    );

    let handle = lend(manager, SECOND);
    ANSWERED.store(1, Ordering::Release);
    expect(manager, 222, "the guest reads the page that came in place of the first one");

    manager.machine().is_deaf.store(true, Ordering::Relaxed);
    take_away(manager, handle);
    expect(manager, 222, "without the invalidation the stale translation serves");
    if FAULTS.load(Ordering::Acquire) != 1 {
        exit(Exit::Fail, "the control proves nothing: the page faulted without an invalidation");
    }

    manager.machine().is_deaf.store(false, Ordering::Relaxed);
    manager.machine().invalidate(manager.context(WATCHER), Scope::All);
    let turns = read(address(manager, WATCHER, REPORT));
    expect_fault(manager, 2, turns, "and the invalidation alone ends it");
    exit(Exit::Pass, "a stale translation dies, and would be seen");
}

/// CPU 1: the guest, again and again.
fn watch() -> ! {
    hyp::configure(hyp::machine::features());
    while !READY.load(Ordering::Acquire) {
        hyp::relax();
    }
    let manager = MANAGER.get().expect("it is made before the guest may start");
    let vm = View::of(manager.context(WATCHER));
    let mut watcher = Guest::watching(PROGRAM, WORD, REPORT);
    loop {
        let stop = watcher.run(&vm);
        if stop != Stop::Unmapped(WORD) {
            defmt::error!("the guest stops: {}", defmt::Debug2Format(&stop));
            exit(Exit::Fail, "the guest stops for another reason than its page");
        }
        let faults = FAULTS.fetch_add(1, Ordering::AcqRel) + 1;
        while ANSWERED.load(Ordering::Acquire) < faults {
            hyp::relax();
        }
    }
}

/// Lends one page of the owner to the watcher, who accepts it at [`WORD`].
fn lend(manager: &Manager<'static, Deaf>, page: Ipa) -> Handle {
    let acl = [AclEntry { vmid: vmid(WATCHER), rights: Rights::RW }];
    let entry = |at: Ipa| [SglEntry { ipa: at.0, size: PAGE_SIZE }];
    let made = calls::create(manager, OWNER, Transfer::Lend, &acl, &entry(page), Attribute::Normal);
    let handle = made.expect("the owner has the page");
    let flags = AcceptFlags::MAP_CONTIGUOUS;
    calls::accept(manager, WATCHER, handle, Transfer::Lend, flags, &entry(WORD))
        .expect("the window is free");
    handle
}

/// Releases the page and takes it home; gives how often the guest had read it when it was gone.
fn take_away(manager: &Manager<'static, Deaf>, handle: Handle) -> u64 {
    calls::release(manager, WATCHER, handle).expect("the watcher holds it");
    let turns = read(address(manager, WATCHER, REPORT));
    calls::reclaim(manager, OWNER, handle, false).expect("nobody holds it any more");
    assert_eq!(manager.allows(WATCHER, WORD, Access::Read), None);
    turns
}

/// Waits until the guest has read `value` often, from now on.
fn expect(manager: &Manager<'static, Deaf>, value: u64, what: &str) {
    let report = address(manager, WATCHER, REPORT);
    // The report may be of a moment ago, so the first turns do not count.
    let before = read(report);
    let from = hyp::log::microseconds();
    loop {
        let waited = hyp::log::microseconds() - from;
        let turns = read(report).wrapping_sub(before);
        if waited > A_MOMENT && turns > 10_000 {
            break;
        }
        if waited > TOO_LONG {
            defmt::error!("{=u64} turns in too long a time", turns);
            exit(Exit::Fail, what);
        }
        hyp::relax();
    }
    let seen = read(Pa(report.0 + 8));
    if seen != value {
        defmt::error!("the guest reads {=u64} instead of {=u64}", seen, value);
        exit(Exit::Fail, what);
    }
    defmt::info!("{=str}", what);
}

/// Waits for the guest's fault number `count`. When its page was gone it had read `turns` times; it
/// may not have read it again, only told of the last time.
fn expect_fault(manager: &Manager<'static, Deaf>, count: u32, turns: u64, what: &str) {
    let from = hyp::log::microseconds();
    while FAULTS.load(Ordering::Acquire) != count {
        if hyp::log::microseconds() - from > A_MOMENT {
            exit(Exit::Fail, what);
        }
        hyp::relax();
    }
    let late = read(address(manager, WATCHER, REPORT)).wrapping_sub(turns);
    if late > 1 {
        defmt::error!("{=u64} turns later than allowed", late);
        exit(Exit::Fail, what);
    }
    defmt::info!("{=str}", what);
}

/// Where a page that the VM may read lies.
fn address(manager: &Manager<'static, Deaf>, vm: VmIndex, at: Ipa) -> Pa {
    manager.allows(vm, at, Access::Read).expect("the VM has the page")
}

fn read(at: Pa) -> u64 {
    // SAFETY: a word of a VM's RAM in the direct map. The guest writes it with single stores.
    unsafe { hyp::stage1::direct(at).cast::<u64>().read_volatile() }
}

fn write(at: Pa, value: u64) {
    // SAFETY: a word of a VM's RAM in the direct map, before the guest runs.
    unsafe { hyp::stage1::direct(at).cast::<u64>().write_volatile(value) };
}
