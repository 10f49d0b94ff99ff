//! Random trims by an owner and two borrowers that accept and release, against a model of plain arrays.
//!
//! After each call every VM sees the pages that the model gives it and what was last written to them
//! (G1, G3), and conservation is checked (G8). `RM_EFFORT` scales the number of stories.

use rm::address::{Ipa, VmIndex};
use rm::machine::fake::effort::{effort, few};
use rm::machine::fake::world::{Guest, RAM, World, vm};
use rm::operation::STEP;
use rm_abi::extension::{TRIM, TrimFlags, TrimRequest};
use rm_abi::{Handle, Transfer};

/// Extents of the parcel: where in A's memory, and how many pages.
const EXTENTS: [(u64, u64); 6] = [
    (0x10_0000, 5),
    (0x10_8000, 1),
    (0x10_a000, 1),
    (0x40_0000, 512),
    (0x10_c000, 2),
    (0x11_0000, 3),
];
const PAGES: usize = 524;
const WINDOW: u64 = 0x9000_0000;
/// Around the ends of the extents, and inside of them.
const PROBES: [usize; 13] = [0, 4, 5, 6, 7, 8, 300, 517, 518, 519, 520, 521, 523];

/// What a VM has of each page of the parcel.
type Pages = [bool; PAGES];

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A borrower, and what the model says of it.
struct Borrower<'a> {
    guest: Guest<'a>,
    /// Where it maps each extent.
    places: Vec<(u64, u64)>,
    contiguous: bool,
    /// What it can reach, and what it has given up, while it holds the parcel.
    has: Option<(Pages, Pages)>,
}

struct Story<'a> {
    world: &'a World,
    random: Random,
    owner: Guest<'a>,
    borrowers: Vec<Borrower<'a>>,
    transfer: Transfer,
    handle: u32,
    /// Pages that have left the parcel.
    gone: Pages,
    /// What a borrower gave up last: first page and how many.
    last: (u64, u64),
    /// What was written last, if it is known.
    content: [Option<u8>; PAGES],
}

/// Addresses of all pages of these ranges.
fn addresses(ranges: &[(u64, u64)]) -> Vec<u64> {
    ranges.iter().flat_map(|&(at, count)| (0..count).map(move |page| at + page * 4096)).collect()
}

fn ranges() -> Vec<(u64, u64)> {
    EXTENTS.map(|(at, count)| (RAM.0 + at, count)).to_vec()
}

/// How many runs of pages are set.
fn runs(pages: &Pages) -> usize {
    (0..PAGES).filter(|&page| pages[page] && (page == 0 || !pages[page - 1])).count()
}

fn with(pages: &Pages, range: core::ops::Range<usize>, value: bool) -> Pages {
    let mut pages = *pages;
    pages[range].fill(value);
    pages
}

impl<'a> Story<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let owner = world.caller(VmIndex(0));
        let transfer = if random.flip() { Transfer::Lend } else { Transfer::Share };
        let acl = [(3, 6), (4, 6), (5, 6)];
        let acl = if transfer == Transfer::Share { &acl[..] } else { &acl[1..] };
        let handle = owner.offer(transfer, acl, &ranges()).unwrap();
        let borrowers = [VmIndex(1), VmIndex(2)].map(|vm| {
            let contiguous = random.flip();
            let mut next = WINDOW;
            let mut place = |(_, count): (u64, u64)| {
                let at = next;
                next += if contiguous { count * 4096 } else { 0x40_1000 };
                (at, count)
            };
            let places = EXTENTS.map(&mut place).to_vec();
            Borrower { guest: world.caller(vm), places, contiguous, has: None }
        });
        Self {
            world,
            random,
            owner,
            borrowers: borrowers.into(),
            transfer,
            handle,
            gone: [false; PAGES],
            last: (0, 1),
            content: [None; PAGES],
        }
    }

    fn act(&mut self) {
        let step = [1, 30, STEP][self.random.below(3) as usize];
        match self.random.below(6) {
            0 | 1 => {
                self.owner.step.set(step);
                self.trim_as_owner();
            }
            number => {
                let who = number as usize % 2;
                self.borrowers[who].guest.step.set(step);
                if number < 4 { self.trim_as_borrower(who) } else { self.accept_or_release(who) }
            }
        }
    }

    /// A range, and whether to wipe it: a few pages near the small extents or anywhere, many pages, or
    /// what was given up last.
    fn range(&mut self) -> (core::ops::Range<usize>, bool) {
        let (first, pages) = match self.random.below(4) {
            0 => (self.random.below(13), 1 + self.random.below(3)),
            1 => (self.random.below(PAGES as u64), 1 + self.random.below(3)),
            2 => (self.random.below(PAGES as u64), 1 + self.random.below(200)),
            _ => (self.last.0, self.last.1),
        };
        let (first, pages) = (first as usize, pages as usize);
        (first..(first + pages).min(PAGES), self.random.below(3) == 0)
    }

    /// The error word of a trim.
    fn trim(&self, guest: &Guest<'_>, range: &core::ops::Range<usize>, wipe: bool) -> u32 {
        let flags = if wipe { TrimFlags::SANITIZE } else { TrimFlags::empty() };
        let (offset, size) = (range.start as u64 * 4096, range.len() as u64 * 4096);
        let mut payload = [0; TrimRequest::SIZE];
        let request = TrimRequest { handle: Handle(self.handle), flags, offset, size };
        request.encode(&mut payload).unwrap();
        guest.words(TRIM, &payload).0
    }

    fn trim_as_owner(&mut self) {
        let (range, wipe) = self.range();
        let holes = with(&self.gone, range.clone(), true);
        let reaches = |borrower: &Borrower<'_>| {
            borrower.has.is_some_and(|(has, _)| has[range.clone()].contains(&true))
        };
        let expected = match () {
            () if self.gone[range.clone()].contains(&true) => 0xc,
            () if runs(&holes) > 8 => 2,
            () if self.borrowers.iter().any(reaches) => 0xb,
            () => 0,
        };
        assert_eq!(self.trim(&self.owner, &range, wipe), expected, "{range:?}");
        if expected == 0 {
            self.gone = holes;
            self.wiped(range, wipe);
        }
    }

    fn trim_as_borrower(&mut self, who: usize) {
        let (range, wipe) = self.range();
        let Borrower { guest, has, .. } = &self.borrowers[who];
        let holes = has.map(|(has, given)| {
            (has, with(&has, range.clone(), false), with(&given, range.clone(), true))
        });
        let expected = match holes {
            Some((has, ..)) if has[range.clone()].contains(&false) => 0xc,
            None => 0xc,
            Some((.., given)) if runs(&given) > 4 => 2,
            Some(_) => 0,
        };
        assert_eq!(self.trim(guest, &range, wipe), expected, "{range:?}");
        if expected == 0 {
            self.borrowers[who].has = holes.map(|(_, has, given)| (has, given));
            self.last = (range.start as u64, range.len() as u64);
            self.wiped(range, wipe);
        }
    }

    fn wiped(&mut self, range: core::ops::Range<usize>, wipe: bool) {
        if wipe {
            self.content[range].fill(Some(0));
        }
    }

    fn accept_or_release(&mut self, who: usize) {
        let Borrower { guest, places, contiguous, has } = &mut self.borrowers[who];
        if has.take().is_some() {
            guest.release(self.handle, 0).unwrap();
            return;
        }
        let accepted = if *contiguous {
            guest.accept_contiguous(self.handle, self.transfer, (WINDOW, PAGES as u64))
        } else {
            guest.accept(self.handle, self.transfer, places)
        };
        accepted.unwrap();
        *has = Some((self.gone.map(|gone| !gone), [false; PAGES]));
    }

    /// Lets every VM look, and the borrowers write.
    fn look(&mut self, value: u8) {
        let world = self.world;
        let probes = PROBES.into_iter().chain([self.random.below(PAGES as u64) as usize]);
        let probes: Vec<_> = probes.collect();
        for Borrower { guest, places, has, .. } in &self.borrowers {
            let Some((has, _)) = has else { continue };
            let at = addresses(places);
            let cpu = world.cpu(guest.vm);
            for &page in &probes {
                let seen = cpu.read(Ipa(at[page])).ok();
                assert_eq!(seen.is_some(), has[page], "page {page} of {:?}", guest.vm);
                if has[page] {
                    assert!(self.content[page].is_none_or(|content| Some(content) == seen));
                    cpu.write(Ipa(at[page]), value).unwrap();
                    self.content[page] = Some(value);
                }
            }
        }
        let at = addresses(&ranges());
        for &page in &probes {
            let cpu = world.cpu(self.owner.vm);
            cpu.forget(Ipa(at[page]));
            let seen = cpu.read(Ipa(at[page])).ok();
            let expected = self.gone[page] || self.transfer == Transfer::Share;
            assert_eq!(seen.is_some(), expected, "page {page} of its owner");
            assert!(
                seen.is_none() || self.content[page].is_none_or(|content| Some(content) == seen)
            );
        }
        world.check();
    }

    fn end(&mut self) {
        for who in 0..2 {
            if self.borrowers[who].has.is_some() {
                self.accept_or_release(who);
            }
        }
        self.owner.reclaim(self.handle, 0).unwrap();
        for vm in self.world.vms() {
            while self.world.manager.idle(vm) {}
        }
    }
}

#[test]
fn g1_g3_any_trims_leave_each_vm_what_a_simple_model_says() {
    for seed in 1..=few(12, 1) * effort::<u64>() {
        println!("seed {seed}");
        let world = World::new(&[vm(3), vm(4), vm(5)]);
        let before = world.check();
        let mut story = Story::new(&world, seed);
        for round in 1..=few(60, 4) {
            story.act();
            story.look(round);
        }
        story.end();
        assert_eq!(world.check(), before);
    }
}
