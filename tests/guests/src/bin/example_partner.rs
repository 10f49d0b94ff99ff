//! The borrower of the examples.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::partner::main);
