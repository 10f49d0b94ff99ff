//! An owner that dies and starts again.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::second_life::mortal_owner);
