//! The VM that replays the captured exchanges.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::replay::primary);
