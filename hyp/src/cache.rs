//! Cache maintenance, and zeros to the point of coherency.
//!
//! EL2 maps RAM write-back. A guest may map the same page without caches, so what EL2 writes or
//! zeroes for a guest is cleaned to the point of coherency, where all observers meet.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use rm::address::{PAGE_SIZE, Pa};

use crate::board::Region;
use crate::stage1::direct;

/// Bytes that one DC ZVA or DC CIVAC covers on Cortex-A cores, for which the loop is unrolled.
const LINE: u64 = 64;

/// Fills a range of whole pages with zeros, to the point of coherency.
pub fn zero(range: Region) {
    for page in 0..range.size / PAGE_SIZE {
        zero_page(range.start.add_pages(page));
    }
}

/// Fills one page with zeros, to the point of coherency.
pub fn zero_page(page: Pa) {
    let start = direct(page) as u64;
    if zeroing_block() == Some(LINE) && data_line() == LINE {
        zero_page_of_lines(start);
    } else {
        match zeroing_block() {
            Some(block) => each(start, PAGE_SIZE, block, zero_block),
            None => each(start, PAGE_SIZE, 8, zero_word),
        }
        each(start, PAGE_SIZE, data_line(), clean_invalidate_line);
    }
    barrier::dsb(barrier::SY);
}

/// Cleans and invalidates RAM, or any range of the direct map, to the point of coherency.
pub fn clean_invalidate(start: Pa, size: u64) {
    let line = data_line();
    let first = start.0 & !(line - 1);
    each(direct(Pa(first)) as u64, start.0 + size - first, line, clean_invalidate_line);
    barrier::dsb(barrier::SY);
}

/// Makes code that was written to a range of RAM visible to instruction fetches of all CPUs.
pub fn sync_code(start: Pa, size: u64) {
    clean_invalidate(start, size);
    // SAFETY: dropping instruction cache lines changes no program.
    unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
    barrier::dsb(barrier::ISH);
    barrier::isb(barrier::SY);
}

fn each(start: u64, size: u64, step: u64, action: impl Fn(u64)) {
    let mut at = start;
    while at < start + size {
        action(at);
        at += step;
    }
}

/// Sixteen lines a turn: zero a line while it is at hand, then push it out.
#[inline]
fn zero_page_of_lines(start: u64) {
    // SAFETY: the page is RAM in the direct map and the caller's; the block size of DC ZVA is a
    // line. CIVAC instead of CVAC: see `errata`.
    unsafe {
        asm!(
            "2:",
            ".rept 16",
            "dc zva, {at}",
            "dc civac, {at}",
            "add {at}, {at}, #64",
            ".endr",
            "cmp {at}, {end}",
            "b.lo 2b",
            at = inout(reg) start => _,
            end = in(reg) start + PAGE_SIZE,
            options(nostack)
        );
    }
}

fn zero_block(at: u64) {
    // SAFETY: as in `zero_page_of_lines`.
    unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) };
}

fn zero_word(at: u64) {
    // SAFETY: an aligned word of a page that is RAM in the direct map and the caller's.
    unsafe { (at as *mut u64).write_volatile(0) };
}

fn clean_invalidate_line(at: u64) {
    // SAFETY: cleaning and invalidating keeps the content of memory.
    unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
}

/// The bytes that DC ZVA zeroes, unless it is prohibited.
#[inline]
fn zeroing_block() -> Option<u64> {
    let value: u64;
    // SAFETY: reads an identification register.
    unsafe {
        asm!("mrs {}, dczid_el0", out(reg) value, options(nomem, nostack, preserves_flags, pure))
    };
    (value & 1 << 4 == 0).then_some(4 << (value & 0xf))
}

/// Bytes of the smallest data cache line.
#[inline]
fn data_line() -> u64 {
    let value: u64;
    // SAFETY: reads an identification register.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) value, options(nomem, nostack, preserves_flags, pure))
    };
    4 << (value >> 16 & 0xf)
}
