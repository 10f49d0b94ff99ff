//! The VM that makes a buffer of grants.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::grant_buffers::user);
