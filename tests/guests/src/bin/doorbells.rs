//! Two VMs that ring each other's doorbells.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::doorbells::main);
