//! The image for the i.MX 8M Plus EVK.
#![no_std]
#![no_main]

hyp::entry!(boards::IMX8MP_EVK, hyp::run);
