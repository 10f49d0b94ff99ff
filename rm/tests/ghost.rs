//! Random calls, revocations and deaths of all VMs against a model that knows nothing of descriptors.
//!
//! The model is a map from a VM's page to what the VM may do there and which machine page it is, and a
//! list of parcels, and what was last written to a machine page. VMs write between the calls, over caches
//! that lose what they may. After every call the answer and every page of every VM are compared, its
//! memory type and content too, the machine is asked for stale translations (G5) and stale cache lines,
//! and conservation is checked (G8). `RM_EFFORT` scales the
//! number of calls; a failure prints the seed, and `RM_SEED` replays it.

use std::collections::{BTreeMap, BTreeSet};

use rm::address::{Ipa, Pa, VmIndex};
use rm::machine::Features;
use rm::machine::fake::world::{RAM, World, by_handle, offer, vm};
use rm::stage2::{Access, MemoryType};
use rm_abi::extension::{Policy, REVOKE, SET_POLICY, SetPolicyRequest};
use rm_abi::{CreateFlags, Handle, Transfer};

const VMS: u8 = 3;
/// The pages of RAM that calls name: some before and some after a block's end.
const FIRST: u64 = RAM.0 + 0x20_0000 - 8 * 4096;
const SPAN: u64 = 24;
/// Where borrowers map, again across a block's end.
const WINDOW: u64 = 0x8020_0000 - 8 * 4096;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Page {
    Owned(u64),
    Shared(u64, u8),
    Lent,
    Borrowed(u64, u8),
}

struct Parcel {
    handle: u32,
    owner: u8,
    transfer: Transfer,
    acl: Vec<(u8, u8)>,
    /// The owner's addresses and the machine's pages, in order.
    pages: Vec<(u64, u64)>,
    mapped: BTreeMap<u8, u64>,
    /// Its owner may append.
    open: bool,
    uncached: bool,
    /// Its owner has taken it away.
    revoked: bool,
    /// Its pages are wiped when they come home.
    sanitize: bool,
}

#[derive(Default)]
struct Model {
    pages: BTreeMap<(u8, u64), Page>,
    parcels: Vec<Parcel>,
    gone: Vec<u32>,
    /// Machine pages in parcels that are not cacheable.
    uncached: BTreeSet<u64>,
    /// The first byte of machine pages, where it is not 0.
    content: BTreeMap<u64, u8>,
}

/// xorshift64*: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

fn vmid(vm: u8) -> u16 {
    u16::from(vm) + 3
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        for vm in 0..VMS {
            let base = World::pa_of(VmIndex(vm)).0 + (FIRST - RAM.0);
            for page in 0..SPAN {
                model.pages.insert((vm, FIRST + page * 4096), Page::Owned(base + page * 4096));
            }
        }
        model
    }

    fn offer(
        &mut self,
        vm: u8,
        transfer: Transfer,
        acl: &[(u8, u8)],
        list: &[u64],
        (open, uncached): (bool, bool),
    ) -> Result<(), u32> {
        let pages = self.take(vm, acl, list)?;
        self.set_cached(&pages, !uncached);
        let acl = acl.to_vec();
        self.parcels.push(Parcel {
            handle: 0,
            owner: vm,
            transfer,
            acl,
            pages,
            mapped: BTreeMap::new(),
            open,
            uncached,
            revoked: false,
            sanitize: false,
        });
        Ok(())
    }

    /// Takes pages out of their owner's reach, as far as the ACL says.
    fn take(&mut self, vm: u8, acl: &[(u8, u8)], list: &[u64]) -> Result<Vec<(u64, u64)>, u32> {
        let mut pages = vec![];
        for at in list {
            match self.pages.get(&(vm, *at)) {
                Some(Page::Owned(pa)) if !pages.contains(&(*at, *pa)) => pages.push((*at, *pa)),
                _ => return Err(0xa),
            }
        }
        let own = acl.iter().find(|(named, _)| *named == vm);
        for (at, pa) in &pages {
            let page = match own {
                Some((_, rights)) => Page::Shared(*pa, *rights),
                None => Page::Lent,
            };
            self.pages.insert((vm, *at), page);
        }
        Ok(pages)
    }

    fn append(&mut self, vm: u8, handle: u32, list: &[u64], end: bool) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.owner != vm || !parcel.open {
            return Err(3);
        }
        let acl = parcel.acl.clone();
        let uncached = parcel.uncached;
        let pages = self.take(vm, &acl, list)?;
        self.set_cached(&pages, !uncached);
        self.parcels[index].pages.extend(pages);
        self.parcels[index].open = !end;
        Ok(())
    }

    fn set_cached(&mut self, pages: &[(u64, u64)], cached: bool) {
        for (_, pa) in pages {
            if cached {
                self.uncached.remove(pa);
            } else {
                self.uncached.insert(*pa);
            }
        }
    }

    fn set_policy(&mut self, vm: u8, handle: u32, uncached: bool) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        let parcel = &mut self.parcels[index];
        if parcel.owner != vm {
            return Err(3);
        }
        if parcel.transfer == Transfer::Donate && uncached {
            return Err(6);
        }
        if parcel.revoked {
            return Err(3);
        }
        if !parcel.mapped.is_empty() {
            return Err(0xb);
        }
        parcel.uncached = uncached;
        let pages = parcel.pages.clone();
        self.set_cached(&pages, !uncached);
        Ok(())
    }

    /// VMs write to some of the pages that they may write to.
    fn write(&mut self, world: &World, dice: &mut Dice) {
        let spots: Vec<_> = self.pages.iter().map(|(spot, page)| (*spot, *page)).collect();
        for _ in 0..6 {
            let ((vm, at), page) = spots[dice.roll(spots.len() as u64) as usize];
            let (pa, rights) = match page {
                Page::Lent => continue,
                Page::Owned(pa) => (pa, 7),
                Page::Shared(pa, rights) | Page::Borrowed(pa, rights) => (pa, rights),
            };
            if rights & 2 != 0 {
                let (cpu, value) = (world.cpu(VmIndex(vm)), dice.roll(256) as u8);
                let allows = |at, access| world.manager.allows(VmIndex(vm), at, access);
                assert_eq!(cpu.retrying(Ipa(at), Access::Write, allows), Ok(Pa(pa)));
                cpu.write(Ipa(at), value).expect("it was just allowed");
                self.content.insert(pa, value);
            }
        }
    }

    fn find(&self, vm: u8, handle: u32) -> Result<usize, u32> {
        let found = self.parcels.iter().position(|parcel| parcel.handle == handle).ok_or(7u32)?;
        let parcel = &self.parcels[found];
        let named = parcel.acl.iter().any(|(named, _)| *named == vm);
        let party = parcel.owner == vm || !parcel.open && !parcel.revoked && named;
        if party { Ok(found) } else { Err(7) }
    }

    fn accept(
        &mut self,
        vm: u8,
        handle: u32,
        transfer: Transfer,
        at: u64,
        pages: u64,
    ) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.transfer != transfer {
            return Err(6);
        }
        // A share names its owner in the ACL, and nothing else does.
        if parcel.owner == vm {
            return Err(if transfer == Transfer::Share { 3 } else { 0xd });
        }
        if parcel.mapped.contains_key(&vm) {
            return Err(3);
        }
        if pages != parcel.pages.len() as u64 {
            return Err(6);
        }
        if (0..pages).any(|page| self.pages.contains_key(&(vm, at + page * 4096))) {
            return Err(2);
        }
        let rights = parcel.acl.iter().find(|(named, _)| *named == vm).expect("a party").1;
        let donated = transfer == Transfer::Donate;
        for (page, (owner_at, pa)) in (0..).zip(parcel.pages.clone()) {
            let here = if donated { Page::Owned(pa) } else { Page::Borrowed(pa, rights) };
            self.pages.insert((vm, at + page * 4096), here);
            if donated {
                self.pages.remove(&(self.parcels[index].owner, owner_at));
            }
        }
        if donated {
            self.gone.push(self.parcels.remove(index).handle);
        } else {
            self.parcels[index].mapped.insert(vm, at);
        }
        Ok(())
    }

    fn release(&mut self, vm: u8, handle: u32) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        let parcel = &mut self.parcels[index];
        if parcel.owner == vm {
            return Err(if parcel.transfer == Transfer::Share { 3 } else { 7 });
        }
        let at = parcel.mapped.remove(&vm).ok_or(0xcu32)?;
        for page in 0..parcel.pages.len() as u64 {
            self.pages.remove(&(vm, at + page * 4096));
        }
        Ok(())
    }

    fn reclaim(&mut self, vm: u8, handle: u32, zero: bool) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.owner != vm {
            return Err(3);
        }
        if !parcel.mapped.is_empty() {
            return Err(0xb);
        }
        self.take_home(index, zero);
        Ok(())
    }

    /// Ends a parcel that nobody holds.
    fn take_home(&mut self, index: usize, zero: bool) {
        let parcel = self.parcels.remove(index);
        self.set_cached(&parcel.pages, true);
        for (at, pa) in parcel.pages {
            if zero || parcel.sanitize {
                self.content.remove(&pa);
            }
            self.pages.insert((parcel.owner, at), Page::Owned(pa));
        }
        self.gone.push(parcel.handle);
    }

    /// Takes a parcel away from a VM that has it, which cannot take its data with it.
    fn evict(&mut self, index: usize, vm: u8) {
        let parcel = &mut self.parcels[index];
        if let Some(at) = parcel.mapped.remove(&vm) {
            parcel.sanitize |= parcel.transfer == Transfer::Lend;
            for page in 0..parcel.pages.len() as u64 {
                self.pages.remove(&(vm, at + page * 4096));
            }
        }
    }

    fn revoke(&mut self, vm: u8, handle: u32) -> Result<(), u32> {
        let index = self.find(vm, handle)?;
        if self.parcels[index].owner != vm {
            return Err(3);
        }
        if !self.parcels[index].open {
            (0..VMS).for_each(|other| self.evict(index, other));
            self.parcels[index].revoked = true;
        }
        Ok(())
    }

    /// A VM dies and starts again: it has no part in anything any more.
    fn die(&mut self, vm: u8) {
        for index in 0..self.parcels.len() {
            self.evict(index, vm);
        }
        while let Some(index) = self.parcels.iter().position(|parcel| parcel.owner == vm) {
            (0..VMS).for_each(|other| self.evict(index, other));
            self.take_home(index, true);
        }
    }

    /// A VM and a parcel, mostly such that `fits` and the call has a chance.
    fn pick(&self, dice: &mut Dice, fits: impl Fn(&Parcel, u8) -> bool) -> (u8, u32) {
        let pairs = self.parcels.iter().flat_map(|parcel| (0..VMS).map(move |vm| (vm, parcel)));
        let likely: Vec<_> = pairs.filter(|(vm, parcel)| fits(parcel, *vm)).collect();
        if likely.is_empty() || dice.roll(4) == 0 {
            return (dice.roll(VMS.into()) as u8, self.any_handle(dice));
        }
        let (vm, parcel) = likely[dice.roll(likely.len() as u64) as usize];
        (vm, parcel.handle)
    }

    fn any_handle(&self, dice: &mut Dice) -> u32 {
        let live = self.parcels.len() as u64;
        match dice.roll(live + 2) {
            old if old >= live && !self.gone.is_empty() => {
                self.gone[dice.roll(self.gone.len() as u64) as usize]
            }
            index => self.parcels.get(index as usize).map_or(0x1234, |parcel| parcel.handle),
        }
    }

    fn compare(&self, world: &World, turn: u64) {
        for vm in 0..VMS {
            let ram = (0..SPAN).map(|page| FIRST + page * 4096);
            let window = (0..2 * SPAN).map(|page| WINDOW + page * 4096);
            for at in ram.chain(window) {
                let (pa, rights) = match self.pages.get(&(vm, at)) {
                    None | Some(Page::Lent) => (0, 0),
                    Some(Page::Owned(pa)) => (*pa, 7),
                    Some(Page::Shared(pa, rights) | Page::Borrowed(pa, rights)) => (*pa, *rights),
                };
                for (access, bit) in [(Access::Read, 4), (Access::Write, 2), (Access::Execute, 1)] {
                    let expected = (rights & bit != 0).then_some(Pa(pa));
                    let found = world.manager.allows(VmIndex(vm), Ipa(at), access);
                    assert_eq!(found, expected, "VM {vm} at {at:#x}, {access:?}");
                }
                // Reading is slow in a machine that models caches: each page has its turn.
                if rights & 4 != 0 && (at / 4096 + turn).is_multiple_of(8) {
                    self.compare_content(world, VmIndex(vm), at, pa);
                }
            }
        }
    }
}

impl Model {
    fn compare_content(&self, world: &World, vm: VmIndex, at: u64, pa: u64) {
        let page = world.manager.with_page(vm, |page| page(Ipa(at), Access::Read));
        let uncached = self.uncached.contains(&pa);
        let memory = if uncached { MemoryType::NonCacheable } else { MemoryType::WriteBack };
        assert_eq!(page.map(|page| page.memory), Some(memory), "{vm:?} at {at:#x}");
        let content = self.content.get(&pa).copied().unwrap_or(0);
        assert_eq!(world.cpu(vm).read(Ipa(at)), Ok(content), "{vm:?} at {at:#x}");
    }
}

/// How pages are offered, to whom with which rights, and which (first page, count).
type Offer = (Transfer, Vec<(u8, u8)>, Vec<(u64, u64)>);

fn random_offer(dice: &mut Dice, vm: u8) -> Offer {
    let transfer =
        [Transfer::Share, Transfer::Share, Transfer::Lend, Transfer::Lend, Transfer::Donate]
            [dice.roll(5) as usize];
    let mut acl: Vec<(u8, u8)> = (0..VMS)
        .filter(|&other| other != vm)
        .filter_map(|other| (dice.roll(3) != 0).then_some((other, 4 + dice.roll(4) as u8)))
        .collect();
    if acl.is_empty() || transfer == Transfer::Donate {
        acl = vec![((vm + 1 + dice.roll(2) as u8) % VMS, 7)];
    }
    if transfer == Transfer::Share {
        acl.push((vm, 4 + dice.roll(4) as u8));
    }
    (transfer, acl, random_ranges(dice))
}

fn random_ranges(dice: &mut Dice) -> Vec<(u64, u64)> {
    let ranges = (0..1 + dice.roll(3)).map(|_| {
        let first = dice.roll(SPAN);
        (FIRST + first * 4096, 1 + dice.roll((SPAN - first).min(6)))
    });
    ranges.collect()
}

/// Every page of some ranges.
fn each(ranges: &[(u64, u64)]) -> Vec<u64> {
    let pages = ranges.iter().flat_map(|&(at, pages)| (0..pages).map(move |p| at + p * 4096));
    pages.collect()
}

/// One random call; `Ok` or the error code, from the manager and from the model.
fn turn(world: &World, model: &mut Model, dice: &mut Dice) -> (Result<(), u32>, Result<(), u32>) {
    let step = [1, 9, rm::operation::STEP][dice.roll(3) as usize];
    let caller = |vm| {
        let guest = world.caller(VmIndex(vm));
        guest.step.set(step);
        guest
    };
    match dice.roll(12) {
        10 => {
            let (vm, handle) =
                model.pick(dice, |parcel, vm| parcel.owner == vm && !parcel.mapped.is_empty());
            let said = match caller(vm).words(REVOKE, &by_handle(handle, 0)).0 {
                0 => Ok(()),
                error => Err(error),
            };
            (said, model.revoke(vm, handle))
        }
        // Rarely: it ends many histories at once.
        11 if dice.roll(4) == 0 => {
            let vm = dice.roll(VMS.into()) as u8;
            world.end(VmIndex(vm));
            world.settle(VmIndex(vm), step);
            world.start(VmIndex(vm));
            model.die(vm);
            (Ok(()), Ok(()))
        }
        0..3 => {
            let vm = dice.roll(VMS.into()) as u8;
            let guest = caller(vm);
            let (transfer, acl, ranges) = random_offer(dice, vm);
            let named: Vec<_> = acl.iter().map(|&(vm, rights)| (vmid(vm), rights)).collect();
            let open = dice.roll(4) == 0;
            let flags = if open { CreateFlags::APPEND } else { CreateFlags::empty() };
            let uncached = transfer != Transfer::Donate && dice.roll(3) == 0;
            let attributes = [(2, named[0].0)];
            let attributes = if uncached { &attributes[..] } else { &[] };
            let request = offer(flags, &named, &ranges, attributes);
            let said = match guest.words(transfer.message(), &request) {
                (0, handle) => Ok(handle),
                (error, _) => Err(error),
            };
            let expected = model.offer(vm, transfer, &acl, &each(&ranges), (open, uncached));
            if let (Ok(handle), Ok(())) = (said, expected) {
                model.parcels.last_mut().expect("just made").handle = handle;
            }
            (said.map(drop), expected)
        }
        3..5 => {
            let (vm, handle) = model.pick(dice, |parcel, vm| {
                parcel.owner != vm
                    && parcel.acl.iter().any(|(named, _)| *named == vm)
                    && !parcel.mapped.contains_key(&vm)
            });
            let known = model.parcels.iter().find(|parcel| parcel.handle == handle);
            let (mut transfer, mut pages) =
                known.map_or((Transfer::Share, 1), |p| (p.transfer, p.pages.len() as u64));
            if dice.roll(10) == 0 {
                transfer = Transfer::Lend;
                pages += 1;
            }
            let at = WINDOW + dice.roll(SPAN) * 4096;
            let said = caller(vm).accept_contiguous(handle, transfer, (at, pages)).map(drop);
            (said, model.accept(vm, handle, transfer, at, pages))
        }
        5 => {
            let (vm, handle) = model.pick(dice, |parcel, vm| parcel.mapped.contains_key(&vm));
            (caller(vm).release(handle, 0).map(drop), model.release(vm, handle))
        }
        6 => {
            let (vm, handle) = model.pick(dice, |parcel, vm| parcel.owner == vm && parcel.open);
            let (ranges, end) = (random_ranges(dice), dice.roll(2) == 0);
            let said = caller(vm).append(handle, end, &ranges).map(drop);
            (said, model.append(vm, handle, &each(&ranges), end))
        }
        7 => {
            let (vm, handle) =
                model.pick(dice, |parcel, vm| parcel.owner == vm && parcel.mapped.is_empty());
            let uncached = dice.roll(2) == 0;
            let policy = if uncached { Policy::Uncached } else { Policy::Cached };
            let mut payload = [0; SetPolicyRequest::SIZE];
            let request = SetPolicyRequest { handle: Handle(handle), policy };
            request.encode(&mut payload).expect("it fits");
            let said = match caller(vm).words(SET_POLICY, &payload).0 {
                0 => Ok(()),
                error => Err(error),
            };
            (said, model.set_policy(vm, handle, uncached))
        }
        _ => {
            let (vm, handle) =
                model.pick(dice, |parcel, vm| parcel.owner == vm && parcel.mapped.is_empty());
            let zero = dice.roll(2) == 1;
            let said = caller(vm).reclaim(handle, zero.into()).map(drop);
            (said, model.reclaim(vm, handle, zero))
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_sequence_of_calls_leaves_the_model() {
    let effort = variable("RM_EFFORT").unwrap_or(1);
    let seeds = match variable("RM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + 20 * effort,
    };
    let (mut calls, mut successes) = (0, 0);
    for seed in seeds {
        println!("RM_SEED={seed}");
        let features = Features { forced_write_back: seed % 2 == 0 };
        let world = World::with_features(&[vm(3), vm(4), vm(5)], features);
        let mut model = Model::new();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for call in 0..400 {
            let (said, expected) = turn(&world, &mut model, &mut dice);
            assert_eq!(said, expected, "call {call}");
            calls += 1;
            successes += u32::from(said.is_ok());
            if dice.roll(4) == 0 {
                world.manager.idle(VmIndex(dice.roll(VMS.into()) as u8));
            }
            model.compare(&world, call);
            model.write(&world, &mut dice);
            let report = world.check();
            assert_eq!(report.parcels, model.parcels.len() as u64, "call {call}");
        }
    }
    // A model that refuses everything would agree with a manager that does.
    println!("{successes} of {calls} calls succeeded");
    assert!(successes * 4 > calls, "too few calls succeed to say anything");
}
