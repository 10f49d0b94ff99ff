//! A function that calls itself for ever runs into the page below the stack, which is reported.
#![no_std]
#![no_main]

use boards::QEMU_VIRT;
use core::hint::black_box;
use hyp::boot::Boot;
use hyp::{Exit, exit};

hyp::entry!(QEMU_VIRT, main);

fn main(_: Boot) -> ! {
    recursion(black_box(0));
    exit(Exit::Fail, "the stack has no end")
}

#[inline(never)]
fn recursion(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == u64::MAX { 0 } else { recursion(depth + 1) + frame[0] }
}
