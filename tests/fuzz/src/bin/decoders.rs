//! Payloads, and every decoder of them.
#![no_main]

use fuzz::decoders;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| decoders(bytes));
