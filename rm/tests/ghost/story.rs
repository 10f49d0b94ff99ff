//! Random calls to the manager, each told to the model too, and what is compared behind each.

use rm::address::{Ipa, Pa, VmIndex};
use rm::machine::Features;
use rm::machine::fake::world::{Guest, RAM, World, accept, by_handle, offer, vm};
use rm::stage2::{Access, MemoryType};
use rm_abi::extension::{self, Policy, RevokeFlags, SetPolicyRequest, TrimFlags, TrimRequest};
use rm_abi::{AcceptFlags, CreateFlags, Handle, Transfer, message};

use crate::model::{Answer, Model, Page, Parcel, VMS, Wishes};

/// The pages of RAM that calls name: some before and some after a block's end.
const FIRST: u64 = RAM.0 + 0x20_0000 - 8 * 4096;
const SPAN: u64 = 24;
/// Where borrowers map, again across a block's end.
const WINDOW: u64 = 0x8020_0000 - 8 * 4096;
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

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

pub(crate) struct Story {
    seed: u64,
    world: World,
    model: Model,
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
        let world = World::with_features(&[vm(3), vm(4), vm(5)], features);
        let mut model = Model::default();
        for vm in 0..VMS {
            let base = World::pa_of(VmIndex(vm)).0 + (FIRST - RAM.0);
            for page in 0..SPAN {
                model.pages.insert((vm, FIRST + page * 4096), Page::Owned(base + page * 4096));
            }
        }
        Self { seed, world, model, successes: 0, tells: false }
    }

    /// The step with this number. Its dice are its own, so it can be played without those before it.
    pub(crate) fn step(&mut self, number: u32) {
        let mixed = (self.seed << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice(mixed | 1);
        dice.roll(2);
        let what = dice.roll(30);
        let (said, expected) = match what {
            0..7 => self.offer(&mut dice),
            7..13 => self.accept(&mut dice),
            13..16 => self.release(&mut dice),
            16..19 => self.reclaim(&mut dice),
            19..21 => self.append(&mut dice),
            21..23 => self.set_policy(&mut dice),
            23..26 => self.trim(&mut dice),
            26..28 => self.revoke(&mut dice),
            28 => self.ask(&mut dice),
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
        // Behind what is looked at there is more of the VM's RAM.
        let mut place = || match dice.roll(3) {
            0 if all <= SPAN => FIRST + dice.roll(SPAN + 1 - all) * 4096,
            _ => WINDOW + dice.roll(2 * SPAN) * 4096,
        };
        let ranges = if all.is_multiple_of(2) {
            flags |= AcceptFlags::MAP_CONTIGUOUS;
            vec![(place(), all)]
        } else {
            units.iter().map(|&unit| (place(), unit as u64)).collect()
        };
        self.tell(format_args!("VM {vm}: accept {handle:#x} {transfer:?} {ranges:x?} {flags:?}"));
        let request = accept(handle, transfer, flags, &ranges);
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
        let mut payload = [0; SetPolicyRequest::SIZE];
        let request = SetPolicyRequest { handle: Handle(handle), policy };
        request.encode(&mut payload).expect("it fits");
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
        let mut payload = [0; TrimRequest::SIZE];
        let (offset, size) = (first * 4096, count * 4096);
        let request = TrimRequest { handle: Handle(handle), flags, offset, size };
        request.encode(&mut payload).expect("it fits");
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
        let own: Vec<_> = ram().chain(window()).filter(|&at| owned(at)).collect();
        let ranges = (0..1 + dice.roll(3)).map(|_| {
            if own.is_empty() || dice.once_in(6) {
                let first = dice.roll(SPAN);
                return (FIRST + first * 4096, 1 + dice.roll((SPAN - first).min(6)));
            }
            let at = own[dice.roll(own.len() as u64) as usize];
            let most = 1 + dice.roll(6);
            let run = (0..most).take_while(|page| owned(at + page * 4096)).count() as u64;
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

    fn compare(&mut self, number: u32, dice: &mut Dice) {
        for vm in (0..VMS).map(VmIndex) {
            self.world.manager.with_page(vm, |page| {
                for at in ram().chain(window()) {
                    let reach = self.model.pages.get(&(vm.0, at)).and_then(|page| page.reach());
                    for (access, bit) in
                        [(Access::Read, 4), (Access::Write, 2), (Access::Execute, 1)]
                    {
                        let found = page(Ipa(at), access).map(|page| page.pa);
                        let expected = reach.filter(|(_, rights)| rights & bit != 0);
                        let expected = expected.map(|(pa, _)| Pa(pa));
                        assert_eq!(found, expected, "{vm:?} at {at:#x}, {access:?}");
                    }
                }
            });
        }
        self.world.manager.machine().check_no_stale();
        let report = self.world.manager.audit().expect("G8: nothing is lost");
        assert_eq!(report.parcels, self.model.parcels.len() as u64, "step {number}");
        if number.is_multiple_of(8) {
            self.compare_content();
            self.world.check();
        }
        if number.is_multiple_of(3) {
            self.write(dice);
        }
    }

    /// What every VM reads, and how it may cache it.
    fn compare_content(&self) {
        for (&(vm, at), page) in &self.model.pages {
            let Some((pa, rights)) = page.reach() else { continue };
            if rights & 4 == 0 {
                continue;
            }
            let vm = VmIndex(vm);
            let found = self.world.manager.with_page(vm, |page| page(Ipa(at), Access::Read));
            let uncached = self.model.uncached.contains(&pa);
            let memory = if uncached { MemoryType::NonCacheable } else { MemoryType::WriteBack };
            assert_eq!(found.map(|page| page.memory), Some(memory), "{vm:?} at {at:#x}");
            let content = self.model.content.get(&pa).copied().unwrap_or(0);
            assert_eq!(self.world.cpu(vm).read(Ipa(at)), Ok(content), "{vm:?} at {at:#x}");
        }
    }

    /// VMs write to some of the pages that they may write to.
    fn write(&mut self, dice: &mut Dice) {
        let spots: Vec<_> = self.model.pages.iter().map(|(spot, page)| (*spot, *page)).collect();
        for _ in 0..6 {
            let ((vm, at), page) = spots[dice.roll(spots.len() as u64) as usize];
            let Some((pa, rights)) = page.reach() else { continue };
            if rights & 2 != 0 {
                let (cpu, value) = (self.world.cpu(VmIndex(vm)), dice.roll(256) as u8);
                let allows = |at, access| self.world.manager.allows(VmIndex(vm), at, access);
                assert_eq!(cpu.retrying(Ipa(at), Access::Write, allows), Ok(Pa(pa)));
                cpu.write(Ipa(at), value).expect("it was just allowed");
                self.model.content.insert(pa, value);
            }
        }
    }
}

fn ram() -> impl Iterator<Item = u64> {
    (0..SPAN).map(|page| FIRST + page * 4096)
}

/// Where accepts of parcels can reach.
fn window() -> impl Iterator<Item = u64> {
    (0..4 * SPAN).map(|page| WINDOW + page * 4096)
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
    let pages = |&(at, pages): &(u64, u64)| (0..pages).map(|page| at + page * 4096).collect();
    ranges.iter().map(pages).collect()
}
