//! The VM that measures: it borrows the pages.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::bench::b::main);
