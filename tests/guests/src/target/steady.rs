//! Two VMs that share memory in rounds while a third does its worst, and lose nothing by it.
//!
//! Cast: this program as first and second VM, linked; `wild` as third, linked with the first, which lets it
//! begin and hears from the manager when it is gone. In each round one of the two makes a parcel and the
//! other uses it; in some of them the third may use it too. Calls go by queues and directly in turns.
//!
//! Each word is checked wherever the third has no say: what only the two have, what the third may but read,
//! and the pages around every parcel. All handles are posted where the third reads them.

mod round;

use rm_client::{
    Acceptance, Error, ErrorCode, Handle, Notice, Sanitize, Session, Transfer, VmState, Vmid,
};

use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{LINK_AB, LINK_AC, PAGE, VMID_A, VMID_B, VMID_C};
use crate::stress::lines::Lines;
use crate::{cpu, gic, memory};

/// The third VM's name.
const THIRD: Vmid = Vmid(VMID_C);
/// Rounds, at least, while the third is there: who makes fewer was starved.
const ROUNDS: u64 = 40;
/// Rounds for which the third may read the same pages.
const STANDING: u64 = 8;
/// Rounds when it is gone.
const AFTER: u64 = 8;
/// Seconds that a round may take. It takes milliseconds; the rest is for a machine that others use too.
const PATIENCE: u64 = 20;

/// Words of the link between the first VM and the third.
pub(crate) const BEGIN: u64 = 0x8e91;
/// Where handles are posted in its page.
pub(crate) const POSTED: u64 = PAGE / 2;
/// How many.
pub(crate) const POSTS: u64 = 8;

const READY: u64 = 0x5eed;
const NEXT: u64 = 0x7e87;
const END: u64 = 0xe7d;

/// One of the two.
struct Steady {
    session: Session<Lines>,
    /// The other.
    peer: Vmid,
    channel: Channel,
    /// Refusals because somebody had left too much unread.
    turned_away: u32,
    /// What came unasked.
    notices: u32,
    /// The latest parcel of the third's that was offered.
    offered: Option<(Handle, Transfer)>,
    /// How many of those were used.
    used: u32,
    /// What the third may read for some rounds.
    standing: Option<Handle>,
}

/// How much of each resource the third VM uses.
type Usage = [u64; rm_client::Limit::COUNT];

/// The program.
pub fn main() {
    gic::enable();
    [gic::SPI_TX, gic::SPI_RX].into_iter().for_each(gic::unmask);
    cpu::unmask_interrupts();
    let mut session = Session::new(Lines::new(true));
    let first = granted("asking who I am", session.vmid()) == Vmid(VMID_A);
    let (channel, peer) = if first {
        (Channel::owner(LINK_AB), Vmid(VMID_B))
    } else {
        (Channel::peer(LINK_AB), Vmid(VMID_A))
    };
    let (turned_away, notices, used) = (0, 0, 0);
    let (offered, standing) = (None, None);
    let mut steady =
        Steady { session, peer, channel, turned_away, notices, offered, used, standing };
    steady.keep_all();
    if first {
        steady.lead()
    } else {
        steady.follow()
    }
    steady.end_standing();
    let Steady { turned_away, notices, used, .. } = steady;
    println!("{turned_away} offers had to wait, {notices} notices came, {used} offers were used");
}

impl Steady {
    /// What the first does: it says when a round begins, and when it was the last.
    fn lead(&mut self) {
        let third = Channel::owner(LINK_AC);
        let before = self.usage_of_third();
        self.channel.expect(READY);
        third.say(BEGIN);
        let (mut rounds, mut beside, mut longest) = (0, 0, 0);
        while self.third() != VmState::Reset {
            beside += 1;
            longest = longest.max(self.next_round(&mut rounds));
        }
        println!("{beside} rounds beside the third, the longest took {longest} us");
        assert!(beside >= ROUNDS, "the third kept us from making {ROUNDS} rounds");
        for _ in 0..AFTER {
            self.next_round(&mut rounds);
        }
        self.channel.say(END);
        // When this VM ends, the page of the channel goes: the other must have used it for the last time.
        self.channel.expect(END);
        let after = self.usage_of_third();
        let left = before.iter().zip(after).all(|(before, after)| after <= *before);
        assert!(left, "the third used {before:?} before it began, and {after:?} when it was gone");
        println!("the third left nothing behind");
    }

    /// One more round; the microseconds that it took.
    fn next_round(&mut self, rounds: &mut u64) -> u64 {
        let start = cpu::now();
        self.channel.say(NEXT);
        self.round(*rounds, rounds.is_multiple_of(2));
        *rounds += 1;
        (cpu::now() - start) * 1_000_000 / cpu::frequency()
    }

    /// What the second does.
    fn follow(&mut self) {
        self.channel.say(READY);
        let mut rounds = 0;
        while self.hear() == NEXT {
            self.round(rounds, !u64::is_multiple_of(rounds, 2));
            rounds += 1;
        }
        self.channel.say(END);
    }

    fn round(&mut self, number: u64, mine: bool) {
        self.session.transport().choose((number / 4).is_multiple_of(2));
        if number.is_multiple_of(STANDING) {
            self.renew_standing();
        }
        if mine {
            self.give(number)
        } else {
            self.take(number)
        }
        self.use_offer();
        self.check_kept();
    }

    /// Accepts what the third has offered and gives it back. It may be anything, and gone at any time.
    fn use_offer(&mut self) {
        let Some((parcel, transfer)) = self.offered.take() else { return };
        let accepted = self.session.accept(&Acceptance::new(parcel, transfer).contiguous());
        if accepted.is_ok() {
            self.used += 1;
            let released = self.session.release(parcel, Sanitize::empty());
            let gone = Err(Error::Refused(ErrorCode::HandleInvalid));
            assert!(released.is_ok() || released == gone, "giving an offer back: {released:?}");
        }
    }

    /// The peer's next word. Who waits reads its notices: nobody names a VM in an offer that does not.
    fn hear(&mut self) -> u64 {
        let start = cpu::now();
        while !self.channel.has_word() {
            self.listen();
            cpu::relax();
            self.be_patient(start);
        }
        self.channel.hear()
    }

    /// Reads what has come unasked. Most of it is the third's doing.
    fn listen(&mut self) {
        while let Some(notice) = self.session.transport().poll_notice() {
            self.notices += 1;
            // A gift would be a page that the third has no more when its memory is counted.
            if let Notice::Shared(offered) = notice
                && offered.offer.owner == THIRD
                && offered.offer.transfer != Transfer::Donate
            {
                self.offered = Some((offered.offer.handle, offered.offer.transfer));
            }
        }
    }

    fn be_patient(&self, start: u64) {
        assert!(!cpu::passed(start, PATIENCE * cpu::frequency()), "nothing goes on");
    }

    /// What came of a call that may be refused because of what somebody has not read.
    fn unless_unread<T>(&mut self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        if matches!(outcome, Err(Error::Refused(ErrorCode::NoResource))) {
            self.turned_away += 1;
            return None;
        }
        Some(granted(what, outcome))
    }

    fn third(&mut self) -> VmState {
        granted("asking how the third is", self.session.vm_state(THIRD))
    }

    fn usage_of_third(&mut self) -> Usage {
        let limits = granted("asking what the third uses", self.session.limits(THIRD));
        let mut used = [0; rm_client::Limit::COUNT];
        for (used, limit) in used.iter_mut().zip(limits.resources) {
            *used = limit.used;
        }
        used
    }

    /// Posts a handle for the third to try.
    fn post(&self, number: u64, handle: Handle) {
        if self.peer == Vmid(VMID_B) {
            memory::write(LINK_AC.owner + POSTED + number % POSTS * 8, handle.0.into());
        }
    }
}
