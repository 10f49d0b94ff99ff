//! One cache policy for a parcel, whoever has it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::cache_policy::main);
