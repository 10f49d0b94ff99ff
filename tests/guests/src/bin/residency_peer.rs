//! How long EL2 keeps a CPU: the borrower.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::residency::borrower);
