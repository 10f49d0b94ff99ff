//! A VM that claims success where only EL2 may.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::forge::main);
