//! The bytes that guests and the resource manager exchange.
#![no_std]
#![forbid(unsafe_code)]

/// The name of a VM on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vmid(pub u16);
