//! How long EL2 keeps a CPU: as much as the machine has room for.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::residency::large);
