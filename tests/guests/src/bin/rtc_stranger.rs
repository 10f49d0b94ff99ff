//! A VM that has no clock.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::rtc::stranger);
