//! The hardware's walk agrees with ours: after random calls, every page of every VM translates, for
//! loads and for stores, to the machine address that the manager names and to the memory type of its
//! parcel, or faults where the manager names none. A guest whose own tables bypass the caches gets past
//! write-back only where the CPU does not have FEAT_S2FWB.
//!
//! AT answers for loads and stores. Where the manager forbids a store or a fetch on a page that may be
//! read, a guest tries it; fetches that are allowed, or have no page, are tried here and there.

use crate::calls;
use crate::guest::{Guest, Stop};
use crate::random::Random;
use crate::view::{DEVICE, Found, UNCACHED, View, WRITE_BACK};
use crate::world::{GIANT, PROGRAM, RAM, RAM_PAGES, VMS, WINDOW, WINDOW_PAGES, build, vmid, vms};
use defmt::Debug2Format;
use heapless::Vec;
use hyp::boot::Boot;
use hyp::machine::El2;
use hyp::{Exit, exit};
use rm::address::{Ipa, PAGE_SIZE, PAGES_PER_1G, PAGES_PER_2M, Pa, VmIndex};
use rm::machine::{Machine, Scope};
use rm::stage2::Access;
use rm_abi::extension::Policy;
use rm_abi::{AcceptFlags, AclEntry, Attribute, Handle, Rights, SglEntry, Transfer};

type Manager = rm::manager::Manager<'static, El2>;

const SEED: u64 = 0x5eed_0e12;
const BATCHES: usize = 25;
const CALLS: usize = 24;
const GRANTS: [Rights; 4] = [Rights::R, Rights::RW, Rights::RX, Rights::RWX];

/// What is compared: first page, pages, and the distance between pages looked at. Calls touch the
/// block of 1 GiB only at its start and its end.
const LOOKED_AT: [(Ipa, u64, u64); 5] = [
    (RAM, RAM_PAGES + 8, 1),
    (GIANT, EDGE, 1),
    (GIANT, PAGES_PER_1G, PAGES_PER_2M / 2),
    (GIANT.add_pages(PAGES_PER_1G - EDGE), EDGE + 8, 1),
    (WINDOW, WINDOW_PAGES + 8, 1),
];
const EDGE: u64 = 2 * PAGES_PER_2M;

/// The main function of an image for any board.
pub fn main(boot: Boot) -> ! {
    hyp::configure(hyp::machine::features());
    let manager = build(boot.memory, |machine| machine);
    let mut test = Test::new(&manager);
    test.compare();
    for _ in 0..BATCHES {
        for _ in 0..CALLS {
            test.call();
        }
        test.compare();
    }
    test.take_all_back();
    test.compare();
    defmt::info!("calls that changed something: {}", test.done);
    if !test.done.enough() {
        exit(Exit::Fail, "the calls were too few or too equal to prove anything");
    }
    match manager.audit() {
        Ok(_) => exit(Exit::Pass, "the hardware sees what the manager says"),
        Err(_) => exit(Exit::Fail, "conservation"),
    }
}

/// How many calls of each kind succeeded.
#[derive(Default, defmt::Format)]
struct Done {
    shares: usize,
    lends: usize,
    donations: usize,
    uncached: usize,
    policies: usize,
    accepts: usize,
    releases: usize,
    reclaims: usize,
    merges: usize,
    pages: u64,
    /// Stores that the hardware had to deny.
    denied: usize,
    fetches: usize,
}

impl Done {
    fn enough(&self) -> bool {
        [self.shares, self.lends, self.accepts, self.releases, self.reclaims, self.merges]
            .iter()
            .all(|&calls| calls >= 20)
            && self.donations > 0
            && self.uncached > 10
            && self.policies > 10
            && self.denied > 100
            && self.fetches > 100
    }
}

struct Parcel {
    handle: Handle,
    owner: VmIndex,
    transfer: Transfer,
    pages: u64,
    /// Real memory, so that it may be zeroed.
    is_real: bool,
    /// Start and end of its pages in the machine.
    places: Vec<(Pa, u64), 4>,
    is_uncached: bool,
    offered: [bool; VMS],
    held: [bool; VMS],
}

struct Test<'a> {
    manager: &'a Manager,
    random: Random,
    parcels: Vec<Parcel, 64>,
    done: Done,
}

impl<'a> Test<'a> {
    fn new(manager: &'a Manager) -> Self {
        let random = Random::new(SEED);
        Self { manager, random, parcels: Vec::new(), done: Done::default() }
    }

    fn call(&mut self) {
        match self.random.below(11) {
            0..4 => self.create(),
            4..7 => self.accept(),
            7 => self.release(),
            8 => self.reclaim(),
            9 => self.set_policy(),
            _ => self.merge(),
        }
    }

    fn create(&mut self) {
        let owner = VmIndex(self.random.below(VMS as u64) as u8);
        let is_real = owner != VmIndex(0) || !self.random.once_in(3);
        let transfer = match self.random.below(20) {
            0 => Transfer::Donate,
            1..10 => Transfer::Lend,
            _ => Transfer::Share,
        };
        let mut acl: Vec<AclEntry, VMS> = Vec::new();
        let mut offered = [false; VMS];
        for vm in vms() {
            let only_one = transfer == Transfer::Donate && offered.contains(&true);
            let wanted = if vm == owner {
                transfer == Transfer::Share
            } else {
                !only_one && (acl.is_empty() || !self.random.once_in(3))
            };
            if wanted {
                offered[usize::from(vm.0)] = vm != owner;
                let is_donation = transfer == Transfer::Donate;
                let rights = if is_donation { Rights::RWX } else { self.random.one_of(&GRANTS) };
                let _ = acl.push(AclEntry { vmid: vmid(vm), rights });
            }
        }
        let sgl = self.ranges(is_real);
        let is_uncached = transfer != Transfer::Donate && self.random.once_in(5);
        let attribute = if is_uncached { Attribute::Uncached } else { Attribute::Normal };
        let places = self.places(owner, &sgl);
        let created = calls::create(self.manager, owner, transfer, &acl, &sgl, attribute);
        let Ok(handle) = created else { return };
        match transfer {
            Transfer::Share => self.done.shares += 1,
            Transfer::Lend => self.done.lends += 1,
            Transfer::Donate => self.done.donations += 1,
        }
        let pages = sgl.iter().map(|entry| entry.size / PAGE_SIZE).sum();
        self.done.pages += pages;
        let held = [false; VMS];
        self.done.uncached += usize::from(is_uncached);
        let _ = self.parcels.push(Parcel {
            handle,
            owner,
            transfer,
            pages,
            is_real,
            places,
            is_uncached,
            offered,
            held,
        });
    }

    /// Where ranges lie in the machine. Each region of a VM's memory is one piece there.
    fn places(&self, vm: VmIndex, sgl: &[SglEntry]) -> Vec<(Pa, u64), 4> {
        let place = |entry: &SglEntry| {
            let start = self.manager.allows(vm, Ipa(entry.ipa), Access::Read)?;
            Some((start, start.0 + entry.size))
        };
        sgl.iter().filter_map(place).collect()
    }

    fn attributes(&self, pa: Pa) -> u8 {
        let holds = |&(start, end): &(Pa, u64)| (start.0..end).contains(&pa.0);
        let mut uncached = self.parcels.iter().filter(|parcel| parcel.is_uncached);
        let is_uncached = uncached.any(|parcel| parcel.places.iter().any(holds));
        if is_uncached { UNCACHED } else { WRITE_BACK }
    }

    /// Some pages of a VM: single ones, runs, whole blocks.
    fn ranges(&mut self, is_real: bool) -> Vec<SglEntry, 4> {
        let mut sgl = Vec::new();
        for _ in 0..=self.random.below(4) {
            let region = if is_real { RAM_PAGES } else { EDGE };
            let (first, pages) = match self.random.below(8) {
                0 => (self.random.below(region / PAGES_PER_2M) * PAGES_PER_2M, PAGES_PER_2M),
                1 => (self.random.below(region - 700), 1 + self.random.below(700)),
                2 | 3 => (self.random.below(region - 16), 1 + self.random.below(16)),
                _ => (self.random.below(region), 1),
            };
            let base = match is_real {
                true => RAM,
                false if self.random.once_in(2) => GIANT,
                false => GIANT.add_pages(PAGES_PER_1G - EDGE),
            };
            let _ = sgl.push(SglEntry { ipa: base.add_pages(first).0, size: pages * PAGE_SIZE });
        }
        sgl
    }

    fn accept(&mut self) {
        let Some(index) = self.pick(|parcel| parcel.held != parcel.offered) else { return };
        let pages = self.parcels[index].pages;
        let mut place: Vec<SglEntry, 1> = Vec::new();
        let mut flags = AcceptFlags::empty();
        if !self.random.once_in(3) {
            flags = AcceptFlags::MAP_CONTIGUOUS;
            if self.random.once_in(2) && pages < WINDOW_PAGES {
                let aligned = if self.random.once_in(2) { PAGES_PER_2M } else { 1 };
                let at = self.random.below(WINDOW_PAGES - pages) / aligned * aligned;
                let size = pages * PAGE_SIZE;
                let _ = place.push(SglEntry { ipa: WINDOW.add_pages(at).0, size });
            }
        }
        let parcel = &mut self.parcels[index];
        let vm = vms().find(|vm| {
            let vm = usize::from(vm.0);
            parcel.offered[vm] && !parcel.held[vm]
        });
        let Some(vm) = vm else { return };
        let (handle, transfer) = (parcel.handle, parcel.transfer);
        if calls::accept(self.manager, vm, handle, transfer, flags, &place).is_ok() {
            self.done.accepts += 1;
            parcel.held[usize::from(vm.0)] = true;
            if transfer == Transfer::Donate {
                self.parcels.swap_remove(index);
            }
        }
    }

    fn release(&mut self) {
        let Some(index) = self.pick(|parcel| parcel.held.contains(&true)) else { return };
        self.release_one(index);
    }

    fn release_one(&mut self, index: usize) {
        let parcel = &mut self.parcels[index];
        let held = parcel.held;
        for vm in vms().filter(|vm| held[usize::from(vm.0)]) {
            if calls::release(self.manager, vm, parcel.handle).is_ok() {
                self.done.releases += 1;
                parcel.held[usize::from(vm.0)] = false;
            }
        }
    }

    fn reclaim(&mut self) {
        let Some(index) = self.pick(|_| true) else { return };
        self.reclaim_one(index);
    }

    fn reclaim_one(&mut self, index: usize) {
        let parcel = &self.parcels[index];
        let sanitize = parcel.is_real && self.random.once_in(4);
        let is_back = calls::reclaim(self.manager, parcel.owner, parcel.handle, sanitize).is_ok();
        if is_back {
            self.done.reclaims += 1;
            self.parcels.swap_remove(index);
        }
    }

    fn set_policy(&mut self) {
        let Some(index) = self.pick(|parcel| !parcel.held.contains(&true)) else { return };
        let parcel = &mut self.parcels[index];
        let policy = if parcel.is_uncached { Policy::Cached } else { Policy::Uncached };
        if calls::set_policy(self.manager, parcel.owner, parcel.handle, policy).is_ok() {
            parcel.is_uncached = !parcel.is_uncached;
            self.done.policies += 1;
        }
    }

    fn merge(&mut self) {
        for vm in vms() {
            for _ in 0..self.random.below(8) {
                self.done.merges += usize::from(self.manager.idle(vm));
            }
        }
    }

    fn take_all_back(&mut self) {
        while !self.parcels.is_empty() {
            let left = self.parcels.len();
            self.release_one(left - 1);
            self.reclaim_one(left - 1);
            if self.parcels.len() == left {
                exit(Exit::Fail, "a parcel does not come back");
            }
        }
        for vm in vms() {
            while self.manager.idle(vm) {
                self.done.merges += 1;
            }
        }
    }

    fn pick(&mut self, suits: impl Fn(&Parcel) -> bool) -> Option<usize> {
        let suitable: Vec<usize, 64> =
            (0..self.parcels.len()).filter(|&index| suits(&self.parcels[index])).collect();
        (!suitable.is_empty()).then(|| self.random.one_of(&suitable))
    }

    /// Ends the program at the first difference.
    fn compare(&mut self) {
        let mut mapped = 0;
        for vm in vms() {
            let view = View::of(self.manager.context(vm));
            for (first, pages, distance) in LOOKED_AT {
                for page in (0..pages).step_by(distance as usize) {
                    mapped += usize::from(self.agree(vm, &view, first.add_pages(page)));
                }
            }
        }
        vms().for_each(|vm| self.compare_past_caches(vm));
        defmt::info!("{=usize} pages are mapped as the manager says", mapped);
        hyp::log::drain();
    }

    /// The same for a guest that would bypass the caches, on some pages.
    fn compare_past_caches(&self, vm: VmIndex) {
        let (context, machine) = (self.manager.context(vm), self.manager.machine());
        let is_forced = machine.features().forced_write_back;
        machine.invalidate(context, Scope::All);
        let view = View::past_caches(context);
        for (first, pages, distance) in LOOKED_AT {
            for page in (0..pages).step_by(7 * distance as usize) {
                let at = first.add_pages(page);
                let named = self.manager.allows(vm, at, Access::Read).map(|pa| {
                    let is_kept = is_forced && self.attributes(pa) == WRITE_BACK;
                    Found { pa, attributes: if is_kept { WRITE_BACK } else { DEVICE } }
                });
                same(vm, at, "load past the caches", named, view.load(at));
            }
        }
        drop(view);
        machine.invalidate(context, Scope::All);
    }

    /// Whether the page is mapped, on which both must agree.
    fn agree(&mut self, vm: VmIndex, view: &View, at: Ipa) -> bool {
        let allows = |access| self.manager.allows(vm, at, access);
        let (load, store, fetch) =
            (allows(Access::Read), allows(Access::Write), allows(Access::Execute));
        let named = |pa: Option<Pa>| pa.map(|pa| Found { pa, attributes: self.attributes(pa) });
        same(vm, at, "load", named(load), view.load(at));
        if store.is_none() && load.is_some() {
            self.done.denied += 1;
            stops(vm, at, "store", Guest::storing(PROGRAM, at).run(view), Stop::Denied(at));
        } else {
            same(vm, at, "store", named(store), view.store(at));
        }
        let stop = match (load, fetch) {
            (Some(_), None) => Stop::Denied(at),
            _ if !self.random.once_in(64) => return load.is_some(),
            (Some(_), Some(_)) => Stop::Done,
            (None, _) => Stop::Unmapped(at),
        };
        self.done.fetches += 1;
        stops(vm, at, "fetch", Guest::fetching(PROGRAM, at).run(view), stop);
        load.is_some()
    }
}

fn same(vm: VmIndex, at: Ipa, what: &str, ours: Option<Found>, hardware: Option<Found>) {
    if ours != hardware {
        defmt::error!("VM {=u8}, {=str} at {}", vm.0, what, at);
        let (ours, hardware) = (Debug2Format(&ours), Debug2Format(&hardware));
        defmt::error!("the manager says {}, the hardware {}", ours, hardware);
        exit(Exit::Fail, "the hardware sees something else than the manager says");
    }
}

fn stops(vm: VmIndex, at: Ipa, what: &str, stop: Stop, expected: Stop) {
    if stop != expected {
        defmt::error!("VM {=u8}, {=str} at {}", vm.0, what, at);
        let (stop, expected) = (Debug2Format(&stop), Debug2Format(&expected));
        defmt::error!("the guest stops with {} instead of {}", stop, expected);
        exit(Exit::Fail, "the hardware allows something else than the manager says");
    }
}
