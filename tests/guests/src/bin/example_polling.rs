//! The example of queues that are polled.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::polling::main);
