//! A borrower that is restarted for using what was taken from it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::second_life::clinging);
