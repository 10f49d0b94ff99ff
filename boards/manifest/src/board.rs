//! What the checks must know of a board. The addresses are EL2's own, from the crate `boards`.

use std::ops::Range;

use hyp::board::Region;
use package::Board;

use crate::map::{Map, range};

/// EL2's code, tables and stacks at most: more the linker script refuses.
const HYPERVISOR: u64 = 8 << 20;

/// A board.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// RAM that EL2 hands out.
    pub(crate) ram: Vec<Range<u64>>,
    /// How many CPUs it has.
    pub(crate) cpus: u64,
    /// Versions of the interrupt controller that it can have; the first is the usual one.
    pub(crate) gics: &'static [u8],
    /// Registers and memory that no VM may have.
    kept: Vec<(Range<u64>, &'static str)>,
    /// The interrupt of EL2's own UART.
    pub(crate) uart_interrupt: Option<u32>,
    /// Where firmware loads the image, unless it is told otherwise.
    load_at: u64,
}

/// What is known of the board; `None` for one that this tool has no table of.
pub(crate) fn facts(board: Board) -> Option<Facts> {
    let table = [&boards::QEMU_VIRT].into_iter().find(|table| table.id == board)?;
    let registers = table.devices.iter().map(|region| (addresses(region), "EL2's registers"));
    Some(Facts {
        ram: table.ram.iter().map(addresses).collect(),
        cpus: table.cpus.len() as u64,
        gics: &[3, 2],
        kept: registers.collect(),
        uart_interrupt: Some(33),
        load_at: 0x4020_0000,
    })
}

fn addresses(region: &Region) -> Range<u64> {
    range(region.start.0, region.size)
}

impl Facts {
    /// The machine's address space, with what VMs must not have. `packed` is how much the package
    /// behind EL2's code will take.
    pub(crate) fn map(&self, packed: u64) -> Map {
        let mut map = Map::default();
        self.kept.iter().for_each(|(range, what)| map.keep(range.clone(), *what));
        map.keep(range(self.load_at, self.hypervisor(packed)), "EL2 and its package");
        map
    }

    /// Most that EL2 takes, with a package of that size.
    pub(crate) fn hypervisor(&self, packed: u64) -> u64 {
        (HYPERVISOR + packed).next_multiple_of(package::MEMORY_GRANULE)
    }

    /// The part of RAM that holds all of these addresses.
    pub(crate) fn bank(&self, of: &Range<u64>) -> Option<&Range<u64>> {
        self.ram.iter().find(|bank| bank.start <= of.start && of.end <= bank.end)
    }

    /// All RAM, in bytes.
    pub(crate) fn ram_size(&self) -> u64 {
        self.ram.iter().map(|bank| bank.end - bank.start).sum()
    }
}
