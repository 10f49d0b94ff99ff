//! A VM with two vCPUs, one of which moves pages under the other.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::smp::first, guests::smp::second);
