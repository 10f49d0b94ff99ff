//! A VM dies and starts again: two hundred lives.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::lives::many);
