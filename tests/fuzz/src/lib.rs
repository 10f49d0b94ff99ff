//! What the fuzz targets do with bytes. Each does what a test of the same crate does with its corpus, by the same
//! code; `cargo run -- fuzz` builds them so that libFuzzer sees what they reach.

#[path = "../../../rm/abi/tests/decode/mod.rs"]
mod decode;
#[path = "../../../boards/package/tests/head/mod.rs"]
mod head;
#[path = "../../../boards/package/tests/common/mod.rs"]
mod package_tests;
#[path = "../../../rm/tests/stage/mod.rs"]
mod stage;

use std::sync::OnceLock;

use head::with_head;
use package_tests::{read_all, two_vms};
pub use stage::bytes::Way;

/// A payload, to every decoder of `rm-abi`.
pub fn decoders(bytes: &[u8]) {
    decode::decode(bytes);
}

/// A story: a state that a parcel is in, and then what VMs send.
pub fn story(way: Way, bytes: &[u8]) {
    stage::bytes::story(way, bytes);
}

/// The first bytes of a package, which is sealed again, or the whole of one that is too short.
pub fn headers(bytes: &[u8]) {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| two_vms().write().expect("it can be written"));
    let _ = read_all(bytes);
    if bytes.len() <= whole.len() {
        let _ = read_all(&with_head(whole, bytes));
    }
}
