//! What a VM learns of parcels that it has nothing to do with: nothing.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::secrets::main);
