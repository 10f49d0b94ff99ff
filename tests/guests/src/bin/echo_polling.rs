//! A VM that answers what is typed for it, without interrupts.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::echo::polling);
