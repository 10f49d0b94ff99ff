//! An owner takes memory back from a VM that does not want to give it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::revoke::main);
