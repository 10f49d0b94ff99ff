//! How long EL2 keeps a CPU: a full list, and some parcels.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::residency::medium);
