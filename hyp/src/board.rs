//! What EL2 must be told about a board; everything else it finds out itself.

use rm::address::Pa;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address, page aligned.
    pub start: Pa,
    /// Length in bytes, a multiple of the page size.
    pub size: u64,
}

impl Region {
    /// The range of `size` bytes from `start` on.
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start: Pa(start), size }
    }

    /// The first address behind the range.
    pub const fn end(&self) -> Pa {
        Pa(self.start.0 + self.size)
    }

    /// Whether all of another range lies in this one.
    pub const fn covers(&self, other: &Self) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }

    /// What is left of the range without another one: what lies before it, and what lies behind it.
    pub fn without(&self, other: &Self) -> [Self; 2] {
        let (start, end) = (self.start.0, self.end().0);
        let before = other.start.0.clamp(start, end);
        let behind = other.end().0.clamp(before, end);
        [Self::new(start, before - start), Self::new(behind, end - behind)]
    }

    /// Whether the address lies in the range.
    pub const fn contains(&self, at: Pa) -> bool {
        self.start.0 <= at.0 && at.0 < self.end().0
    }
}

/// The PL011 that is EL2's own.
#[derive(Clone, Copy, Debug)]
pub struct Uart {
    /// Its registers.
    pub base: Pa,
    /// Its clock in Hz.
    pub clock: u32,
    /// Bits a second.
    pub baud: u32,
    /// INTID of its interrupt.
    pub intid: u32,
}

/// The GICv3.
#[derive(Clone, Copy, Debug)]
pub struct Gic {
    /// The distributor's registers.
    pub distributor: Pa,
    /// The redistributors, in the order of [`Board::cpus`], 128 KiB each.
    pub redistributors: Pa,
}

/// A board: one constant each in the `boards` crate.
#[derive(Debug)]
pub struct Board {
    /// Its name as a user types it.
    pub name: &'static str,
    /// Its name in the package.
    pub id: package::Board,
    /// RAM that is EL2's to hand out, without what firmware keeps.
    pub ram: &'static [Region],
    /// Register ranges that EL2 itself uses. No other device is mapped.
    pub devices: &'static [Region],
    /// EL2's console.
    pub uart: Uart,
    /// The interrupt controller.
    pub gic: Gic,
    /// MPIDR_EL1 affinities of the CPUs; the first one boots. A CPU's index is its place here.
    pub cpus: &'static [u64],
}
