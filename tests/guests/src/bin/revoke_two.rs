//! A borrower with two vCPUs that does not want to give memory back.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::revoke::main_of_two, guests::revoke::second);
