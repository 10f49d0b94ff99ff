//! The image for QEMU's `virt` machine.
#![no_std]
#![no_main]

use boards::QEMU_VIRT;
use hyp::{Exit, boot::Boot};

hyp::entry!(QEMU_VIRT, main);

fn main(boot: Boot) -> ! {
    boot.start_cpus(idle);
    defmt::info!("all CPUs run");
    hyp::exit(Exit::Pass, "booted")
}

fn idle() -> ! {
    loop {
        hyp::log::drain();
        hyp::relax();
    }
}
