//! A VM that sends everything malformed that it can think of.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::hostile::main);
