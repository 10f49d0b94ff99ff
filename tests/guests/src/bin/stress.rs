//! VMs on all CPUs that share and lend in random order.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::stress::first, guests::stress::second);
