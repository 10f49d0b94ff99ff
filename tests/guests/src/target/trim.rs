//! A page leaves a block that two VMs have, and both keep what is around it.
//!
//! Cast: this program as first and second VM, linked. A lends or shares a block of 2 MiB, B maps it as one.
//! B gives a page in its middle up, A takes it back, writes to it and lends it in another parcel; then the
//! rest goes home too.

use rm_client::hvc::Hvc;
use rm_client::{Acceptance, ErrorCode, NewParcel, Rights, Sanitize, Session, Transfer, Vmid};
use rm_client::{TrimFlags, grant, pages};

use crate::channel::Channel;
use crate::demo::{granted, refused};
use crate::layout::{BLOCK, LINK_AB, PAGE, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{life, memory, probe};

/// Pages of the block, and the one that leaves it.
const COUNT: u64 = BLOCK / PAGE;
const MIDDLE: u64 = 100;
/// Times that it does.
const ROUNDS: u64 = 8;

/// The program.
pub fn main() {
    let mut session = life::session();
    if granted("asking who I am", session.vmid()) == Vmid(VMID_A) {
        owner(&mut session, &Channel::owner(LINK_AB));
    } else {
        borrower(&mut session, &Channel::peer(LINK_AB));
    }
}

/// What a round does: the kind of its parcel, and how B gives the page up.
const fn round_of(round: u64) -> (Transfer, TrimFlags) {
    let transfer = if round.is_multiple_of(2) { Transfer::Lend } else { Transfer::Share };
    let wiped = round / 2 % 2 == 1;
    (transfer, if wiped { TrimFlags::SANITIZE } else { TrimFlags::empty() })
}

/// What a page holds: at first, and after B wrote to it.
const fn first(round: u64, page: u64) -> u64 {
    round << 16 | page
}

const fn second(round: u64, page: u64) -> u64 {
    first(round, page) | 1 << 31
}

fn owner(session: &mut Session<Hvc>, b: &Channel) {
    let middle = PAGES + MIDDLE * PAGE;
    let (ours, theirs) = (grant(Vmid(VMID_A), Rights::RW), grant(Vmid(VMID_B), Rights::RW));
    for round in 0..ROUNDS {
        let (transfer, flags) = round_of(round);
        (0..COUNT).for_each(|page| memory::fill(PAGES + page * PAGE, 1, first(round, page)));
        let block = [pages(PAGES, COUNT)];
        let parcel = match transfer {
            Transfer::Share => session.share(&NewParcel::new(&block, &[ours, theirs])),
            _ => session.lend(&NewParcel::new(&block, &[theirs])),
        };
        let parcel = granted("offering a block", parcel);
        b.say_handle(parcel);
        b.expect(round);
        let mut trim = |flags| session.trim(parcel, MIDDLE * PAGE, PAGE, flags);
        refused("trimming what B has", trim(TrimFlags::empty()), ErrorCode::MemoryInUse);
        b.say(round);
        b.expect(round);
        if transfer == Transfer::Lend {
            [middle - PAGE, middle, middle + PAGE].into_iter().for_each(probe::expect_no_access);
        }
        granted("trimming", trim(TrimFlags::empty()));
        refused("trimming twice", trim(TrimFlags::empty()), ErrorCode::MemoryReleased);
        if flags.contains(TrimFlags::SANITIZE) {
            memory::check_zero(middle, 1);
        } else {
            memory::check(middle, 1, second(round, MIDDLE));
        }
        memory::fill(middle, 1, round);
        let other = session.lend(&NewParcel::new(&[pages(middle, 1)], &[theirs]));
        let other = granted("lending it elsewhere", other);
        granted("reclaiming that", session.reclaim(other, Sanitize::empty()));
        b.say(round);
        b.expect(round);
        granted("reclaiming the rest", session.reclaim(parcel, Sanitize::empty()));
        for page in (0..COUNT).filter(|&page| page != MIDDLE) {
            memory::check(PAGES + page * PAGE, 1, second(round, page));
        }
        memory::check(middle, 1, round);
    }
    println!("a page left a block {ROUNDS} times, and came home before the others");
}

fn borrower(session: &mut Session<Hvc>, a: &Channel) {
    for round in 0..ROUNDS {
        let (transfer, flags) = round_of(round);
        let parcel = a.hear_handle();
        let wanted = Acceptance::new(parcel, transfer).contiguous();
        granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, COUNT)]));
        for page in 0..COUNT {
            memory::check(WINDOW + page * PAGE, 1, first(round, page));
            memory::fill(WINDOW + page * PAGE, 1, second(round, page));
        }
        a.say(round);
        a.expect(round);
        granted("giving a page up", session.trim(parcel, MIDDLE * PAGE, PAGE, flags));
        probe::expect_no_access(WINDOW + MIDDLE * PAGE);
        a.say(round);
        a.expect(round);
        for page in (0..COUNT).filter(|&page| page != MIDDLE) {
            memory::check(WINDOW + page * PAGE, 1, second(round, page));
        }
        probe::expect_no_access(WINDOW + MIDDLE * PAGE);
        granted("releasing the rest", session.release(parcel, Sanitize::empty()));
        a.say(round);
    }
    println!("I gave a page up {ROUNDS} times and kept its neighbours");
}
