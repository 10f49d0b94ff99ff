//! RAM is dealt out once, zeroed, in blocks that are aligned to their size.
#![no_std]
#![no_main]

use core::slice;

use boards::QEMU_VIRT;
use hyp::board::Region;
use hyp::boot::Boot;
use hyp::frames::{BLOCK, Blocks};
use hyp::stage1::direct;
use hyp::{Exit, exit};
use rm::address::Pa;

hyp::entry!(QEMU_VIRT, main);

const WORDS: usize = 3000;
const FRAMES: usize = 40;

fn main(mut boot: Boot) -> ! {
    let numbers = boot.memory.slice_of(WORDS, |index| index as u32);
    let (frames, _) = boot.memory.frames(FRAMES);
    let mut blocks = boot.memory.into_blocks(&[]);
    let free = blocks.free();
    let taken = take_and_soil(&mut blocks);
    let again = take_and_soil(&mut blocks);
    let whole = frames.iter().all(|frame| (0..512).all(|entry| frame.read(entry) == 0));
    let in_order = numbers.iter().enumerate().all(|(index, &number)| index as u32 == number);
    if !taken || !again || !whole || !in_order {
        exit(Exit::Fail, "RAM was not zero, not aligned, or dealt out twice");
    }
    if blocks.free() != free {
        exit(Exit::Fail, "RAM was lost");
    }
    exit(Exit::Pass, "RAM is dealt out as promised")
}

/// Takes 22 MiB in blocks, fills them, gives them back.
fn take_and_soil(blocks: &mut Blocks) -> bool {
    let mut taken = heapless::Vec::<Region, 8>::new();
    let mut fine = blocks.take_all(11 * BLOCK, |block| taken.push(block).expect("few blocks"));
    fine &= taken.iter().map(|block| block.size).sum::<u64>() == 11 * BLOCK;
    for block in &taken {
        fine &= block.start.is_aligned(block.size);
        fine &= words(*block).iter().all(|&word| word == 0);
        words(*block).fill(u64::MAX);
    }
    for block in taken {
        // SAFETY: taken above with this size, used by nobody but this function.
        unsafe { blocks.put(block.start, block.size) };
    }
    fine
}

fn words(block: Region) -> &'static mut [u64] {
    let first: Pa = block.start;
    // SAFETY: a block that `take_all` has dealt out is mapped RAM and its taker's alone.
    unsafe { slice::from_raw_parts_mut(direct(first).cast::<u64>(), block.size as usize / 8) }
}
