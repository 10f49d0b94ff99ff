//! The hardware's walk agrees with ours, on this board.
#![no_std]
#![no_main]

hyp::entry!(boards::IMX8MP_EVK, el2_tests::tables::main);
