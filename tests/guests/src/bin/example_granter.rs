//! The granter of the example of grants.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::granter::main);
