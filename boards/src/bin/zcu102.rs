//! The image for the ZCU102.
#![no_std]
#![no_main]

hyp::entry!(boards::ZCU102, hyp::run);
