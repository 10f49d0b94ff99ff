//! The VM whose buffer becomes grants.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::grant_buffers::owner);
