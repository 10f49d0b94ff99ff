//! A VM that does everything at random.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::wild::first, guests::wild::second);
