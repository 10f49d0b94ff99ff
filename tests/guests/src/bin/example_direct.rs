//! The example of the direct call.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::direct::main);
