//! Three VMs that share, lend and donate memory and then are looked at.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::map::main);
