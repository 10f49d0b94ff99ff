//! Canaries for the host to search for: the VM whose pages they are.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::canaries::owner);
