//! A VM whose two vCPUs interrupt each other.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::kicks::first, guests::kicks::second);
