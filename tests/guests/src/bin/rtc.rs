//! A VM that drives a clock.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::rtc::main);
