//! An owner whose borrower is restarted.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::second_life::taker);
