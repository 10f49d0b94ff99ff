//! A VM that keeps its CPU busy.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::lives::spin);
