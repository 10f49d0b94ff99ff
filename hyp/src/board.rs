//! What EL2 must be told about a board; everything else it finds out itself.

use rm::address::Pa;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// What the range and another one have in common.
    pub fn common(&self, other: &Self) -> Self {
        let start = self.start.0.max(other.start.0);
        let end = self.end().0.min(other.end().0);
        Self::new(start, end.saturating_sub(start))
    }

    /// Whether the address lies in the range.
    pub const fn contains(&self, at: Pa) -> bool {
        self.start.0 <= at.0 && at.0 < self.end().0
    }
}

/// Which UART there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm's PL011. EL2 sets its line up: clock in Hz, bits a second.
    Pl011 {
        /// Its clock in Hz.
        clock: u32,
        /// Bits a second.
        baud: u32,
    },
    /// That of NXP's i.MX. EL2 keeps the line as firmware has set it up.
    Imx,
    /// Cadence's, of AMD's Zynq. EL2 keeps the line as firmware has set it up.
    Cadence,
}

/// The UART that is EL2's own.
#[derive(Clone, Copy, Debug)]
pub struct Uart {
    /// What it is.
    pub kind: UartKind,
    /// Its registers.
    pub base: Pa,
    /// INTID of its interrupt.
    pub intid: u32,
}

/// An interrupt controller.
#[derive(Clone, Copy, Debug)]
pub enum Gic {
    /// GICv2 with virtualisation extensions, a GIC-400.
    V2 {
        /// The distributor's registers.
        distributor: Pa,
        /// The CPU interface's, two pages.
        cpu_interface: Pa,
        /// The virtual interface control registers, one page, of the CPU that asks.
        control: Pa,
        /// The virtual CPU interface, two pages, which VMs use themselves.
        virtual_interface: Pa,
    },
    /// GICv3.
    V3 {
        /// The distributor's registers.
        distributor: Pa,
        /// The redistributors, in the order of [`Board::cpus`], 128 KiB each.
        redistributors: Pa,
    },
}

impl Gic {
    /// 2 or 3.
    pub const fn version(&self) -> u8 {
        match self {
            Self::V2 { .. } => 2,
            Self::V3 { .. } => 3,
        }
    }
}

/// How the CPUs behind the first are started, and the machine is switched off.
#[derive(Clone, Copy, Debug)]
pub enum Power {
    /// By firmware, with PSCI calls by SMC.
    Psci,
    /// The CPUs wait until their word of a table holds an address; there is no firmware to call, and a
    /// watchdog ends the run.
    SpinTable {
        /// The word of each CPU, in the order of [`Board::cpus`].
        release: &'static [Pa],
        /// The registers of BCM2711's power management.
        watchdog: Pa,
    },
}

/// A board: one constant each in the `boards` crate.
#[derive(Debug)]
pub struct Board {
    /// Its number in packages, which also names it.
    pub id: package::Board,
    /// RAM that every such board has and nobody else uses. It holds the image.
    pub ram: &'static [Region],
    /// Where boards of this kind may have more RAM, if the firmware's device tree says so.
    pub more_ram: &'static [Region],
    /// What firmware keeps for itself, whatever its device tree says.
    pub reserved: &'static [Region],
    /// Register ranges that EL2 itself uses. No other device is mapped.
    pub devices: &'static [Region],
    /// EL2's console.
    pub uart: Uart,
    /// The interrupt controllers that it may have, at most one of each version. ID_AA64PFR0_EL1.GIC says
    /// which one this is.
    pub gics: &'static [Gic],
    /// How CPUs are started.
    pub power: Power,
    /// MPIDR_EL1 affinities of the CPUs; the first one boots. A CPU's index is its place here.
    pub cpus: &'static [u64],
}

impl Board {
    /// The name as a user types it.
    pub const fn name(&self) -> &'static str {
        self.id.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Region = Region::new(0x1000, 0x9000);

    #[test]
    fn what_is_cut_out_of_a_range_leaves_two() {
        let cut = |start, size| {
            ALL.without(&Region::new(start, size)).map(|part| (part.start.0, part.size))
        };
        assert_eq!(cut(0x3000, 0x2000), [(0x1000, 0x2000), (0x5000, 0x5000)]);
        assert_eq!(cut(0, 0x2000), [(0x1000, 0), (0x2000, 0x8000)]);
        assert_eq!(cut(0x9000, 0x8000), [(0x1000, 0x8000), (0xa000, 0)]);
        assert_eq!(cut(0, 0x1_0000), [(0x1000, 0), (0xa000, 0)]);
        assert_eq!(cut(0x2_0000, 0x1000), [(0x1000, 0x9000), (0xa000, 0)]);
        assert_eq!(cut(0, 0x800), [(0x1000, 0), (0x1000, 0x9000)]);
    }

    #[test]
    fn two_ranges_have_in_common_what_lies_in_both() {
        let common = |start, size| ALL.common(&Region::new(start, size)).size;
        assert_eq!(common(0x3000, 0x2000), 0x2000);
        assert_eq!(common(0, 0x2000), 0x1000);
        assert_eq!(common(0xa000, 0x2000), 0);
    }
}
