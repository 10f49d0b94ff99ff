//! The borrower's half.

use rm_client::{Acceptance, Sanitize, Session, SglEntry, Transfer, Transport, pages};

use super::{
    BELLS, CONTIGUOUS, END, FROM_A, FROM_B, LongSession, NAP_B, NOTICES, QUEUED, QueueSession,
    ROUNDS, bells, count, long_session, mailbox, queue_session,
};
use crate::channel::Channel;
use crate::demo::granted;
use crate::layout::{LINK_AB, PAGE};
use crate::memory;

/// The program.
pub fn main() {
    let (mut session, mut queued) = (long_session(), queue_session());
    let a = Channel::peer(LINK_AB).with_naps(NAP_B);
    loop {
        let case = a.hear();
        if case == END {
            break;
        }
        match case {
            NOTICES => mailbox::hear_and_tell(&a),
            BELLS => bells::pong(&a),
            _ => cycles(&mut session, &mut queued, &a, case),
        }
    }
}

/// The borrower's part of a case of share cycles.
fn cycles(session: &mut LongSession, queued: &mut QueueSession, a: &Channel, case: u64) {
    for _ in 0..=ROUNDS {
        match case {
            QUEUED => once(queued, a, true),
            _ => once(session, a, case == CONTIGUOUS),
        }
    }
}

/// Accepts and releases one parcel, and tells A what that took.
fn once<T: Transport, const N: usize>(session: &mut Session<T, N>, a: &Channel, contiguous: bool) {
    let handle = a.hear_handle();
    let wanted = Acceptance::new(handle, Transfer::Share);
    let wanted = if contiguous { wanted.contiguous() } else { wanted };
    let mut places = [pages(0, 0); 512];
    let (accept, outcome) = count(|| session.accept(&wanted));
    let mut used = 0;
    for place in granted("accepting", outcome) {
        places[used] = place;
        used += 1;
    }
    exchange(&places[..used]);
    let (release, outcome) = count(|| session.release(handle, Sanitize::empty()));
    granted("releasing", outcome);
    a.say(accept);
    a.say(release);
}

/// Reads what A wrote, and writes for A to read.
fn exchange(places: &[SglEntry]) {
    for place in places {
        let count = place.size / PAGE;
        memory::check(place.ipa, count, FROM_A);
        memory::fill(place.ipa, count, FROM_B);
    }
}
