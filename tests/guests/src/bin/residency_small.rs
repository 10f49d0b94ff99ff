//! How long EL2 keeps a CPU: as little as there is.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::residency::small);
