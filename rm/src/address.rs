//! Addresses, page counts and the names of VMs.
//!
//! Guest and machine addresses are different types, so that a walk is the only way from one to the
//! other.

use core::fmt;

pub use rm_abi::Vmid;

/// Bytes of a page: the 4 KiB granule, the unit of every right.
pub const PAGE_SIZE: u64 = 4096;
/// Pages that a level-2 block of the 4 KiB granule maps (2 MiB).
pub const PAGES_PER_2M: u64 = 512;
/// Pages that a level-1 block of the 4 KiB granule maps (1 GiB).
pub const PAGES_PER_1G: u64 = 512 * 512;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub struct $name(pub u64);

        impl $name {
            /// Whether the address is a multiple of `bytes`, which is a power of two.
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The address `pages` pages further. Callers have checked the range before.
            #[must_use]
            pub const fn add_pages(self, pages: u64) -> Self {
                Self(self.0 + pages * PAGE_SIZE)
            }

            /// The number of the page that holds the address.
            pub const fn page(self) -> u64 {
                self.0 / PAGE_SIZE
            }

            /// The first address of page number `page`.
            pub const fn of_page(page: u64) -> Self {
                Self(page * PAGE_SIZE)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address!(
    /// A machine (physical) address.
    Pa
);
address!(
    /// A guest physical address (Arm: intermediate physical address).
    Ipa
);

/// The hardware's tag of a VM's translations: the VMID field of VTTBR_EL2. Eight bits on
/// Cortex-A53, A57 and A72; not the wire's [`Vmid`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TlbTag(pub u16);

/// Index of a VM in the manager's tables, given out in the order of the boot configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmIndex(pub u8);
