//! Translation: every address is itself, RAM write-back, the emulated devices as device memory.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;
use crate::layout::BLOCK;

/// A table of the 4 KiB granule.
#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

static LEVEL1: Table = Table([const { AtomicU64::new(0) }; 512]);
/// The first GiB, which holds the devices.
static LEVEL2: Table = Table([const { AtomicU64::new(0) }; 512]);

const GIB: u64 = 1 << 30;
/// Where the devices lie: distributor, redistributors, console.
const DEVICES: core::ops::Range<u64> = 0x0800_0000..0x0a00_0000;

/// A valid block, access flag set, inner shareable, write-back (attribute 0).
const NORMAL: u64 = 1 | 1 << 10 | 3 << 8;
/// A valid block, access flag set, never executable, device (attribute 1).
const DEVICE: u64 = 1 | 1 << 10 | 1 << 2 | 1 << 53 | 1 << 54;
/// A valid table.
const TABLE: u64 = 3;

/// Attribute 0 write-back, 1 nGnRE.
const MAIR: u64 = 0x04ff;
/// TTBR0 alone, 39 bits, write-back walks, 40-bit outputs.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
/// The bits that are one, the stack pointer's alignment check, caches and MMU on.
const SCTLR: u64 = 0x30d0_0800 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

/// Turns the MMU of this vCPU on. Both write the same values into the tables.
pub fn enable() {
    for (index, entry) in (0..).zip(&LEVEL2.0) {
        let at = index * BLOCK;
        let kind = if DEVICES.contains(&at) { DEVICE } else { NORMAL };
        entry.store(at | kind, Ordering::Relaxed);
    }
    for (index, entry) in (0..).zip(&LEVEL1.0) {
        let normal = (index * GIB) | NORMAL;
        let first = &raw const LEVEL2 as u64 | TABLE;
        entry.store(if index == 0 { first } else { normal }, Ordering::Relaxed);
    }
    crate::write_register!("mair_el1", MAIR);
    crate::write_register!("tcr_el1", TCR);
    crate::write_register!("ttbr0_el1", &raw const LEVEL1 as u64);
    set_sctlr(SCTLR);
}

fn set_sctlr(value: u64) {
    // SAFETY: the tables, written before the barrier, map every address to itself, so nothing that
    // Rust code relies on moves.
    unsafe {
        core::arch::asm!(
            "dsb sy",
            "tlbi vmalle1",
            "dsb sy",
            "isb",
            "msr sctlr_el1, {value}",
            value = in(reg) value,
        );
    }
    cpu::isb();
}
