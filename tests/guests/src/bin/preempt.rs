//! A VM that never waits, beside another one.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::preempt::main);
