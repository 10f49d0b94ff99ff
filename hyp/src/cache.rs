//! Cache maintenance, and zeros to the point of coherency.
//!
//! EL2 maps RAM write-back. A guest may map the same page without caches, so what EL2 writes or
//! zeroes for a guest is cleaned to the point of coherency, where all observers meet.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use rm::address::{PAGE_SIZE, Pa};

use crate::board::Region;
use crate::stage1::direct;

/// Bytes that one DC ZVA or DC CIVAC covers on Cortex-A cores, for which zeroing is unrolled.
const LINE: u64 = 64;
/// [`LINE`] as DCZID_EL0 and CTR_EL0 encode it: words of four bytes, as a power of two.
const LINE_CODE: u64 = 4;

/// Fills a range of whole pages with zeros, to the point of coherency.
pub fn zero(range: Region) {
    for page in 0..range.size / PAGE_SIZE {
        zero_page(range.start.add_pages(page));
    }
}

/// Fills one page with zeros, to the point of coherency.
pub fn zero_page(page: Pa) {
    let start = direct(page) as u64;
    if is_zeroed_by_line() {
        zero_page_of_lines(start);
    } else {
        zero_page_of_any_lines(start);
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

/// Zeroes a line while it is at hand, then pushes it out. Without a loop: this is most of what a
/// sanitizing call costs. Never inlined: the compiler takes the repetition for a few instructions when it
/// chooses between short and long branches, and in a large function a short one would not reach.
#[inline(never)]
fn zero_page_of_lines(start: u64) {
    // SAFETY: the page is RAM in the direct map and the caller's; the block size of DC ZVA is a
    // line. CIVAC instead of CVAC: see `errata`.
    unsafe {
        asm!(
            ".rept {lines}",
            "dc zva, {at}",
            "dc civac, {at}",
            "add {at}, {at}, #{line}",
            ".endr",
            at = inout(reg) start => _,
            lines = const PAGE_SIZE / LINE,
            line = const LINE,
            options(nostack, preserves_flags)
        );
    }
}

#[cold]
fn zero_page_of_any_lines(start: u64) {
    match zeroing_block() {
        Some(block) => each(start, PAGE_SIZE, block, zero_block),
        None => each(start, PAGE_SIZE, 8, zero_word),
    }
    each(start, PAGE_SIZE, data_line(), clean_invalidate_line);
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

/// Whether DC ZVA is allowed and covers [`LINE`] bytes, as DC CIVAC does.
#[inline]
fn is_zeroed_by_line() -> bool {
    dczid() & 0x1f == LINE_CODE && ctr() >> 16 & 0xf == LINE_CODE
}

/// The bytes that DC ZVA zeroes, unless it is prohibited.
fn zeroing_block() -> Option<u64> {
    (dczid() & 1 << 4 == 0).then_some(4 << (dczid() & 0xf))
}

/// Bytes of the smallest data cache line.
fn data_line() -> u64 {
    4 << (ctr() >> 16 & 0xf)
}

#[inline]
fn dczid() -> u64 {
    let value: u64;
    // SAFETY: reads an identification register.
    unsafe {
        asm!("mrs {}, dczid_el0", out(reg) value, options(nomem, nostack, preserves_flags, pure))
    };
    value
}

#[inline]
fn ctr() -> u64 {
    let value: u64;
    // SAFETY: reads an identification register.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) value, options(nomem, nostack, preserves_flags, pure))
    };
    value
}
