//! Boards: addresses and their sources, one constant each.
#![no_std]

mod imx8mp_evk;
mod qemu_virt;
mod rpi4;
mod zcu102;

pub use imx8mp_evk::IMX8MP_EVK;
pub use qemu_virt::QEMU_VIRT;
pub use rpi4::RPI4;
pub use zcu102::ZCU102;

/// All of them, as packages know them.
pub fn ids() -> impl Iterator<Item = package::Board> {
    ALL.iter().map(|board| board.id)
}

/// The one of this name.
pub fn named(name: &str) -> Option<package::Board> {
    ids().find(|board| board.name() == name)
}

/// All of them.
pub const ALL: &[&hyp::board::Board] = &[&QEMU_VIRT, &RPI4, &IMX8MP_EVK, &ZCU102];
