//! The hardware's walk agrees with ours, on this board.
#![no_std]
#![no_main]

hyp::entry!(boards::ZCU102, el2_tests::tables::main);
