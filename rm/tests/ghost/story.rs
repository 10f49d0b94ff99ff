//! Random calls to the manager, each told to the model too, and what is compared behind each.

mod compare;
mod devices;
mod grants;
mod heaps;

use std::collections::BTreeSet;

use rm::address::VmIndex;
use rm::machine::Features;
use rm::machine::fake::world::{Guest, RAM, RAM_PAGES, World, accept, by_handle, offer, vm};
use rm_abi::extension::{self, Policy, RevokeFlags, SetPolicyRequest, TrimFlags, TrimRequest};
use rm_abi::{AcceptFlags, CreateFlags, EncodeError, Handle, Transfer, message};

use super::model::wills::CHANNELS;
use super::model::{Answer, FIRST, Model, PAGE, Page, Parcel, SPAN, VMS, Wishes};

/// Where borrowers map, again across a block's end.
const WINDOW: u64 = 0x8020_0000 - 8 * PAGE;
/// Bytes of a page that are written more often than others.
const SPOTS: [u64; 4] = [0, 0x1ff, 0x7c0, 0xfff];
/// Calls that move no page, whatever they are answered.
const QUESTIONS: [u32; 20] = [
    message::MEM_NOTIFY,
    message::MEM_LOOKUP,
    message::VM_GET_ID,
    message::VM_GET_OWNER,
    message::VM_GET_STATE,
    message::VM_GET_PEERS,
    message::VM_GET_VMID,
    message::VM_STOP,
    message::VM_RESET,
    extension::DISCOVER,
    extension::LAST_REFUSAL,
    extension::SUBSCRIBE,
    extension::INFO,
    extension::LIST,
    extension::SET_NAME,
    extension::LIMITS,
    extension::HOLDERS,
    extension::MAP,
    extension::COUNTERS,
    extension::LEAF,
];

/// xorshift64*: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % sides
    }

    fn vm(&mut self) -> u8 {
        self.roll(VMS.into()) as u8
    }

    /// Where a VM may want so many pages. Behind the RAM that is looked at there is more of it.
    fn place(&mut self, pages: u64) -> u64 {
        match self.roll(3) {
            0 if pages <= SPAN => FIRST + self.roll(SPAN + 1 - pages) * PAGE,
            _ => WINDOW + self.roll(2 * SPAN) * PAGE,
        }
    }

    /// A byte of a page.
    fn spot(&mut self) -> u64 {
        let spot = self.roll(5) as usize;
        SPOTS.get(spot).copied().unwrap_or_else(|| self.roll(PAGE))
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

pub(crate) struct Story {
    seed: u64,
    world: World,
    model: Model,
    /// Where some VM had something that is not looked at anyway.
    elsewhere: BTreeSet<u64>,
    pub(crate) successes: u64,
    /// Says what it does.
    pub(crate) tells: bool,
}

fn vmid(vm: u8) -> u16 {
    u16::from(vm) + 3
}

fn answer(word: u32) -> Answer {
    if word == 0 { Ok(()) } else { Err(word) }
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let features =
            Features { forced_write_back: seed.is_multiple_of(2), ..Features::default() };
        let features = Features { smmu: true, ..features };
        let mut vms = [vm(3), vm(4), vm(5), vm(6)];
        devices::describe(&mut vms);
        let world = World::without_memory(&vms, features);
        for vm in (0..VMS).map(VmIndex) {
            world.manager.give(vm, RAM, World::pa_of(vm), RAM_PAGES).expect("the range is free");
        }
        for ((one, at_one), (other, at_other)) in CHANNELS {
            let ends = ((VmIndex(one), at_one), (VmIndex(other), at_other));
            world.manager.connect_doorbells(ends.0, ends.1);
        }
        let mut model = Model::new();
        heaps::make(&world, &mut model);
        let elsewhere = BTreeSet::new();
        Self { seed, world, model, elsewhere, successes: 0, tells: false }
    }

    /// The step with this number. Its dice are its own, so it can be played without those before it.
    pub(crate) fn step(&mut self, number: u32) {
        let mixed = (self.seed << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice(mixed | 1);
        dice.roll(2);
        let what = dice.roll(50);
        let (said, expected) = match what {
            0..7 => self.offer(&mut dice),
            7..13 => self.accept(&mut dice),
            13..16 => self.release(&mut dice),
            16..19 => self.reclaim(&mut dice),
            19..21 => self.append(&mut dice),
            21..23 => self.set_policy(&mut dice),
            23..26 => self.trim(&mut dice),
            26..28 => self.revoke(&mut dice),
            28..31 => self.set_will(&mut dice),
            31..35 => self.copy(&mut dice),
            35..37 => self.set_window(&mut dice),
            37..40 => self.attach(&mut dice),
            40..42 => self.map(&mut dice),
            42 => self.unmap(&mut dice),
            43 => self.detach(&mut dice),
            44 => self.access(&mut dice),
            45..47 => self.alloc(&mut dice),
            47 => self.free(&mut dice),
            48 => self.ask(&mut dice),
            _ if dice.once_in(3) => self.die(&mut dice),
            _ => self.ask(&mut dice),
        };
        if self.tells {
            eprintln!("step {number}: answered {said:x?}, the model says {expected:x?}");
        }
        if self.tells && said != expected {
            for vm in 0..VMS {
                eprintln!("VM {vm}: {:?}", self.world.caller(VmIndex(vm)).last_refusal());
            }
        }
        assert_eq!(said, expected, "step {number}");
        self.successes += u64::from(said.is_ok());
        if dice.once_in(4) {
            self.world.manager.idle(VmIndex(dice.vm()));
        }
        self.compare(number, &mut dice);
        // Who does not read its news is named in no new parcel.
        for vm in 0..VMS {
            self.world.caller(VmIndex(vm)).packets();
        }
    }

    fn caller(&self, vm: u8, dice: &mut Dice) -> Guest<'_> {
        let guest = self.world.caller(VmIndex(vm));
        guest.step.set([1, 9, rm::operation::STEP][dice.roll(3) as usize]);
        guest
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        if self.tells {
            eprintln!("{what}");
        }
    }

    fn offer(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let vm = dice.vm();
        let transfer =
            [Transfer::Share, Transfer::Share, Transfer::Lend, Transfer::Lend, Transfer::Donate]
                [dice.roll(5) as usize];
        let acl = random_list(dice, vm, transfer);
        let ranges = self.random_ranges(vm, dice);
        let wishes = Wishes {
            open: dice.once_in(4),
            uncached: transfer != Transfer::Donate && dice.once_in(3),
            sanitize: dice.once_in(5),
        };
        let named: Vec<_> = acl.iter().map(|&(vm, rights)| (vmid(vm), rights)).collect();
        let mut flags = CreateFlags::empty();
        flags.set(CreateFlags::APPEND, wishes.open);
        flags.set(CreateFlags::SANITIZE, wishes.sanitize);
        let attributes = [(2, named[0].0)];
        let attributes = if wishes.uncached { &attributes[..] } else { &[] };
        self.tell(format_args!("VM {vm}: {transfer:?} {acl:?} {ranges:x?} {flags:?}"));
        let guest = self.caller(vm, dice);
        let request = offer(flags, &named, &ranges, attributes);
        let (error, handle) = guest.words(transfer.message(), &request);
        drop(guest);
        let expected = self.model.offer(vm, transfer, &acl, &each(&ranges), wishes);
        if expected.is_ok() {
            self.model.parcels.last_mut().expect("just made").handle = handle;
        }
        (answer(error), expected)
    }

    fn accept(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| {
            let named = parcel.acl.iter().any(|(named, _)| *named == vm);
            parcel.owner != vm && named && !parcel.held.contains_key(&vm)
        });
        let known = self.model.parcels.iter().find(|parcel| parcel.handle == handle);
        let (mut transfer, units) =
            known.map_or((Transfer::Share, vec![1]), |p| (p.transfer, p.units.clone()));
        if dice.once_in(12) {
            transfer = Transfer::Lend;
        }
        let (wiped, wipe) = (dice.once_in(8), dice.once_in(8));
        let mut flags = AcceptFlags::DONE;
        flags.set(AcceptFlags::VALIDATE_SANITIZED, wiped);
        flags.set(AcceptFlags::SANITIZE, wipe);
        let all = units.iter().sum::<usize>() as u64;
        let mut place = || dice.place(all);
        let (asked, ranges) = if all.is_multiple_of(2) {
            flags |= AcceptFlags::MAP_CONTIGUOUS;
            let asked = vec![(place(), all)];
            // The manager finds the address, or the VM says it.
            if dice.once_in(3) {
                (vec![], vec![(self.model.room(vm, all), all)])
            } else {
                (asked.clone(), asked)
            }
        } else {
            let asked: Vec<_> = units.iter().map(|&unit| (place(), unit as u64)).collect();
            (asked.clone(), asked)
        };
        self.tell(format_args!("VM {vm}: accept {handle:#x} {transfer:?} {asked:x?} {flags:?}"));
        let request = accept(handle, transfer, flags, &asked);
        let said = self.caller(vm, dice).words(message::MEM_ACCEPT, &request).0;
        let at = each(&ranges).concat();
        (answer(said), self.model.accept(vm, handle, transfer, &at, (wiped, wipe)))
    }

    fn release(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| parcel.held.contains_key(&vm));
        let wipe = dice.once_in(4);
        self.tell(format_args!("VM {vm}: release {handle:#x}, wipe {wipe}"));
        let said = self.caller(vm, dice).release(handle, wipe.into()).map(drop);
        (said, self.model.release(vm, handle, wipe))
    }

    fn reclaim(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) =
            self.pick(dice, |parcel, vm| parcel.owner == vm && parcel.held.is_empty());
        let wipe = dice.once_in(2);
        self.tell(format_args!("VM {vm}: reclaim {handle:#x}, wipe {wipe}"));
        let said = self.caller(vm, dice).reclaim(handle, wipe.into()).map(drop);
        (said, self.model.reclaim(vm, handle, wipe))
    }

    fn append(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = self.pick(dice, |parcel, vm| parcel.owner == vm && parcel.open);
        let (ranges, end) = (self.random_ranges(vm, dice), dice.once_in(2));
        self.tell(format_args!("VM {vm}: append {handle:#x} {ranges:x?}, end {end}"));
        let said = self.caller(vm, dice).append(handle, end, &ranges).map(drop);
        (said, self.model.append(vm, handle, &each(&ranges), end))
    }

    fn set_policy(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) =
            self.pick(dice, |parcel, vm| parcel.owner == vm && parcel.held.is_empty());
        let uncached = dice.once_in(2);
        let policy = if uncached { Policy::Uncached } else { Policy::Cached };
        self.tell(format_args!("VM {vm}: policy of {handle:#x} is {policy:?}"));
        let request = SetPolicyRequest { handle: Handle(handle), policy };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(extension::SET_POLICY, &payload).0;
        (answer(said), self.model.set_policy(vm, handle, uncached))
    }

    fn trim(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) =
            self.pick(dice, |parcel, vm| parcel.owner == vm || parcel.held.contains_key(&vm));
        let known = self.model.parcels.iter().find(|parcel| parcel.handle == handle);
        let all = known.map_or(1, |parcel| parcel.pages.len()) as u64;
        let (first, count) = (dice.roll(all), 1 + dice.roll(3));
        let wipe = dice.once_in(4);
        let flags = if wipe { TrimFlags::SANITIZE } else { TrimFlags::empty() };
        self.tell(format_args!("VM {vm}: trim {handle:#x} at {first}, {count} pages, {flags:?}"));
        let (offset, size) = (first * PAGE, count * PAGE);
        let request = TrimRequest { handle: Handle(handle), flags, offset, size };
        let payload = encoded(|into| request.encode(into));
        let said = self.caller(vm, dice).words(extension::TRIM, &payload).0;
        (answer(said), self.model.trim(vm, handle, first as usize, count as usize, wipe))
    }

    fn revoke(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) =
            self.pick(dice, |parcel, vm| parcel.owner == vm && !parcel.held.is_empty());
        let polite = dice.once_in(3);
        self.tell(format_args!("VM {vm}: revoke {handle:#x}, polite {polite}"));
        let mut request = by_handle(handle, 0);
        if polite {
            request[4..8].copy_from_slice(&RevokeFlags::RECALL.0.to_le_bytes());
        }
        let said = self.caller(vm, dice).words(extension::REVOKE, &request).0;
        (answer(said), self.model.revoke(vm, handle, polite))
    }

    /// Any other call, with a handle that is somebody's and whatever else. Its answer is its own business.
    fn ask(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, handle) = (dice.vm(), self.any_handle(dice));
        let call = QUESTIONS[dice.roll(QUESTIONS.len() as u64) as usize];
        let mut payload = handle.to_le_bytes().to_vec();
        let words = dice.roll(6);
        payload.extend((0..words).flat_map(|_| (dice.roll(5) as u32).to_le_bytes()));
        self.tell(format_args!("VM {vm}: call {call:#x} {payload:x?}"));
        self.caller(vm, dice).call(call, &payload);
        (Ok(()), Ok(()))
    }

    fn die(&mut self, dice: &mut Dice) -> (Answer, Answer) {
        let (vm, step) = (dice.vm(), [1, 9, rm::operation::STEP][dice.roll(3) as usize]);
        self.tell(format_args!("VM {vm} dies and starts again"));
        self.world.end(VmIndex(vm));
        self.world.settle(VmIndex(vm), step);
        self.world.start(VmIndex(vm));
        self.model.die(vm);
        (Ok(()), Ok(()))
    }

    /// Ranges of pages, mostly such that the VM owns them.
    fn random_ranges(&self, vm: u8, dice: &mut Dice) -> Vec<(u64, u64)> {
        let owned = |at: u64| matches!(self.model.pages.get(&(vm, at)), Some(Page::Owned(_)));
        let all = self.model.pages.range((vm, 0)..=(vm, u64::MAX)).map(|((_, at), _)| *at);
        let own: Vec<_> = all.filter(|&at| owned(at)).collect();
        let ranges = (0..1 + dice.roll(3)).map(|_| {
            if own.is_empty() || dice.once_in(6) {
                let first = dice.roll(SPAN);
                return (FIRST + first * PAGE, 1 + dice.roll((SPAN - first).min(6)));
            }
            let at = own[dice.roll(own.len() as u64) as usize];
            let most = 1 + dice.roll(6);
            let run = (0..most).take_while(|page| owned(at + page * PAGE)).count() as u64;
            (at, run)
        });
        ranges.collect()
    }

    /// A VM and a parcel, mostly such that `fits` and the call has a chance.
    fn pick(&self, dice: &mut Dice, fits: impl Fn(&Parcel, u8) -> bool) -> (u8, u32) {
        let parcels = &self.model.parcels;
        let pairs = parcels.iter().flat_map(|parcel| (0..VMS).map(move |vm| (vm, parcel)));
        let likely: Vec<_> = pairs.filter(|(vm, parcel)| fits(parcel, *vm)).collect();
        if likely.is_empty() || dice.once_in(5) {
            return (dice.vm(), self.any_handle(dice));
        }
        let (vm, parcel) = likely[dice.roll(likely.len() as u64) as usize];
        (vm, parcel.handle)
    }

    fn any_handle(&self, dice: &mut Dice) -> u32 {
        let Model { parcels, dead, .. } = &self.model;
        match dice.roll(parcels.len() as u64 + 2) as usize {
            old if old >= parcels.len() && !dead.is_empty() => {
                dead[dice.roll(dead.len() as u64) as usize]
            }
            index => parcels.get(index).map_or(0x1234, |parcel| parcel.handle),
        }
    }
}

/// The bytes of a request.
fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>) -> Vec<u8> {
    let mut payload = vec![0; 256];
    let length = encode(&mut payload).expect("it fits");
    payload.truncate(length);
    payload
}

fn ram() -> impl Iterator<Item = u64> {
    (0..SPAN).map(|page| FIRST + page * PAGE)
}

/// Where accepts of parcels can reach, if they choose.
fn window() -> impl Iterator<Item = u64> {
    (0..4 * SPAN).map(|page| WINDOW + page * PAGE)
}

fn is_usual(at: u64) -> bool {
    (FIRST..FIRST + SPAN * PAGE).contains(&at) || (WINDOW..WINDOW + 4 * SPAN * PAGE).contains(&at)
}

/// Other VMs with rights, and the owner of a share.
fn random_list(dice: &mut Dice, vm: u8, transfer: Transfer) -> Vec<(u8, u8)> {
    let others = (0..VMS).filter(|&other| other != vm);
    let mut acl: Vec<_> = others
        .filter_map(|other| (dice.roll(3) != 0).then_some((other, 4 + dice.roll(4) as u8)))
        .collect();
    if acl.is_empty() || transfer == Transfer::Donate {
        acl = vec![((vm + 1 + dice.roll(2) as u8) % VMS, 7)];
    }
    if transfer == Transfer::Share {
        acl.push((vm, 4 + dice.roll(4) as u8));
    }
    acl
}

/// Every page of each range.
fn each(ranges: &[(u64, u64)]) -> Vec<Vec<u64>> {
    let pages = |&(at, pages): &(u64, u64)| (0..pages).map(|page| at + page * PAGE).collect();
    ranges.iter().map(pages).collect()
}
