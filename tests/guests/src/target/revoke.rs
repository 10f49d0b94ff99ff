//! An owner takes memory back from a VM that does not want to give it.
//!
//! Cast: this program as first and second VM, linked. B maps what A lends, keeps writing to it on its own
//! CPU, and never makes a call again; A revokes. With a second vCPU B writes on two CPUs at once.

use core::sync::atomic::{AtomicU64, Ordering};

use rm_client::hvc::Hvc;
use rm_client::{Acceptance, ErrorCode, NewParcel, Rights, Sanitize, Session, Transfer, Vmid};
use rm_client::{grant, pages};

use crate::channel::Channel;
use crate::demo::{granted, refused};
use crate::layout::{LINK_AB, PAGE, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{cpu, life, memory, probe};

/// Pages that A lends, every second one of its memory.
const COUNT: u64 = 20;
/// Times that A lends and revokes.
const ROUNDS: u64 = 10;

/// The round that the second vCPU is to write in, and the last one in which it was stopped.
static WANTED: AtomicU64 = AtomicU64::new(0);
static STOPPED: AtomicU64 = AtomicU64::new(0);

/// The second vCPU of a borrower: writes to a page of its own until it is taken away.
pub fn second() {
    for round in 1..=ROUNDS {
        while WANTED.load(Ordering::Acquire) < round {
            cpu::relax();
        }
        while probe::write(WINDOW + PAGE, round).is_ok() {}
        STOPPED.store(round, Ordering::Release);
    }
    cpu::park();
}

/// The program of a VM with a [`second`] vCPU.
pub fn main_of_two() {
    let mut session = life::session();
    borrower(&mut session, &Channel::peer(LINK_AB), true);
}

/// The program.
pub fn main() {
    let mut session = life::session();
    if granted("asking who I am", session.vmid()) == Vmid(VMID_A) {
        owner(&mut session, &Channel::owner(LINK_AB));
    } else {
        borrower(&mut session, &Channel::peer(LINK_AB), false);
    }
}

fn owner(session: &mut Session<Hvc>, b: &Channel) {
    let ranges: [_; COUNT as usize] =
        core::array::from_fn(|index| pages(PAGES + 2 * index as u64 * PAGE, 1));
    for round in 0..ROUNDS {
        for range in &ranges {
            memory::fill(range.ipa, 1, round + 1);
        }
        let acl = [grant(Vmid(VMID_B), Rights::RW)];
        let parcel = granted("lending", session.lend(&NewParcel::new(&ranges, &acl)));
        b.say_handle(parcel);
        b.expect(round);
        let early = session.reclaim(parcel, Sanitize::empty());
        refused("reclaiming what B holds", early, ErrorCode::MemoryInUse);
        granted("revoking", session.revoke(parcel));
        granted("reclaiming", session.reclaim(parcel, Sanitize::empty()));
        ranges.iter().for_each(|range| memory::check_zero(range.ipa, 1));
        b.expect(round);
    }
    println!("took {COUNT} pages back {ROUNDS} times, as zeros, without being asked to");
}

fn borrower(session: &mut Session<Hvc>, a: &Channel, has_second: bool) {
    for round in 0..ROUNDS {
        let parcel = a.hear_handle();
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
        granted("accepting", session.accept_at(&wanted, &[pages(WINDOW, COUNT)]));
        for page in 0..COUNT {
            memory::check(WINDOW + page * PAGE, 1, round + 1);
        }
        WANTED.store(round + 1, Ordering::Release);
        a.say(round);
        // All pages go at their time; who writes to the first finds out when it has gone.
        while probe::write(WINDOW, round).is_ok() {}
        while probe::write(WINDOW + (COUNT - 1) * PAGE, round).is_ok() {}
        for page in 0..COUNT {
            probe::expect_no_access(WINDOW + page * PAGE);
        }
        while has_second && STOPPED.load(Ordering::Acquire) <= round {
            cpu::relax();
        }
        let released = session.release(parcel, Sanitize::empty());
        refused("releasing what was revoked", released, ErrorCode::HandleInvalid);
        a.say(round);
    }
    println!("what I did not give back was taken");
}
