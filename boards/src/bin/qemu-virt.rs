//! The image for QEMU's `virt` machine.
#![no_std]
#![no_main]

hyp::entry!(boards::QEMU_VIRT, hyp::run);
