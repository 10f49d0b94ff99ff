//! A VM that uses its virtual GIC and timer.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::interrupts::main);
