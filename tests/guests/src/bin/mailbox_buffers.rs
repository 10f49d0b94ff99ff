//! Message buffers that are no good, or that change.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::queues::buffers::main, guests::queues::buffers::rewrite);
