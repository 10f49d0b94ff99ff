//! Who owns, lends, borrows and maps which memory: a picture of a running system.
//!
//! ```text
//! records  lines of the inspector's console -> Map, or why they are none
//! layout   the machine's memory as one axis: rows, folded where nobody has anything
//! table    the map on a terminal           svg   the map as a picture
//! ```
//! The guest `inspector` prints records; its module says what they look like.

pub mod layout;
pub mod records;
pub mod svg;
pub mod table;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The VMs, in the order of the configuration.
    pub vms: Vec<Vm>,
    /// The parcels, in the order of the list.
    pub parcels: Vec<Parcel>,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name in calls.
    pub vmid: u16,
    /// Its name for people.
    pub name: String,
    /// Where it is in its life.
    pub state: String,
    /// It has the role `inspect`.
    pub inspects: bool,
    /// It has the role `manage`.
    pub manages: bool,
    /// Its devices reach memory that nothing confines them to.
    pub trusted_dma: bool,
    /// Frames of the manager that it uses.
    pub frames: u64,
    /// What is counted of it, by name.
    pub counts: Vec<(String, u64)>,
    /// What it has, by address.
    pub runs: Vec<Run>,
}

/// What pages are to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its own.
    Owned,
    /// Its own, while a call prepares.
    Claimed,
    /// Its own, and others may map them.
    Shared,
    /// Another VM's.
    Borrowed,
    /// Registers.
    Device,
    /// Its own, out of its reach.
    Lent,
    /// About to be filled.
    Held,
}

/// How pages are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Write-back.
    Cached,
    /// Normal non-cacheable.
    Uncached,
    /// Device.
    Device,
}

/// Pages that are alike and contiguous, in the VM and in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the VM has them.
    pub ipa: u64,
    /// How many.
    pub pages: u64,
    /// Where the machine has them.
    pub pa: u64,
    /// What they are.
    pub state: State,
    /// `rwx`, with a dash for what is missing.
    pub rights: String,
    /// How they are cached.
    pub policy: Policy,
    /// The parcel of lent pages.
    pub parcel: u32,
}

/// How a parcel was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The owner goes on using it.
    Share,
    /// The owner gets it back.
    Lend,
    /// It becomes another VM's.
    Donate,
}

impl Kind {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Lend => "lend",
            Self::Donate => "donate",
        }
    }
}

/// A parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its name in calls.
    pub handle: u32,
    /// Whose it is.
    pub owner: u16,
    /// How it was made.
    pub kind: Kind,
    /// Where it is in its life.
    pub phase: String,
    /// How long it is.
    pub pages: u64,
    /// Its label.
    pub label: u32,
    /// Its name for people; may be empty.
    pub name: String,
    /// Its runs, in the owner's order.
    pub extents: Vec<Extent>,
    /// Who holds it.
    pub holders: Vec<Holder>,
}

/// A run of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the owner has it.
    pub ipa: u64,
    /// How many pages.
    pub pages: u64,
    /// Where the machine has it.
    pub pa: u64,
}

/// A VM that holds a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub vmid: u16,
    /// How far it is.
    pub stage: String,
    /// What the access list grants it.
    pub rights: String,
}

impl Run {
    /// The machine addresses, and what is behind them.
    pub const fn span(&self) -> (u64, u64) {
        (self.pa, self.pa + self.pages * PAGE)
    }

    /// Whether it is memory, not emulated registers.
    pub fn is_memory(&self) -> bool {
        self.state != State::Device
    }
}

impl Extent {
    /// The machine addresses, and what is behind them.
    pub const fn span(&self) -> (u64, u64) {
        (self.pa, self.pa + self.pages * PAGE)
    }

    /// Whether all of a run lies in it.
    pub const fn covers(&self, run: &Run) -> bool {
        let ((start, end), (first, behind)) = (self.span(), run.span());
        start <= first && behind <= end
    }
}

impl Parcel {
    /// Its name, or what there is instead.
    pub fn title(&self) -> String {
        if self.name.is_empty() { "(no name)".into() } else { self.name.clone() }
    }

    /// Whether the VM holds it.
    pub fn is_held_by(&self, vmid: u16) -> bool {
        self.holders.iter().any(|holder| holder.vmid == vmid)
    }
}

impl Map {
    /// The VM of this VMID.
    pub fn vm(&self, vmid: u16) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.vmid == vmid)
    }

    /// A VM's name, or its number.
    pub fn name(&self, vmid: u16) -> String {
        match self.vm(vmid) {
            Some(vm) if !vm.name.is_empty() => vm.name.clone(),
            _ => format!("VM {vmid:#x}"),
        }
    }

    /// The parcel that a run is in.
    pub fn parcel_of(&self, run: &Run) -> Option<&Parcel> {
        let covers = |parcel: &&Parcel| parcel.extents.iter().any(|extent| extent.covers(run));
        self.parcels.iter().find(covers)
    }

    /// The first address at which a VM has pages of a parcel that it holds.
    pub fn place(&self, parcel: &Parcel, vmid: u16) -> Option<u64> {
        let runs = self.vm(vmid)?.runs.iter();
        let inside = |run: &&Run| {
            run.state == State::Borrowed && parcel.extents.iter().any(|extent| extent.covers(run))
        };
        runs.filter(inside).map(|run| run.ipa).min()
    }

    /// How a parcel's pages are cached by those that have them.
    pub fn policy(&self, parcel: &Parcel) -> Policy {
        let runs = self.vms.iter().flat_map(|vm| &vm.runs);
        let inside = |run: &&Run| parcel.extents.iter().any(|extent| extent.covers(run));
        let special = runs.filter(inside).map(|run| run.policy).find(|&it| it != Policy::Cached);
        special.unwrap_or(Policy::Cached)
    }
}

/// A number of pages as bytes, in the largest unit that leaves at most one digit behind the point.
pub fn size(pages: u64) -> String {
    let bytes = pages * PAGE;
    let unit = |size: u64, name: &str| {
        let tenths = bytes * 10 / size;
        match tenths % 10 {
            0 => format!("{} {name}", tenths / 10),
            tenth => format!("{}.{tenth} {name}", tenths / 10),
        }
    };
    match bytes {
        0..0x10_0000 => unit(0x400, "KiB"),
        0x10_0000..0x4000_0000 => unit(0x10_0000, "MiB"),
        _ => unit(0x4000_0000, "GiB"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::map::records::read;

    /// Two VMs: one shares a page uncached and lends two runs that the other has; one parcel waits.
    pub(crate) const RECORDS: &[&str] = &[
        "MAP vm 10 running 4 12 camera",
        "MAP count 10 calls 5",
        "MAP run 10 9000000 1 0 device --- cached 0",
        "MAP run 10 40000000 16 140000000 owned rwx cached 0",
        "MAP run 10 40010000 1 140010000 shared rw- uncached 0",
        "MAP run 10 40011000 2 140011000 lent --- cached 2005",
        "MAP run 10 40013000 5 140013000 owned rwx cached 0",
        "MAP run 10 40018000 3 140018000 lent --- cached 2005",
        "MAP run 10 4001b000 1 14001b000 lent --- cached 6",
        "MAP vm 11 running 1 7 <eye> & \"co\"",
        "MAP run 11 40000000 512 180000000 owned rwx cached 0",
        "MAP run 11 80000000 1 140010000 borrowed r-- uncached 0",
        "MAP run 11 80001000 2 140011000 borrowed rw- cached 0",
        "MAP run 11 80003000 3 140018000 borrowed rw- cached 0",
        "MAP parcel 2004 10 share offered 1 7 ring",
        "MAP extent 2004 40010000 1 140010000",
        "MAP holder 2004 11 mapped r--",
        "MAP parcel 2005 10 lend offered 5 0 video <frames>",
        "MAP extent 2005 40011000 2 140011000",
        "MAP extent 2005 40018000 3 140018000",
        "MAP holder 2005 11 mapped rw-",
        "MAP parcel 6 10 donate offered 1 ff ",
        "MAP extent 6 4001b000 1 14001b000",
        "MAP end 23",
    ];

    pub(crate) fn map() -> Map {
        read(RECORDS).unwrap()
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [1, 3, 255, 256, 384, 512, 1 << 18].map(size);
        assert_eq!(sizes, ["4 KiB", "12 KiB", "1020 KiB", "1 MiB", "1.5 MiB", "2 MiB", "1 GiB"]);
    }

    #[test]
    fn a_holder_s_address_and_policy_are_those_of_its_runs() {
        let map = map();
        let [ring, frames, waiting] = &map.parcels[..] else { panic!("three parcels") };
        assert_eq!(map.place(ring, 0x11), Some(0x8000_0000));
        assert_eq!(map.place(frames, 0x11), Some(0x8000_1000));
        assert_eq!(map.place(waiting, 0x11), None);
        assert_eq!((map.policy(ring), map.policy(frames)), (Policy::Uncached, Policy::Cached));
    }
}
