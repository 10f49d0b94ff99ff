//! VM C of the demo.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::demo::c::main);
