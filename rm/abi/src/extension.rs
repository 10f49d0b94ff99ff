//! Calls and notifications that Gunyah does not have.
//!
//! They have ids of their own, so a client that does not know them never meets one: an existing reply
//! is never changed.

/// Message id of extension call 0, which is discovery; call `n` is `CALLS + n`.
pub const CALLS: u32 = 0x5e00_0000;
/// Message id of extension notification 0.
pub const NOTICES: u32 = 0x5e10_0000;
