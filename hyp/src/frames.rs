//! The RAM behind the package: first dealt out for good, then in blocks.
//!
//! Storage of the resource manager is cut off once, at boot, while this is a [`BootMemory`]. What is
//! left becomes [`Blocks`], the memory of VMs. Everything comes zeroed, to the point of coherency.

use core::alloc::Layout;
use core::fmt;
use core::mem::{align_of, size_of};
use core::ptr::NonNull;
use core::slice;

use buddy_system_allocator::Heap;
use rm::address::{PAGE_SIZE, Pa};
use rm::machine::Frame;

use crate::board::Region;
use crate::cache;
use crate::stage1::{direct, physical};

/// Smallest block: what a level-2 descriptor maps.
pub const BLOCK: u64 = 2 << 20;
/// Largest block is 2^(ORDERS - 1) bytes.
const ORDERS: usize = 40;

/// RAM that nobody uses yet.
#[derive(Debug)]
pub struct BootMemory {
    ram: &'static [Region],
    /// From the image to the last byte that is dealt out.
    used: Region,
    /// End of the region that holds the image.
    end: Pa,
}

impl BootMemory {
    /// `used` is image and package, the only RAM in use.
    pub(crate) fn new(ram: &'static [Region], used: Region) -> Self {
        let home = ram.iter().find(|ram| ram.contains(used.start));
        let end = home.expect("the image lies in RAM").end();
        Self { ram, used, end }
    }

    /// `count` values of `T` that live as long as EL2, each made by `make` from its index.
    ///
    /// Panics when the RAM behind the image is used up: the boot configuration is too large.
    pub fn slice_of<T>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> &'static mut [T] {
        let layout = Layout::array::<T>(count).expect("a slice fits the address space");
        let first: NonNull<T> = direct(self.cut(layout)).cast::<T>().into_non_null();
        for index in 0..count {
            // SAFETY: `cut` returned room for `count` values.
            let place = unsafe { first.add(index) };
            // SAFETY: the room is mapped and nobody else's.
            unsafe { place.write(make(index)) };
        }
        // SAFETY: all values were just written, and the room is never dealt out again.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), count) }
    }

    /// `count` frames of zeros and the physical address of the first.
    pub fn frames(&mut self, count: usize) -> (&'static [Frame], Pa) {
        let layout = Layout::array::<Frame>(count).expect("a pool fits the address space");
        let first = self.cut(layout);
        // SAFETY: `cut` returned zeroed room, zeros are a frame's valid value, and the room is
        // never dealt out again.
        let frames = unsafe { slice::from_raw_parts(direct(first).cast::<Frame>(), count) };
        (frames, first)
    }

    /// Everything that is left, in blocks, but for these ranges, which [`Blocks::take_kept`] gives out.
    ///
    /// Panics when one of them is not all RAM that is left.
    pub fn into_blocks(self, keep: &[Region]) -> Blocks {
        let mut free: heapless::Vec<Region, MAX_FREE> = heapless::Vec::new();
        for ram in self.ram {
            put(&mut free, *ram);
        }
        cut_out(&mut free, &Region { start: self.used.start, size: self.used.size });
        for kept in keep {
            let is_free = free.iter().any(|free| free.covers(kept));
            assert!(is_free, "{:#x} to {:#x} is not all free RAM", kept.start.0, kept.end().0);
            cut_out(&mut free, kept);
        }
        let mut blocks = Blocks { heap: Heap::empty(), free: 0 };
        free.iter().for_each(|free| blocks.add(free.start, free.end()));
        blocks
    }

    /// Zeroed room behind what is used.
    fn cut(&mut self, layout: Layout) -> Pa {
        // Whole pages, so that zeroing one piece never touches the piece before.
        let align = PAGE_SIZE.max(layout.align() as u64);
        let start = self.used.end().0.next_multiple_of(align);
        let end = start + (layout.size() as u64).next_multiple_of(PAGE_SIZE);
        assert!(end <= self.end.0, "the RAM behind the image is used up");
        cache::zero(Region { start: Pa(start), size: end - start });
        self.used.size = end - self.used.start.0;
        Pa(start)
    }
}

/// RAM for VMs, in blocks of 2 MiB times a power of two, aligned to their size.
pub struct Blocks {
    heap: Heap<ORDERS>,
    free: u64,
}

// SAFETY: the heap's lists run through the free memory itself, which is as much this value's own as
// its fields are.
unsafe impl Send for Blocks {}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({:#x} bytes free)", self.free)
    }
}

impl Blocks {
    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Takes one zeroed block of `size` bytes, 2 MiB times a power of two.
    pub fn take(&mut self, size: u64) -> Option<Pa> {
        let block = self.heap.alloc(Self::layout(size)).ok()?;
        self.free -= size;
        let start = physical(block.as_ptr());
        cache::zero(Region { start, size });
        Some(start)
    }

    /// Takes `size` bytes, a multiple of 2 MiB, in as few blocks as there are; `each` is told of
    /// them, from the first byte on. False, and nothing taken after the last call of `each`, when
    /// there is no more.
    pub fn take_all(&mut self, size: u64, mut each: impl FnMut(Region)) -> bool {
        let mut left = size;
        let mut largest = u64::MAX;
        while left > 0 {
            let mut block = (1 << left.ilog2()).min(largest);
            let start = loop {
                if block < BLOCK {
                    return false;
                }
                match self.take(block) {
                    Some(start) => break start,
                    None => block /= 2,
                }
            };
            each(Region { start, size: block });
            left -= block;
            largest = block;
        }
        true
    }

    /// Gives out a range that [`BootMemory::into_blocks`] kept, zeroed, in blocks of a power of two aligned
    /// to their size; `each` is told of them.
    pub fn take_kept(&mut self, kept: Region, mut each: impl FnMut(Region)) -> bool {
        cache::zero(kept);
        let mut at = kept.start.0;
        while at < kept.end().0 {
            let fits = 1 << (kept.end().0 - at).ilog2();
            let aligned = if at == 0 { u64::MAX } else { 1 << at.trailing_zeros() };
            let size = aligned.min(fits);
            each(Region::new(at, size));
            at += size;
        }
        true
    }

    /// Gives a block back that [`take`](Self::take) returned. Its content does not matter.
    ///
    /// # Safety
    /// The block was taken with this very size, is given back once, and no CPU, TLB or device of a
    /// VM can reach it any more.
    pub unsafe fn put(&mut self, start: Pa, size: u64) {
        let block = direct(start).into_non_null();
        // SAFETY: passed on to the caller.
        unsafe { self.heap.dealloc(block, Self::layout(size)) };
        self.free += size;
    }

    fn layout(size: u64) -> Layout {
        assert!(size >= BLOCK && size.is_power_of_two(), "{size:#x} is not the size of a block");
        let size = size as usize;
        Layout::from_size_align(size, size).expect("a power of two is an alignment")
    }

    /// Adds the whole blocks of a free range.
    fn add(&mut self, start: Pa, end: Pa) {
        let (start, end) = (start.0.next_multiple_of(BLOCK), end.0 / BLOCK * BLOCK);
        if start < end {
            let (from, to) = (direct(Pa(start)) as usize, direct(Pa(end)) as usize);
            // SAFETY: the range is RAM, mapped for good, and in no other use.
            unsafe { self.heap.add_to_heap(from, to) };
            self.free += end - start;
        }
    }
}

/// Most pieces of free RAM: banks, and what is cut out of them.
const MAX_FREE: usize = 64;

fn put(free: &mut heapless::Vec<Region, MAX_FREE>, region: Region) {
    if region.size > 0 {
        assert!(free.push(region).is_ok(), "the RAM is in more than {MAX_FREE} pieces");
    }
}

/// Takes a range out of what is free.
fn cut_out(free: &mut heapless::Vec<Region, MAX_FREE>, taken: &Region) {
    for old in core::mem::take(free) {
        for part in old.without(taken) {
            put(free, part);
        }
    }
}

/// Pointers into the direct map are never null.
trait IntoNonNull<T> {
    fn into_non_null(self) -> NonNull<T>;
}

impl<T> IntoNonNull<T> for *mut T {
    fn into_non_null(self) -> NonNull<T> {
        NonNull::new(self).expect("the direct map does not start at 0")
    }
}

const _: () = assert!(size_of::<Frame>() == align_of::<Frame>());
