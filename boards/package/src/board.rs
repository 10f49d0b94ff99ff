//! The boards that a package can be made for.

/// A board, by its number in the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Board {
    /// QEMU's `virt` machine with GICv3 or GICv2.
    QemuVirt = 1,
    /// Raspberry Pi 4 Model B.
    Rpi4 = 2,
    /// NXP i.MX 8M Plus EVK.
    Imx8mpEvk = 3,
    /// AMD Zynq UltraScale+ ZCU102.
    Zcu102 = 4,
}

impl Board {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::QemuVirt, Self::Rpi4, Self::Imx8mpEvk, Self::Zcu102];

    /// The name as a user types it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QemuVirt => "qemu-virt",
            Self::Rpi4 => "rpi4",
            Self::Imx8mpEvk => "imx8mp-evk",
            Self::Zcu102 => "zcu102",
        }
    }

    /// The board of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|board| board.name() == name)
    }

    /// The board of this number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&board| board as u32 == id)
    }
}
