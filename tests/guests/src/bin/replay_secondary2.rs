//! The second VM that does what the replay tells it.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::replay::secondary2);
