//! Who has what: VMs ask about their parcels, and one asks about all.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::ask::main);
