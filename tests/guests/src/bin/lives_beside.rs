//! A VM dies and starts again on a busy CPU: four lives.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::lives::beside_a_spinner);
