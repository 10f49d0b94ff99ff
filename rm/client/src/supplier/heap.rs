//! A named heap: a range of the supplier's own memory, of which blocks are given away.

use super::message::{HeapName, Refusal};
use crate::parcel::PAGE_SIZE;

/// Granules that a heap may have.
pub const MAX_GRANULES: u64 = 1024;

const WORD: u64 = u64::BITS as u64;

/// Memory of the supplier's, given away in blocks of whole granules: the first that is free and large
/// enough.
#[derive(Clone, Debug)]
pub struct Heap {
    name: HeapName,
    base: u64,
    granule: u64,
    granules: u64,
    used: [u64; (MAX_GRANULES / WORD) as usize],
}

/// A part of a heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Where it begins.
    pub ipa: u64,
    /// Its bytes: whole granules.
    pub size: u64,
}

impl Heap {
    /// The memory of `size` bytes from `base` on. Sizes that are asked for are rounded up to `granule`:
    /// 4 KiB, or 2 MiB for consumers that can add no less to their memory. Refused if anything is not a
    /// multiple of the granule, or the granule not a power of two of at least a page.
    pub fn new(name: &str, base: u64, size: u64, granule: u64) -> Result<Self, Refusal> {
        let name = HeapName::new(name.as_bytes())?;
        let whole = granule.is_power_of_two()
            && granule >= PAGE_SIZE
            && (base | size).is_multiple_of(granule)
            && base.checked_add(size).is_some();
        if !whole || size == 0 || size / granule > MAX_GRANULES {
            return Err(Refusal::Invalid);
        }
        let used = [0; (MAX_GRANULES / WORD) as usize];
        Ok(Self { name, base, granule, granules: size / granule, used })
    }

    /// Its name.
    pub const fn name(&self) -> &HeapName {
        &self.name
    }

    /// Bytes that are given away in one piece at the least.
    pub const fn granule(&self) -> u64 {
        self.granule
    }

    /// Bytes that are not given away.
    pub fn free_bytes(&self) -> u64 {
        let used: u64 = self.used.iter().map(|word| u64::from(word.count_ones())).sum();
        (self.granules - used) * self.granule
    }

    /// Takes a block of at least `size` bytes.
    pub fn take(&mut self, size: u64) -> Result<Block, Refusal> {
        let size = size.checked_next_multiple_of(self.granule).ok_or(Refusal::Invalid)?;
        let wanted = size / self.granule;
        let mut run = 0;
        for granule in 0..self.granules {
            run = if self.is_used(granule) { 0 } else { run + 1 };
            if run == wanted && wanted > 0 {
                let first = granule + 1 - wanted;
                (first..=granule).for_each(|granule| self.set(granule, true));
                return Ok(Block { ipa: self.base + first * self.granule, size });
            }
        }
        Err(if wanted == 0 { Refusal::Invalid } else { Refusal::NoMemory })
    }

    /// Puts a block back that was taken from this heap.
    pub(crate) fn put_back(&mut self, block: Block) {
        let first = (block.ipa - self.base) / self.granule;
        for granule in first..first + block.size / self.granule {
            debug_assert!(self.is_used(granule), "a block is put back once");
            self.set(granule, false);
        }
    }

    fn is_used(&self, granule: u64) -> bool {
        self.used[(granule / WORD) as usize] >> (granule % WORD) & 1 == 1
    }

    fn set(&mut self, granule: u64, used: bool) {
        let bit = 1 << (granule % WORD);
        let word = &mut self.used[(granule / WORD) as usize];
        *word = if used { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;
    const MIB: u64 = 0x10_0000;

    #[test]
    fn five_mib_are_six_in_blocks_of_two() {
        let mut heap = Heap::new("large", BASE, 16 * MIB, 2 * MIB).unwrap();
        assert_eq!(heap.take(5 * MIB), Ok(Block { ipa: BASE, size: 6 * MIB }));
        let mut heap = Heap::new("small", BASE, 4 * MIB, 4096).unwrap();
        assert_eq!(heap.take(MIB + 1).map(|block| block.size), Ok(MIB + 4096));
    }

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        let mut heap = Heap::new("h", BASE, 100 * 4096, 4096).unwrap();
        let blocks: [_; 50] = core::array::from_fn(|_| heap.take(2 * 4096).unwrap());
        assert!(blocks.windows(2).all(|pair| pair[0].ipa + pair[0].size == pair[1].ipa));
        assert_eq!(heap.take(1), Err(Refusal::NoMemory));
        heap.put_back(blocks[10]);
        assert_eq!(heap.take(3 * 4096), Err(Refusal::NoMemory));
        heap.put_back(blocks[11]);
        assert_eq!(heap.take(3 * 4096).map(|block| block.ipa), Ok(blocks[10].ipa));
        assert_eq!(heap.free_bytes(), 4096);
    }

    #[test]
    fn sizes_near_the_end_of_the_address_space_are_refused() {
        let mut heap = Heap::new("h", BASE, 4096, 4096).unwrap();
        assert_eq!(heap.take(u64::MAX), Err(Refusal::Invalid));
        assert_eq!(heap.take(u64::MAX - 4095), Err(Refusal::NoMemory));
        assert_eq!(heap.take(0), Err(Refusal::Invalid));
        assert!(Heap::new("h", 0u64.wrapping_sub(4096), 8192, 4096).is_err());
        assert!(Heap::new("h", BASE, 4096 * 1025, 4096).is_err());
        assert!(Heap::new("h", BASE + 4096, 8192, 8192).is_err());
        assert!(Heap::new("", BASE, 4096, 4096).is_err());
    }
}
