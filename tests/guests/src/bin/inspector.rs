//! Looks at all VMs and prints what it sees.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::inspector::main);
