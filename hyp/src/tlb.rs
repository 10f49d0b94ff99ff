//! Removing translations of guests: one helper for every change of a stage-2 table.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm::barrier::{ISH, ISHST, NSH, SY, dsb, isb};
use rm::address::Ipa;
use rm::machine::{IpaRange, Scope, TranslationContext};

use crate::errata::{self, Core};
use crate::vcpu::context::Visit;

/// From this many pages on, all of the VM's translations are dropped at once: that many single
/// invalidations cost other CPUs more than walking again does.
const MOST_PAGES: u64 = 64;

/// A CPU's stores may be under way when an invalidation ends that should have waited for them.
static REPEATS: AtomicBool = AtomicBool::new(false);

/// Sets this CPU up, before guests run on it: what firmware and reset left goes, and invalidations are made
/// twice from now on if the core needs it.
pub(crate) fn configure() {
    forget_all();
    let is_needed = errata::stores_may_outlive_invalidation(Core::current());
    if is_needed && !REPEATS.swap(true, Ordering::Relaxed) {
        defmt::info!("stores may be late: invalidations are made twice");
    }
}

/// What VTTBR_EL2 holds while a VM runs.
pub(crate) fn vttbr(context: TranslationContext) -> u64 {
    u64::from(context.tag.0) << 48 | context.root.0
}

/// Drops the translations in `scope` on all CPUs, and returns when none can use them any more.
pub(crate) fn invalidate(context: TranslationContext, scope: Scope<'_>) {
    // The walkers of all CPUs see the changed descriptors before the invalidation.
    dsb(ISHST);
    let _visit = Visit::new(vttbr(context));
    match scope {
        Scope::Ranges(ranges) if pages(ranges) <= MOST_PAGES => by_page(ranges),
        Scope::Ranges(_) | Scope::All => stages_1_and_2(),
    }
    dsb(ISH);
    // Any invalidation will do, if it goes to all CPUs.
    if REPEATS.load(Ordering::Relaxed) {
        stage_1();
        dsb(ISH);
    }
    isb(SY);
}

fn pages(ranges: &[IpaRange]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.pages))
}

fn by_page(ranges: &[IpaRange]) {
    for range in ranges {
        for page in range.at.page()..range.at.page() + range.pages {
            stage_2_page(page);
        }
    }
    dsb(ISH);
    // A TLB may hold stage 1 and stage 2 combined, by virtual address only, so all of stage 1 goes
    // too (DDI 0487 L.b, D8.17.6.1, rule ILRXYX).
    stage_1();
}

/// The stage-2 entries of any level that translate one page.
fn stage_2_page(page: u64) {
    // SAFETY: dropping a translation makes the next access walk; no access of EL2 uses this regime.
    unsafe { asm!("tlbi ipas2e1is, {}", in(reg) page, options(nostack, preserves_flags)) };
}

/// All stage-1 entries of the loaded VMID, those combined with stage 2 among them.
fn stage_1() {
    // SAFETY: as in `stage_2_page`.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) };
}

/// Everything of the loaded VMID.
fn stages_1_and_2() {
    // SAFETY: as in `stage_2_page`.
    unsafe { asm!("tlbi vmalls12e1is", options(nostack, preserves_flags)) };
}

/// Drops what this CPU has cached of one page of the loaded guest.
pub(crate) fn forget_page(at: Ipa) {
    // SAFETY: as in `stage_2_page`.
    unsafe { asm!("tlbi ipas2e1, {}", in(reg) at.page(), options(nostack, preserves_flags)) };
    dsb(NSH);
    // SAFETY: as in `stage_2_page`.
    unsafe { asm!("tlbi vmalle1", options(nostack, preserves_flags)) };
    dsb(NSH);
    isb(SY);
}

/// Drops every guest's translations on this CPU.
fn forget_all() {
    // SAFETY: no guest runs on this CPU yet.
    unsafe { asm!("tlbi alle1", options(nostack, preserves_flags)) };
    dsb(ISH);
    isb(SY);
}
