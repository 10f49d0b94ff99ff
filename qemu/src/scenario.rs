//! Boot configurations as tables: which VMs run which programs, on which machine, and what must
//! come of it.
//!
//! A table is written with struct literals over [`Scenario::USUAL`] and [`guest`], so that it
//! shows only what is special about the scenario.

pub mod bench;
pub mod boards;
pub mod checks;
pub mod console;
pub mod demo;
pub mod el2;
pub mod examples;
pub mod hostile;
pub mod mailbox;
pub mod manifest;
pub mod map;

use anyhow::{Context, Result};
use guests::layout::{self, Link};
use package::{Board, Channel, Device, EndOfLife, Heap, Interrupt, Name, Vm};

pub use crate::machine::Machine;
use crate::verdict::Expect;

/// A run of the system, complete.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The name to type.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// What runs at EL2.
    pub program: Program,
    /// How far behind the start of RAM the image is loaded; 0 is QEMU's own choice, 2 MiB.
    pub load_at: u64,
    /// What is done to the image.
    pub damage: Damage,
    /// Whether firmware leaves a device tree of ours for EL2 to read.
    pub firmware_tree: bool,
    /// The VMs in the order of their indices.
    pub guests: &'static [Guest],
    /// Memory that they share from boot on.
    pub channels: &'static [Channel],
    /// Memory that they allocate from.
    pub heaps: &'static [Heap],
    /// Registers that VMs drive themselves.
    pub devices: &'static [Device],
    /// Interrupts of those devices.
    pub interrupts: &'static [Interrupt],
    /// The machine.
    pub machine: Machine,
    /// Whether EL2 may use semihosting. Off for programs that could use it to leave the machine.
    pub semihosting: bool,
    /// Whether the machine's memory stays in a file when the run is over.
    pub keeps_memory: bool,
    /// How long it may take before it counts as hanging.
    pub seconds: u64,
    /// What must come of it.
    pub expect: Expect,
    /// Texts that the log must contain, in this order.
    pub log: &'static [&'static str],
    /// What is typed on EL2's UART, each when a text has appeared in the log.
    pub types: &'static [(&'static str, &'static [u8])],
}

impl Scenario {
    /// The image that ships, on two Cortex-A72, expected to pass within a minute.
    pub const USUAL: Self = Self {
        name: "",
        about: "",
        program: Program::Hypervisor,
        load_at: 0,
        damage: Damage::None,
        firmware_tree: false,
        guests: &[],
        channels: &[],
        heaps: &[],
        devices: &[],
        interrupts: &[],
        machine: Machine::TESTS,
        semihosting: true,
        keeps_memory: false,
        seconds: 120,
        expect: Expect::Pass,
        log: &[],
        types: &[],
    };

    /// The name of the program that runs at EL2.
    pub fn el2_program(&self) -> String {
        match (self.program, self.machine.board) {
            (Program::Hypervisor, board) => board.name().to_owned(),
            (Program::El2(name), Board::QEMU_VIRT) => name.to_owned(),
            (Program::El2(name), board) => format!("{name}-{}", board.name()),
        }
    }

    /// The names of the VMs.
    pub fn vm_names(&self) -> impl Iterator<Item = &'static str> {
        self.guests.iter().map(|guest| guest.vm.name.as_str())
    }
}

/// What runs at EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The hypervisor for the machine's board.
    Hypervisor,
    /// A test program that takes its place.
    El2(&'static str),
}

/// A VM and the name of its program.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// The binary of the crate `guests`.
    pub program: &'static str,
    /// The VM; image, load address and entry come from the program.
    pub vm: Vm,
}

/// What is done to an image before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// Its end is missing.
    Cut,
    /// A byte of the first VM's program is another.
    Changed,
    /// Its package was made for another build of the hypervisor.
    OtherBuild,
    /// Its package was made for another board.
    OtherBoard,
    /// The VMs' device trees describe a GICv2.
    OtherGic,
}

/// A VM as the programs of the crate `guests` expect it: one vCPU on CPU 0 unless changed with
/// struct update syntax. When it ends, its peers go on using what it shares with them.
pub const fn guest(name: &str, vmid: u16) -> Vm {
    let end_of_life = EndOfLife::Keep;
    Vm { name: Name::new(name), vmid, memory: layout::MEMORY, end_of_life, ..Vm::SMALL }
}

/// The page that the VMs with these indices share from boot on.
pub const fn link(owner: u16, peer: u16, at: Link) -> Channel {
    let label = 0;
    let pages = layout::LINK_PAGES;
    Channel { owner, peer, label, owner_ipa: at.owner, peer_ipa: at.peer, pages }
}

/// Scenarios that only the benchmark runs, because they take a minute.
pub const LONG: &[Scenario] = &[bench::RESIDENCY[2]];

/// Every scenario of the tests.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [&demo::DEMO, &map::MAP, &bench::BENCH]
        .into_iter()
        .chain(&bench::RESIDENCY[..2])
        .chain(examples::ALL)
        .chain(hostile::ALL)
        .chain(checks::ALL)
        .chain(mailbox::ALL)
        .chain(console::ALL)
        .chain(el2::ALL)
        .chain(boards::ALL)
}

/// The scenario of this name.
pub fn named(name: &str) -> Result<&'static Scenario> {
    all().chain(LONG).chain(console::BY_HAND).find(|scenario| scenario.name == name).with_context(
        || {
            let known = all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
            format!("no scenario is called {name:?}; there are {known}")
        },
    )
}

/// The examples of how a VM uses the resource manager, by the names to type behind `--example`.
pub fn examples() -> impl Iterator<Item = (&'static str, &'static Scenario)> {
    all().filter_map(|scenario| Some((scenario.name.strip_prefix(EXAMPLE)?, scenario)))
}

/// What the names of the scenarios that are examples begin with.
const EXAMPLE: &str = "example-";

/// The example of this name, with or without what all their names begin with.
pub fn example(name: &str) -> Result<&'static Scenario> {
    let short = name.strip_prefix(EXAMPLE).unwrap_or(name);
    let found = examples().find(|(known, _)| *known == short);
    found.map(|(_, scenario)| scenario).with_context(|| {
        let known = examples().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        format!("no example is called {name:?}; there are {known}")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = named("dmeo").unwrap_err().to_string();
        assert!(error.contains("\"dmeo\"") && error.contains("demo, map, bench"), "{error}");
    }

    #[test]
    fn every_example_is_found_by_its_name_and_an_unknown_one_answered_with_the_known_ones() {
        assert_eq!(example("membuf").unwrap().name, "example-membuf");
        assert_eq!(example("example-direct").unwrap().name, "example-direct");
        assert_eq!(examples().count(), examples::ALL.len());
        for other in ["demo", "", "no-such"] {
            let error = example(other).unwrap_err().to_string();
            assert!(error.contains("direct, polling, blocking, membuf"), "{error}");
        }
    }

    #[test]
    fn all_tables_can_be_packed() {
        for scenario in all().chain(LONG).chain(console::BY_HAND) {
            let small = |guest: &Guest| Vm { image: 0, ..guest.vm };
            let writer = package::Writer {
                hlt_allowed: scenario.semihosting,
                vms: scenario.guests.iter().map(small).collect(),
                channels: scenario.channels.to_vec(),
                heaps: scenario.heaps.to_vec(),
                images: vec![vec![0; 4]],
                ..package::Writer::new(scenario.machine.board, scenario.machine.cpus, [0; 16])
            };
            assert!(writer.write().is_ok(), "{}: {:?}", scenario.name, writer.write());
        }
    }
}
