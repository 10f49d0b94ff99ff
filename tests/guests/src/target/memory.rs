//! Memory by guest physical address. Translation is the identity, with the MMU on or off.
//!
//! Everything is volatile: another VM may write the same page, and a page may have been given away,
//! in which case the access ends the program (use [`probe`](crate::probe) where it may).

use core::ptr::{read_volatile, write_volatile};

use crate::layout::PAGE;

/// Reads 64 bits.
pub fn read(at: u64) -> u64 {
    // SAFETY: programs keep Rust objects away from the addresses that they use as plain memory; what
    // the VM does not have faults into `vectors`.
    unsafe { read_volatile(at as *const u64) }
}

/// Writes 64 bits.
pub fn write(at: u64, value: u64) {
    // SAFETY: as in `read`.
    unsafe { write_volatile(at as *mut u64, value) }
}

/// Reads a 32-bit register.
pub fn read32(at: u64) -> u32 {
    // SAFETY: as in `read`.
    unsafe { read_volatile(at as *const u32) }
}

/// Writes a 32-bit register.
pub fn write32(at: u64, value: u32) {
    // SAFETY: as in `read`.
    unsafe { write_volatile(at as *mut u32, value) }
}

/// Writes one byte of a byte-wide register.
pub fn write8(at: u64, value: u8) {
    // SAFETY: as in `read`.
    unsafe { write_volatile(at as *mut u8, value) }
}

/// Offsets of the words that stand for a page: the first, the last, and some between.
const PROBES: [u64; 4] = [0, 0x7f8, 0x800, PAGE - 8];

/// Fills `pages` pages so that every page and every probed word has a value of its own.
pub fn fill(at: u64, pages: u64, seed: u64) {
    for page in 0..pages {
        for offset in PROBES {
            write(at + page * PAGE + offset, value(page, offset, seed));
        }
    }
}

/// Checks what [`fill`] wrote, maybe at another address.
pub fn check(at: u64, pages: u64, seed: u64) {
    for page in 0..pages {
        for offset in PROBES {
            let (address, expected) = (at + page * PAGE + offset, value(page, offset, seed));
            let found = read(address);
            assert!(found == expected, "{address:#x}: {found:#x}, not {expected:#x}");
        }
    }
}

/// Checks that every word of `pages` pages is zero.
pub fn check_zero(at: u64, pages: u64) {
    for address in (at..at + pages * PAGE).step_by(8) {
        let found = read(address);
        assert!(found == 0, "{address:#x}: {found:#x}, not zero");
    }
}

fn value(page: u64, offset: u64, seed: u64) -> u64 {
    (seed << 32 | page << 12 | offset) ^ 0x5a5a_0000_0000_a5a5
}
