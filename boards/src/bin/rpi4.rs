//! The image for the Raspberry Pi 4.
#![no_std]
#![no_main]

hyp::entry!(boards::RPI4, hyp::run);
