//! Headers and section tables of packages.
#![no_main]

use fuzz::headers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| headers(bytes));
