//! Canaries for the host to search for: a VM whose traces are always wiped.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::canaries::cautious);
