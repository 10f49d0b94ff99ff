//! A panic on a CPU that did not boot: it is reported with the names of the functions it came from.
#![no_std]
#![no_main]

use boards::QEMU_VIRT;
use hyp::boot::Boot;

hyp::entry!(QEMU_VIRT, main);

fn main(boot: Boot) -> ! {
    boot.start_cpus(second_cpu);
    loop {
        hyp::log::drain();
        hyp::relax();
    }
}

#[inline(never)]
fn second_cpu() -> ! {
    deep_inside(core::hint::black_box(41))
}

#[inline(never)]
fn deep_inside(number: u32) -> ! {
    panic!("the answer is {}", number + 1)
}
