//! The first bytes of a package, in the place of those that it has.

use package::seal;

/// The package with these first bytes, sealed if there is anything to seal.
pub(crate) fn with_head(whole: &[u8], head: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[..head.len()].copy_from_slice(head);
    let _ = seal(&mut bytes);
    bytes
}
