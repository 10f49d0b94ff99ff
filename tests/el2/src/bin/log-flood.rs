//! Two CPUs log more than fits: every message arrives whole or is counted as dropped.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use boards::QEMU_VIRT;
use hyp::boot::Boot;
use hyp::{Exit, cpu, exit};

hyp::entry!(QEMU_VIRT, main);

const MESSAGES: u32 = 3000;

static DONE: AtomicUsize = AtomicUsize::new(0);

fn main(boot: Boot) -> ! {
    boot.start_cpus(second_cpu);
    flood();
    while DONE.load(Ordering::Acquire) < 2 || hyp::log::drain() {
        hyp::log::drain();
    }
    defmt::info!("both CPUs are done");
    exit(Exit::Pass, "the log took what it could")
}

fn second_cpu() -> ! {
    flood();
    loop {
        hyp::relax();
    }
}

/// Logs faster than it drains.
fn flood() {
    let cpu = cpu::current().index;
    for number in 0..MESSAGES {
        defmt::info!("message {=u32} of CPU {=usize}", number, cpu);
        if number % 16 == 0 {
            hyp::log::drain();
        }
    }
    while hyp::log::pending() {
        hyp::log::drain();
    }
    DONE.fetch_add(1, Ordering::Release);
}
