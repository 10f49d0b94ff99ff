//! VMs on all CPUs that share, lend, use and take back memory in random order, while one of them dies
//! and starts again.
//!
//! Cast: this program as first to fourth VM, all of which make calls on each of their vCPUs. The first
//! is linked with the others; the last dies twice in the middle of everything, in another way each time.
//! Each vCPU offers parcels of its own part of the VM's memory to random others, and takes what any vCPU
//! of its VM was offered, so that both may be at work on one parcel. Every word says whose it is (see
//! `word`); what is refused is refused for a reason that can come up.

mod borrower;
pub(crate) mod lines;
mod owner;
mod word;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rm_client::{Error, ErrorCode, Handle, Notice, Session};

use crate::channel::Channel;
use crate::demo::granted;
use crate::doorbells::BELL;
use crate::layout::{LINK_AB, LINK_AC, LINK_AD, Link, PAGE};
use crate::random::{Random, SEED};
use crate::{cpu, gic, hvc_immediate, memory, raw};
use borrower::Held;
use lines::Lines;
use owner::Mine;
use rm_abi::{Capability, HypercallError};
use word::{Label, index_of};

/// What a vCPU does in each life of its VM. The first VM goes on until all others are done: what it
/// shares with them is there for the next life of who dies.
const STEPS: u64 = 1_500;
/// Lives of the VM that dies.
const LIVES: u64 = 3;
/// Parcels that a vCPU has made and has, at most.
const PARCELS: usize = 6;
/// Offers that a VM keeps in mind.
const OFFERS: usize = 8;

const VMS: u64 = 4;
const FIRST: u64 = 0;
const MORTAL: u64 = 3;
/// Which VMs have two vCPUs.
const TWO_VCPUS: [bool; VMS as usize] = [false, true, false, true];
const LINKS: [Link; 3] = [LINK_AB, LINK_AC, LINK_AD];
/// Where a VM finds in its link, behind the channel, which life this is: the page outlives it.
const LIFE: u64 = PAGE / 2;
/// Where it says there that it has done all that it will do.
const DONE: u64 = LIFE + 8;
const READY: u64 = 0x5eed;

/// PSCI SYSTEM_RESET.
const SYSTEM_RESET: u64 = 0x8400_0009;

/// Parcels that this VM was offered: handle and label, or 0.
static OFFERED: [AtomicU64; OFFERS] = [const { AtomicU64::new(0) }; OFFERS];
/// Everybody is there. The second vCPU waits for it.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// The second vCPU has given everything back.
static SECOND_IS_DONE: AtomicBool = AtomicBool::new(false);

/// One vCPU's part.
struct Player {
    session: Session<Lines>,
    random: Random,
    /// The VM's index.
    me: u64,
    vcpu: u64,
    life: u64,
    /// Parcels made in this life.
    made: u64,
    mine: [Option<Mine>; PARCELS],
    held: [Option<Held>; PARCELS],
    counts: Counts,
}

/// What happened.
#[derive(Default, Debug)]
struct Counts {
    /// Parcels of others that were mapped.
    accepted: u32,
    /// Words of others that were read and were as they should be.
    read: u32,
    /// Accesses that came too late: the owner had taken the page.
    late: u32,
    /// Calls that were refused.
    refused: u32,
    /// Notices that came.
    notices: u32,
    /// Doorbells of this vCPU that were found rung.
    rung: u32,
}

/// What the first vCPU does.
pub fn first() {
    let mut player = Player::new(0);
    player.meet();
    player.play();
    while TWO_VCPUS[player.me as usize] && !SECOND_IS_DONE.load(Ordering::Acquire) {
        cpu::relax();
    }
    if player.me != FIRST {
        memory::write(LINKS[player.me as usize - 1].peer + DONE, 1);
    }
}

/// What the second vCPU does.
pub fn second() {
    while !BEGUN.load(Ordering::Acquire) {
        cpu::relax();
    }
    Player::new(1).play();
    SECOND_IS_DONE.store(true, Ordering::Release);
}

impl Player {
    fn new(vcpu: u64) -> Self {
        if vcpu == 0 {
            gic::enable();
            [gic::SPI_TX, gic::SPI_RX, BELL].into_iter().for_each(gic::unmask);
            cpu::unmask_interrupts();
        }
        let mut session = Session::new(Lines::new(vcpu == 0));
        let me = index_of(granted("asking who I am", session.vmid()));
        let life = if me == FIRST { 0 } else { memory::read(LINKS[me as usize - 1].peer + LIFE) };
        let random = Random::of(me << 4 | vcpu << 3 | life);
        let (mine, held) = ([const { None }; PARCELS], [const { None }; PARCELS]);
        let counts = Counts::default();
        Self { session, random, me, vcpu, life, made: 0, mine, held, counts }
    }

    /// Waits until all are there; who lives again is expected by nobody.
    fn meet(&mut self) {
        if self.me == FIRST {
            println!("the seed is {SEED}");
            LINKS.iter().for_each(|link| Channel::owner(*link).expect(READY));
            LINKS.iter().for_each(|link| Channel::owner(*link).say(READY));
        } else if self.life == 0 {
            let first = Channel::peer(LINKS[self.me as usize - 1]);
            first.say(READY);
            first.expect(READY);
        }
        BEGUN.store(true, Ordering::Release);
    }

    fn play(&mut self) {
        self.keep_all();
        let mut step = 0;
        while step < STEPS || self.is_waited_for() {
            step += 1;
            if self.vcpu == 0 && self.me == MORTAL && self.life + 1 < LIVES && step == STEPS / 2 {
                self.die();
            }
            self.step();
        }
        self.go_home();
        let Self { me, vcpu, life, made, counts, .. } = self;
        println!("VM {me}, vCPU {vcpu}, life {life}: {made} parcels made, {counts:?}");
    }

    /// Whether others still need what this VM shares with them from boot on.
    fn is_waited_for(&self) -> bool {
        self.me == FIRST && LINKS.iter().any(|link| memory::read(link.owner + DONE) == 0)
    }

    /// Ends the VM in the middle of everything. It starts again.
    fn die(&mut self) -> ! {
        println!("I die for the {}. time", self.life + 1);
        memory::write(LINKS[self.me as usize - 1].peer + LIFE, self.life + 1);
        if self.life == 0 {
            let _ = self.session.exit(1);
        }
        raw::hvc([SYSTEM_RESET, 0, 0, 0, 0, 0]);
        panic!("I live on");
    }

    fn step(&mut self) {
        let by_queue = self.random.once_in(2);
        self.session.transport().choose(by_queue);
        match self.random.below(16) {
            0..=2 => self.offer(),
            3 => self.use_mine(),
            4 => self.check_kept(),
            5..=6 => self.take_back(),
            7 => self.trim_mine(),
            8..=9 => self.accept(),
            10..=12 => self.use_held(),
            13 => self.release(),
            14 => self.trim_held(),
            _ => self.ring(),
        }
        self.hear();
    }

    /// Takes everything back, gives everything back, and finds that nobody has touched what is mine.
    fn go_home(&mut self) {
        for slot in 0..PARCELS {
            while self.mine[slot].is_some() {
                self.revoke(slot);
            }
            while self.held[slot].is_some() {
                self.let_go(slot);
            }
        }
        self.check_kept();
    }

    /// What came of a call that may be refused with these codes.
    fn tolerated<T>(
        &mut self,
        what: &str,
        outcome: Result<T, Error>,
        codes: &[ErrorCode],
    ) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(Error::Refused(code)) if codes.contains(&code) => {
                self.counts.refused += 1;
                None
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Rings a linked VM's doorbell, and looks at the own ones.
    fn ring(&mut self) {
        let bells = if self.me == FIRST { LINKS.len() } else { 1 };
        let bell = self.random.index(bells) as u8;
        let (theirs, own) = (Capability::doorbell_send(bell), Capability::doorbell_receive(bell));
        let flags = 1 << self.random.below(64);
        let [error, ..] = hvc_immediate!("0x6012", [theirs.0, flags, 0, 0, 0, 0]);
        assert!(error == HypercallError::OK as u64, "ringing: {error}");
        let [error, flags, ..] = hvc_immediate!("0x6013", [own.0, !0, 0, 0, 0, 0]);
        assert!(error == HypercallError::OK as u64, "looking at my doorbell: {error}");
        self.counts.rung += u32::from(flags != 0);
    }

    /// Takes some of what the manager says unasked to heart.
    fn hear(&mut self) {
        while let Some(notice) = self.session.transport().poll_notice() {
            self.counts.notices += 1;
            match notice {
                Notice::Shared(offered) => {
                    let (offer, label) = (offered.offer, Label(offered.offer.label));
                    let true_label =
                        label.owner() == index_of(offer.owner) && label.is_for(self.me);
                    assert!(true_label && offer.transfer == label.transfer(), "{offer:x?}");
                    let slot = self.random.index(OFFERS);
                    OFFERED[slot].store(pack(offer.handle, label), Ordering::Relaxed);
                }
                Notice::Recall(recall) => self.forget(recall.handle),
                _ => {}
            }
        }
    }

    /// An offer is over.
    fn forget(&mut self, parcel: Handle) {
        for offer in &OFFERED {
            let packed = offer.load(Ordering::Relaxed);
            if unpack(packed).0 == parcel {
                let _ = offer.compare_exchange(packed, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = u64> + use<> {
        let me = self.me;
        (0..VMS).filter(move |vm| *vm != me)
    }
}

const fn pack(parcel: Handle, label: Label) -> u64 {
    (parcel.0 as u64) << 32 | label.0 as u64
}

const fn unpack(packed: u64) -> (Handle, Label) {
    (Handle((packed >> 32) as u32), Label(packed as u32))
}
