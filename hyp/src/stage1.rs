//! EL2's own map: the image at its link addresses, RAM and a few devices at fixed offsets.
//!
//! `boot.s` has mapped the image, section by section, before the first line of Rust. What is added
//! here goes into entries that were invalid, so nothing is ever mapped twice; what is taken away are
//! the guard pages under the stacks. Data is never executable, and code and constants are writable
//! nowhere, their alias in the direct map included.

use core::arch::asm;
use core::mem::size_of;
use core::slice;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::asm::barrier;
use rm::address::{PAGE_SIZE, Pa};

use crate::board::{Board, Region};
use crate::cpu::STACKS;

/// Where [`look`] has its window: level-1 entry 126, below `boot.s`'s bridge.
const WINDOW: u64 = 126 << 30;
/// Virtual minus physical address in the direct map.
pub const DIRECT_MAP: u64 = 0x20_0000_0000;

const VALID: u64 = 1;
/// A table at levels 1 and 2, a page at level 3; a block has it clear.
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTRIBUTES_NORMAL: u64 = 1 << 2;
const ATTRIBUTES_DEVICE: u64 = 0 << 2;
/// AP\[1\] is RES1 in a regime with one privilege level.
const AP_RES1: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

const NORMAL: u64 = VALID | ATTRIBUTES_NORMAL | AP_RES1 | INNER_SHAREABLE | ACCESSED;
const DEVICE: u64 = VALID | ATTRIBUTES_DEVICE | AP_RES1 | ACCESSED | NEVER_EXECUTE;
pub(crate) const TABLE: u64 = VALID | TABLE_OR_PAGE;
pub(crate) const CODE_PAGE: u64 = NORMAL | READ_ONLY | TABLE_OR_PAGE;
pub(crate) const READ_ONLY_PAGE: u64 = CODE_PAGE | NEVER_EXECUTE;
pub(crate) const DATA_PAGE: u64 = NORMAL | NEVER_EXECUTE | TABLE_OR_PAGE;

/// MAIR_EL2: 0 is Device-nGnRE, 1 is Normal write-back, read and write allocate.
pub(crate) const MAIR: u64 = 0x04 | 0xff << 8;
/// TCR_EL2: 39-bit addresses, 4 KiB granule, walks write-back and inner shareable, RES1 bits. The
/// physical size is added at run time.
pub(crate) const TCR: u64 = 1 << 31 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 25;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

/// Tables for the direct map: a board needs two or three for each gibibyte that is not one block.
static SPARE: [Table; 40] = [const { Table([const { AtomicU64::new(0) }; 512]) }; 40];
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    // SAFETY: a table of `boot.s`; Rust and the walkers read and write it as atomics only.
    safe static el2_root: Table;
    // SAFETY: symbols of the linker script, used for their addresses only.
    safe static __image_start: u8;
    // SAFETY: as above.
    safe static __text_end: u8;
    // SAFETY: as above.
    safe static __rodata_end: u8;
    // SAFETY: as above.
    safe static __image_end: u8;
}

/// Bytes of the image in memory, up to where the package starts.
pub fn image_size() -> u64 {
    &raw const __image_end as u64 - &raw const __image_start as u64
}

/// Whether a link address lies in the image's code.
pub(crate) fn is_code(address: u64) -> bool {
    (&raw const __image_start as u64..&raw const __text_end as u64).contains(&address)
}

/// Where EL2 sees physical memory of RAM or of a device that the board names.
#[inline]
pub fn direct(at: Pa) -> *mut u8 {
    (at.0 + DIRECT_MAP) as *mut u8
}

/// Physical address of something in the direct map.
#[inline]
pub fn physical<T: ?Sized>(at: *const T) -> Pa {
    Pa(at.cast::<u8>() as u64 - DIRECT_MAP)
}

/// The image's code and constants, which nobody writes.
pub(crate) fn constants() -> &'static [u8] {
    let start = &raw const __image_start;
    let length = &raw const __rodata_end as usize - start as usize;
    // SAFETY: the linker script puts code and constants between the two symbols, mapped read-only.
    unsafe { slice::from_raw_parts(start, length) }
}

/// Adds the devices and takes the guard pages away. Runs once, before other CPUs use the tables.
pub(crate) fn complete(board: &Board, image: Pa) {
    let map = Map { image };
    for device in board.devices {
        map.region(device.start, device.end(), DEVICE);
    }
    barrier::dsb(barrier::ISHST);
    for guard in STACKS.iter().flat_map(|stacks| stacks.guards()) {
        map.entry(guard, 3).store(0, Ordering::Relaxed);
    }
    invalidate_all();
}

/// Adds RAM. Runs once, before other CPUs use the tables.
pub(crate) fn map_ram(ram: &[Region], image: Pa) {
    let map = Map { image };
    let constants_end =
        Pa(image.0 + &raw const __rodata_end as u64 - &raw const __image_start as u64);
    for ram in ram {
        map.ram(ram, image, constants_end);
    }
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// Looks at some bytes of RAM before RAM is mapped, through a window of its own, which stays. Each call
/// sees as much of the window as is mapped, and adds what it needs.
pub(crate) fn look(image: Pa, at: Pa, length: usize) -> &'static [u8] {
    let map = Map { image };
    let first = at.0 / PAGE_SIZE * PAGE_SIZE;
    for page in (first..at.0 + length as u64).step_by(PAGE_SIZE as usize) {
        let entry = map.entry(WINDOW + (page - first), 3);
        entry.store(page | READ_ONLY_PAGE, Ordering::Relaxed);
    }
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    let start = WINDOW + (at.0 - first);
    // SAFETY: the pages are mapped, read-only, and what boot firmware left there does not change.
    unsafe { slice::from_raw_parts(start as *const u8, length) }
}

/// Drops this CPU's translations of EL2.
fn invalidate_all() {
    barrier::dsb(barrier::ISHST);
    // SAFETY: every address in use keeps its translation; only guard pages, which nothing uses on
    // purpose, have lost theirs.
    unsafe { asm!("tlbi alle2", options(nostack, preserves_flags)) };
    barrier::dsb(barrier::NSH);
    barrier::isb(barrier::SY);
}

struct Map {
    image: Pa,
}

impl Map {
    /// Maps a range of RAM, code and constants read-only.
    fn ram(&self, ram: &Region, image: Pa, constants_end: Pa) {
        if !ram.contains(image) {
            return self.region(ram.start, ram.end(), NORMAL | NEVER_EXECUTE);
        }
        self.region(ram.start, image, NORMAL | NEVER_EXECUTE);
        self.region(image, constants_end, NORMAL | NEVER_EXECUTE | READ_ONLY);
        self.region(constants_end, ram.end(), NORMAL | NEVER_EXECUTE);
    }

    /// Maps physical addresses in the direct map, with the largest blocks that fit.
    fn region(&self, start: Pa, end: Pa, attributes: u64) {
        let mut at = start.0;
        while at < end.0 {
            let fits = |size: u64| at.is_multiple_of(size) && end.0 - at >= size;
            let level = (1..3).find(|&level| fits(size_of_level(level))).unwrap_or(3);
            let kind = if level == 3 { TABLE_OR_PAGE } else { 0 };
            let entry = self.entry(at + DIRECT_MAP, level);
            assert!(entry.load(Ordering::Relaxed) == 0, "{at:#x} is in two regions of the board");
            entry.store(at | attributes | kind, Ordering::Relaxed);
            at += size_of_level(level);
        }
    }

    /// The entry of `level` that translates `address`; tables on the way are made.
    fn entry(&self, address: u64, level: u32) -> &'static AtomicU64 {
        let mut table = &el2_root;
        for level in 1..level {
            let entry = &table.0[index(address, level)];
            if entry.load(Ordering::Relaxed) == 0 {
                entry.store(self.spare().0 | TABLE, Ordering::Relaxed);
            }
            table = self.table(Pa(entry.load(Ordering::Relaxed) & ADDRESS));
        }
        &table.0[index(address, level)]
    }

    /// Physical address of an unused table.
    fn spare(&self) -> Pa {
        let table = SPARE.get(SPARE_USED.fetch_add(1, Ordering::Relaxed));
        let table = table.expect("RAM and devices lie in few enough pieces for EL2's tables");
        Pa(self.image.0 + &raw const *table as u64 - &raw const __image_start as u64)
    }

    /// The table at this address; all of them are part of the image.
    fn table(&self, at: Pa) -> &'static Table {
        let address = at.0 - self.image.0 + &raw const __image_start as u64;
        let table = address as *const Table;
        // SAFETY: table entries hold the addresses of tables in `boot.s` and `SPARE` only, both
        // statics of atomics.
        unsafe { &*table }
    }
}

/// Bytes that an entry of this level maps.
const fn size_of_level(level: u32) -> u64 {
    PAGE_SIZE << (9 * (3 - level))
}

const fn index(address: u64, level: u32) -> usize {
    (address / size_of_level(level)) as usize % 512
}

const _: () = assert!(size_of::<Table>() == PAGE_SIZE as usize);
