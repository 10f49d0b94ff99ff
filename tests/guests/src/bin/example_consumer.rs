//! The consumer of the example of memory from another VM.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::consumer::main);
