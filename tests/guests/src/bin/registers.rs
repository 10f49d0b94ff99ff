//! A VM whose registers are its own.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::registers::main);
