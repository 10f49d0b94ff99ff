//! Stories that VMs tell by packets.
#![no_main]

use fuzz::{Way, story};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| story(Way::Packets, bytes));
