//! Canaries for the host to search for: a VM that takes them, and ends with some.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::canaries::borrower);
