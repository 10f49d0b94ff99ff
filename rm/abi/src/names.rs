//! The numbers by which VMs and parcels are called.

/// The name of a VM on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vmid(pub u16);

impl Vmid {
    /// The primary VM.
    pub const PRIMARY: Self = Self(3);
    /// The resource manager itself.
    pub const RESOURCE_MANAGER: Self = Self(0xff);
}

/// The name of a parcel on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Handle(pub u32);

impl Handle {
    /// The value that never names a parcel. Zero never does either: some clients take it for "none".
    pub const INVALID: Self = Self(0xffff_ffff);
}
