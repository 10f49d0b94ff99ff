//! A page leaves a block that two VMs have, and both keep what is around it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::trim::main);
