//! The example of queues that interrupt.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::blocking::main);
