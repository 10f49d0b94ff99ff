//! Looks at all VMs and prints what it sees, for the tool that draws it.
//!
//! Cast: this program in a VM with the role `inspect`, linked to the first VM, which says when everything is
//! as it is to be seen, and is told when it has been. Each record is one line of words behind `MAP`; numbers
//! but counts are hexadecimal. The last one says how many came before it, because a console may drop lines.
//!
//! ```text
//! MAP vm <vmid> <state> <roles> <frames> <name>
//! MAP count <vmid> <counter> <value>
//! MAP run <vmid> <ipa> <pages> <pa> <state> <rights> <policy> <handle>
//! MAP parcel <handle> <owner> <transfer> <phase> <pages> <label> <name>
//! MAP extent <handle> <ipa> <pages> <pa>
//! MAP holder <handle> <vmid> <stage> <rights>
//! MAP end <records>
//! ```
//! A name is the rest of its line and may be empty.

use core::fmt;

use rm_client::hvc::Hvc;
use rm_client::{
    Counter, Handle, HolderStage, ListFlags, MapEntry, PageState, ParcelEntry, ParcelPhase, Policy,
    Rights, Session, Transfer, VmEntry, VmState, Vmid,
};

use crate::channel::Channel;
use crate::cpu;
use crate::demo::granted;
use crate::layout::LINK_AD;
use crate::life;

/// The word by which the first VM says that nothing changes any more, and hears that it may.
pub(crate) const STILL: u64 = 0x571;
/// VMs and parcels that are looked at.
const MOST: usize = 64;
/// Lines that are printed in a second: fewer than a console lets through.
const RATE: u64 = 240;

/// The program.
pub fn main() {
    let first = Channel::peer(LINK_AD);
    first.expect(STILL);
    let mut inspector = Inspector { session: life::session(), records: 0 };
    inspector.tell();
    first.say(STILL);
}

struct Inspector {
    session: Session<Hvc>,
    records: u64,
}

/// Prints a record, no faster than a console takes it.
fn print(records: &mut u64, record: fmt::Arguments<'_>) {
    let start = cpu::now();
    println!("MAP {record}");
    *records += 1;
    while !cpu::passed(start, cpu::frequency() / RATE) {
        cpu::relax();
    }
}

/// A list of what fits; more is an error, not a part of the picture.
struct Few<T> {
    items: [Option<T>; MOST],
    count: usize,
}

impl<T: Copy> Few<T> {
    const fn new() -> Self {
        Self { items: [None; MOST], count: 0 }
    }

    fn push(&mut self, item: T) {
        assert!(self.count < MOST, "there are more than {MOST}");
        self.items[self.count] = Some(item);
        self.count += 1;
    }

    fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.items.iter().flatten().copied()
    }
}

impl Inspector {
    fn tell(&mut self) {
        let (mut vms, mut parcels) = (Few::new(), Few::new());
        granted("listing VMs", self.session.list_vms(|entry| vms.push(entry)));
        let listed = self.session.list_parcels(ListFlags::ALL, |entry| parcels.push(*entry));
        granted("listing parcels", listed);
        vms.iter().for_each(|entry| self.tell_vm(&entry));
        parcels.iter().for_each(|entry| self.tell_parcel(&entry));
        println!("MAP end {}", self.records);
    }

    fn tell_vm(&mut self, vm: &VmEntry) {
        let Self { session, records } = self;
        let vmid = vm.vmid;
        let (state, name) = (state(vm.state), text(vm.name()));
        let (roles, frames) = (vm.roles.0, vm.frames);
        print(records, format_args!("vm {:x} {state} {roles:x} {frames} {name}", vmid.0));
        let mut counted = Few::new();
        let counts = granted("asking for counters", session.counters(vmid));
        counts.iter().for_each(|count| counted.push(count));
        for count in counted.iter() {
            let known = Counter::ALL.iter().find(|counter| **counter as u16 == count.counter);
            let Some(counter) = known else { continue };
            let (counter, value) = (name_of(*counter), count.value);
            print(records, format_args!("count {:x} {counter} {value}", vmid.0));
        }
        granted(
            "mapping",
            session.map(vmid, |run| print(records, format_args!("{}", Run(vmid, run)))),
        );
    }

    fn tell_parcel(&mut self, parcel: &ParcelEntry) {
        let Self { session, records } = self;
        let Handle(handle) = parcel.handle;
        print(
            records,
            format_args!(
                "parcel {handle:x} {:x} {} {} {} {:x} {}",
                parcel.owner.0,
                kind(parcel.transfer),
                phase(parcel.phase),
                parcel.pages,
                parcel.label,
                text(parcel.name.bytes())
            ),
        );
        let extents = session.map_parcel(parcel.owner, parcel.handle, |run| {
            let MapEntry { ipa, pages, pa, .. } = run;
            print(records, format_args!("extent {handle:x} {ipa:x} {pages} {pa:x}"));
        });
        granted("mapping a parcel", extents);
        for holder in granted("asking for holders", session.holders(parcel.handle)) {
            let (Vmid(vmid), stage) = (holder.vmid, stage(holder.stage));
            let rights = Letters(holder.rights);
            print(records, format_args!("holder {handle:x} {vmid:x} {stage} {rights}"));
        }
    }
}

/// A run of a VM, as its record says it.
struct Run(Vmid, MapEntry);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Vmid(vmid), MapEntry { ipa, pages, pa, .. }) = self;
        let (rights, Handle(handle)) = (Letters(self.1.rights), self.1.parcel);
        let state = match self.1.state {
            PageState::Owned => "owned",
            PageState::Claimed => "claimed",
            PageState::Shared => "shared",
            PageState::Borrowed => "borrowed",
            PageState::Device => "device",
            PageState::Lent => "lent",
            PageState::Held => "held",
        };
        let policy = match self.1.policy {
            Policy::Cached => "cached",
            Policy::Uncached => "uncached",
            Policy::Device => "device",
        };
        write!(f, "run {vmid:x} {ipa:x} {pages} {pa:x} {state} {rights} {policy} {handle:x}")
    }
}

/// Rights as people write them.
struct Letters(Rights);

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Rights::R, "r"), (Rights::W, "w"), (Rights::X, "x")] {
            f.write_str(if self.0.contains(right) { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// A name that is text; else it is left out.
fn text(name: &[u8]) -> &str {
    core::str::from_utf8(name).unwrap_or("")
}

const fn state(state: VmState) -> &'static str {
    match state {
        VmState::Init => "init",
        VmState::Ready => "ready",
        VmState::Running => "running",
        VmState::Exited => "exited",
        VmState::Resetting => "resetting",
        VmState::Reset => "reset",
    }
}

const fn kind(transfer: Transfer) -> &'static str {
    match transfer {
        Transfer::Donate => "donate",
        Transfer::Lend => "lend",
        Transfer::Share => "share",
    }
}

const fn phase(phase: ParcelPhase) -> &'static str {
    match phase {
        ParcelPhase::Initial => "initial",
        ParcelPhase::Offered => "offered",
        ParcelPhase::Closing => "closing",
        ParcelPhase::Changing => "changing",
    }
}

const fn stage(stage: HolderStage) -> &'static str {
    match stage {
        HolderStage::Assigned => "assigned",
        HolderStage::Mapped => "mapped",
        HolderStage::Revoking => "revoking",
        HolderStage::Changing => "changing",
        HolderStage::Attached => "attached",
        HolderStage::DeviceMapped => "dma",
    }
}

const fn name_of(counter: Counter) -> &'static str {
    match counter {
        Counter::Calls => "calls",
        Counter::Refusals => "refusals",
        Counter::Invalidations => "invalidations",
        Counter::PagesZeroed => "zeroed",
        Counter::NoticesReplaced => "replaced",
        Counter::NoticesDropped => "dropped",
        Counter::Frames => "frames",
        Counter::Tables => "tables",
        Counter::Mergeable => "mergeable",
        Counter::Parcels => "parcels",
        Counter::DeviceFaults => "device-faults",
        Counter::PagesCleaned => "cleaned",
    }
}
