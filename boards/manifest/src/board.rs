//! What the checks must know of a board. The addresses are EL2's own, from the crate `boards`, and
//! firmware's, from the crate `flash`.

use std::ops::Range;

use flash::firmware::Firmware;
use hyp::board::{self, Gic, Region};
use package::Board;

use crate::map::{Map, meet, range};

/// EL2's code, tables and stacks at most: more the linker script refuses.
const HYPERVISOR: u64 = 8 << 20;
/// Bytes of a GICv2's virtual CPU interface.
const VIRTUAL_INTERFACE: u64 = 0x2000;

/// A board.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// RAM that every such board has.
    pub(crate) sure: Vec<Range<u64>>,
    /// RAM that such a board may have, together with that.
    pub(crate) ram: Vec<Range<u64>>,
    /// How many CPUs it has.
    pub(crate) cpus: u64,
    /// Versions of the interrupt controller that it can have; the first is the usual one.
    pub(crate) gics: Vec<u8>,
    /// Registers and memory that no VM may have.
    kept: Vec<(Range<u64>, &'static str)>,
    /// The interrupt of EL2's own UART.
    pub(crate) uart_interrupt: u32,
    /// Where firmware loads the image, unless it is told otherwise.
    load_at: u64,
}

/// What is known of the board; `None` for one that this tool has no table of.
pub(crate) fn facts(board: Board) -> Option<Facts> {
    let table = boards::ALL.iter().find(|table| table.id == board)?;
    let reserved: Vec<_> = table.reserved.iter().map(addresses).collect();
    let sure: Vec<_> = table.ram.iter().map(addresses).collect();
    let all = sure.iter().cloned().chain(table.more_ram.iter().map(addresses)).collect();
    let mut kept: Vec<_> =
        table.devices.iter().map(|region| (addresses(region), name(table, region))).collect();
    kept.extend(table.gics.iter().filter_map(virtual_interface));
    kept.extend(reserved.iter().map(|range| (range.clone(), "what firmware keeps")));
    Some(Facts {
        sure: without(joined(sure), &reserved),
        ram: without(joined(all), &reserved),
        cpus: table.cpus.len() as u64,
        gics: table.gics.iter().map(Gic::version).collect(),
        kept,
        uart_interrupt: table.uart.intid,
        load_at: Firmware::of(board).load,
    })
}

fn addresses(region: &Region) -> Range<u64> {
    range(region.start.0, region.size)
}

/// What EL2 has there.
fn name(table: &board::Board, region: &Region) -> &'static str {
    let gic = table.gics.iter().any(|gic| match *gic {
        Gic::V2 { distributor, cpu_interface, control, .. } => {
            [distributor, cpu_interface, control].iter().any(|at| region.contains(*at))
        }
        Gic::V3 { distributor, redistributors } => {
            [distributor, redistributors].iter().any(|at| region.contains(*at))
        }
    });
    match (gic, region.contains(table.uart.base)) {
        (true, _) => "the interrupt controller",
        (_, true) => "EL2's UART",
        _ => "what EL2 keeps",
    }
}

/// The part of a GICv2 that VMs share: it is mapped to each of them, at another address.
fn virtual_interface(gic: &Gic) -> Option<(Range<u64>, &'static str)> {
    match gic {
        Gic::V2 { virtual_interface: at, .. } => {
            Some((range(at.0, VIRTUAL_INTERFACE), "the interrupt controller"))
        }
        Gic::V3 { .. } => None,
    }
}

/// The ranges in order; neighbours become one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => all.push(range),
        }
    }
    all
}

/// What is left of the ranges without others.
pub(crate) fn without(mut ranges: Vec<Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    for other in others {
        let cut = |range: Range<u64>| {
            if !meet(&range, other) {
                return vec![range];
            }
            let parts =
                [range.start..other.start.max(range.start), other.end.min(range.end)..range.end];
            parts.into_iter().filter(|part| !part.is_empty()).collect()
        };
        ranges = ranges.into_iter().flat_map(cut).collect();
    }
    ranges
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
}

/// Bytes of all these ranges.
pub(crate) fn bytes(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_of_the_package_has_a_table() {
        for board in boards::ids() {
            let facts = facts(board).unwrap_or_else(|| panic!("{}", board.name()));
            let image = range(facts.load_at, HYPERVISOR);
            assert!(facts.bank(&image).is_some(), "{}: no RAM at {image:x?}", board.name());
            assert!(facts.cpus > 1 && !facts.gics.is_empty());
        }
    }

    #[test]
    fn what_el2_and_firmware_keep_is_no_ram_and_does_not_overlap() {
        for board in boards::ids() {
            let facts = facts(board).unwrap();
            for (at, (one, what)) in facts.kept.iter().enumerate() {
                let ram = facts.ram.iter().find(|bank| meet(bank, one));
                assert!(ram.is_none(), "{}: {what} is RAM: {ram:x?}", board.name());
                let other = facts.kept[..at].iter().find(|(other, _)| meet(one, other));
                assert!(other.is_none(), "{}: {what} overlaps {other:x?}", board.name());
            }
        }
    }

    #[test]
    fn neighbours_are_joined_and_reservations_are_cut_out() {
        let ram = joined(vec![0x4000..0x8000, 0..0x2000, 0x2000..0x4000, 0x9000..0xa000]);
        assert_eq!(ram, [0..0x8000, 0x9000..0xa000]);
        let left = without(ram, &[0x1000..0x2000, 0x8000..0x9800, 0x9800..0xa000]);
        assert_eq!(left, [0..0x1000, 0x2000..0x8000]);
    }
}
