//! A VM that sleeps until its message queues interrupt it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::queues::interrupts::main);
