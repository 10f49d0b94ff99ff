//! The hardware's walk agrees with ours, on this board.
#![no_std]
#![no_main]

hyp::entry!(boards::QEMU_VIRT, el2_tests::tables::main);
