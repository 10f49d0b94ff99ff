//! A configuration in the making: what the manifest says, and what the tool has worked out so far.
//!
//! Every check adds to it and goes on after a mistake, so a VM may lack anything that depends on what
//! was wrong. Only a draft without problems becomes a [`crate::Manifest`].

use std::ops::Range;

use package::Board;

use crate::board::{self, Facts};
use crate::config::{self, Config};
use crate::map::Map;
use crate::program::Program;
use crate::report::{At, Problems};

/// The whole configuration.
pub(crate) struct Draft<'a> {
    pub(crate) config: &'a Config<'a>,
    pub(crate) problems: &'a Problems,
    pub(crate) board: Option<At<Board>>,
    pub(crate) facts: Option<Facts>,
    /// Version of the interrupt controller.
    pub(crate) gic: u8,
    pub(crate) vms: Vec<Vm<'a>>,
    pub(crate) channels: Vec<package::Channel>,
    pub(crate) heaps: Vec<package::Heap>,
    /// The machine's addresses.
    pub(crate) machine: Map,
}

/// A VM.
pub(crate) struct Vm<'a> {
    pub(crate) said: &'a config::Vm<'a>,
    /// The CPU of each vCPU.
    pub(crate) cpus: Vec<u8>,
    /// Its memory, as it sees it.
    pub(crate) memory: Option<Range<u64>>,
    pub(crate) program: Option<Program>,
    pub(crate) load: u64,
    pub(crate) entry: u64,
    pub(crate) initrd: Option<Blob>,
    pub(crate) tree: Option<Blob>,
    pub(crate) devices: Vec<Device<'a>>,
    /// Its ends of channels, in the order of its doorbells.
    pub(crate) ends: Vec<End>,
    /// Its address space.
    pub(crate) space: Map,
    /// What is where in its memory.
    pub(crate) contents: Map,
}

/// Bytes that lie in a VM's memory from the start.
pub(crate) struct Blob {
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A device of a VM.
pub(crate) struct Device<'a> {
    pub(crate) said: &'a config::Device<'a>,
    pub(crate) pa: u64,
    pub(crate) ipa: u64,
    pub(crate) size: u64,
    pub(crate) interrupts: Vec<Interrupt>,
}

/// An interrupt of a device.
pub(crate) struct Interrupt {
    pub(crate) physical: u32,
    pub(crate) virtual_: u32,
    pub(crate) edge: bool,
}

/// One end of a channel.
pub(crate) struct End {
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) label: u32,
    /// The VM at the other end.
    pub(crate) other: usize,
    /// Its doorbell, if there are enough.
    pub(crate) doorbell: Option<u8>,
}

impl<'a> Draft<'a> {
    /// A draft of which nothing is checked yet.
    pub(crate) fn new(config: &'a Config<'a>, problems: &'a Problems) -> Self {
        let board = config.board.clone();
        let facts = board.as_ref().and_then(|board| board::facts(board.value));
        let usual = facts.as_ref().and_then(|facts| facts.gics.first().copied()).unwrap_or(3);
        let gic = config.gic.as_ref().map_or(usual, |gic| gic.value);
        let vms = config.vms.iter().map(Vm::new).collect();
        let (channels, heaps, machine) = (Vec::new(), Vec::new(), Map::default());
        Self { config, problems, board, facts, gic, vms, channels, heaps, machine }
    }
}

impl<'a> Vm<'a> {
    fn new(said: &'a config::Vm<'a>) -> Self {
        Self {
            said,
            cpus: Vec::new(),
            memory: None,
            program: None,
            load: 0,
            entry: 0,
            initrd: None,
            tree: None,
            devices: Vec::new(),
            ends: Vec::new(),
            space: Map::default(),
            contents: Map::default(),
        }
    }

    /// Bits of its address space: the usual 64 GiB, or more if it has something beyond.
    pub(crate) fn ipa_bits(&self) -> u8 {
        let end = self.space.claims().iter().map(|claim| claim.range.end).max().unwrap_or(0);
        (USUAL_IPA_BITS..IPA_BITS).find(|bits| end <= 1 << bits).unwrap_or(IPA_BITS)
    }
}

/// Bits of a VM's address space, unless it needs more.
const USUAL_IPA_BITS: u8 = 36;
/// The most bits of one.
const IPA_BITS: u8 = rm::stage2::MAX_IPA_PAGES.ilog2() as u8 + 12;
/// The end of the largest address space.
pub(crate) const IPA_END: u64 = 1 << IPA_BITS;
