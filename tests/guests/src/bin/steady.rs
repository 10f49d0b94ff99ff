//! VMs that share memory while another does its worst.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::steady::main);
