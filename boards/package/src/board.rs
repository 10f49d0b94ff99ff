//! The board that a package is made for.

/// A board, by its number and its name. Its table of addresses says which they are (`boards`); the ones
/// here are those that host tools know more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    id: u32,
    name: &'static str,
}

impl Board {
    /// QEMU's `virt` machine with GICv3 or GICv2.
    pub const QEMU_VIRT: Self = Self::new(1, "qemu-virt");
    /// Raspberry Pi 4 Model B.
    pub const RPI4: Self = Self::new(2, "rpi4");
    /// NXP i.MX 8M Plus EVK.
    pub const IMX8MP_EVK: Self = Self::new(3, "imx8mp-evk");
    /// AMD Zynq UltraScale+ ZCU102.
    pub const ZCU102: Self = Self::new(4, "zcu102");

    /// A board with a number and a name that no other one has.
    ///
    /// # Panics
    ///
    /// If the name is longer than 16 bytes; as a constant, when compiling.
    pub const fn new(id: u32, name: &'static str) -> Self {
        assert!(name.len() <= 16, "a board's name has at most 16 bytes");
        Self { id, name }
    }

    /// The number.
    pub const fn id(self) -> u32 {
        self.id
    }

    /// The name as a user types it.
    pub const fn name(self) -> &'static str {
        self.name
    }
}
