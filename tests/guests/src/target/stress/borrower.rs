//! What a vCPU does with the parcels of others.

use core::sync::atomic::Ordering;

use rm_client::{Acceptance, ErrorCode, Handle, Sanitize, TrimFlags, pages};

use super::word::{self, Label, MAX_PAGES, WORDS};
use super::{OFFERED, OFFERS, PARCELS, Player, unpack};
use crate::layout::{PAGE, WINDOW};
use crate::probe::{self, Abort, DATA_ABORT};

/// Distance from one parcel to the next.
const STRIDE: u64 = (MAX_PAGES + 1) * PAGE;
/// What a borrower hears of a parcel that its owner takes, whose owner dies, or on which the VM's other
/// vCPU is at work too.
const GOING: [ErrorCode; 4] =
    [ErrorCode::HandleInvalid, ErrorCode::MemoryReleased, ErrorCode::Denied, ErrorCode::Busy];

/// A parcel that this vCPU has mapped.
#[derive(Clone, Copy)]
pub(super) struct Held {
    parcel: Handle,
    label: Label,
    at: u64,
    /// Pages that this vCPU has given up.
    trimmed: u64,
}

impl Player {
    /// Maps one of the parcels that the VM was offered.
    pub(super) fn accept(&mut self) {
        let slot = self.random.index(PARCELS);
        let (parcel, label) = unpack(OFFERED[self.random.index(OFFERS)].load(Ordering::Relaxed));
        if self.held[slot].is_some() || parcel == Handle(0) {
            return;
        }
        let at = WINDOW + (self.vcpu * PARCELS as u64 + slot as u64) * STRIDE;
        let wanted = Acceptance::new(parcel, label.transfer()).contiguous().expect_label(label.0);
        let outcome = self.session.accept_at(&wanted, &[pages(at, label.pages())]);
        if outcome.is_err() {
            self.forget(parcel);
        }
        let codes = [ErrorCode::HandleInvalid, ErrorCode::Denied, ErrorCode::Busy];
        if self.tolerated("accepting", outcome, &codes).is_some() {
            self.counts.accepted += 1;
            self.held[slot] = Some(Held { parcel, label, at, trimmed: 0 });
        }
    }

    fn one_that_i_hold(&mut self) -> Option<(usize, Held)> {
        let slot = self.random.index(PARCELS);
        Some((slot, self.held[slot]?))
    }

    /// Reads and writes a word of each page. The owner may take the parcel at any time; then it is given
    /// up, so that its addresses are free for another.
    pub(super) fn use_held(&mut self) {
        let Some((slot, held)) = self.one_that_i_hold() else { return };
        for page in 0..held.label.pages() {
            let (number, at) = word::word(held.at + page * PAGE, self.random.index(WORDS));
            let read = self.in_time(at, probe::read(at));
            let given_up = held.trimmed >> page & 1 != 0;
            assert!(!(given_up && read.is_some()), "{at:#x} can be read after it was given up");
            if let Some(found) = read {
                word::expect_stamp(found, held.label, page, number);
                self.counts.read += 1;
            } else if !given_up {
                return self.let_go(slot);
            }
            let stamp = word::stamp(held.label, self.me, page, number);
            if self.random.once_in(2) || !held.label.is_writable() {
                let written = self.in_time(at, probe::write(at, stamp));
                let allowed = held.label.is_writable() && !given_up;
                assert!(
                    allowed || written.is_none(),
                    "{at:#x} of {:x?} can be written",
                    held.label
                );
            }
        }
    }

    /// What came of an access to what may be gone.
    fn in_time<T>(&mut self, at: u64, outcome: Result<T, Abort>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            abort => {
                probe::expect_abort(abort, DATA_ABORT, at);
                self.counts.late += 1;
                None
            }
        }
    }

    /// Gives a parcel back.
    pub(super) fn release(&mut self) {
        if let Some((slot, _)) = self.one_that_i_hold() {
            self.let_go(slot);
        }
    }

    /// Gives the parcel of a slot back, if it is still there to be given back.
    pub(super) fn let_go(&mut self, slot: usize) {
        let Some(held) = self.held[slot] else { return };
        let wipe = held.label.is_writable() && self.random.once_in(4);
        let flags = if wipe { Sanitize::SANITIZE } else { Sanitize::empty() };
        let outcome = self.session.release(held.parcel, flags);
        let busy = outcome == Err(rm_client::Error::Refused(ErrorCode::Busy));
        self.tolerated("releasing", outcome, &GOING);
        if !busy {
            self.held[slot] = None;
        }
    }

    /// Gives a page up.
    pub(super) fn trim_held(&mut self) {
        let Some((slot, held)) = self.one_that_i_hold() else { return };
        let page = self.random.below(held.label.pages());
        // Others that have the page see the zeros: so only where zeros may be.
        let may_wipe = held.label.is_writable() && held.label.is_zeroed();
        let wipe = may_wipe && self.random.once_in(2);
        let flags = if wipe { TrimFlags::SANITIZE } else { TrimFlags::empty() };
        let outcome = self.session.trim(held.parcel, page * PAGE, PAGE, flags);
        if self.tolerated("giving a page up", outcome, &GOING).is_some() {
            probe::expect_no_access(held.at + page * PAGE);
            self.held[slot] = Some(Held { trimmed: held.trimmed | 1 << page, ..held });
        }
    }
}
