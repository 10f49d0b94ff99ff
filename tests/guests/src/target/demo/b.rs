//! VM B: the borrower.

use rm_client::hvc::{HvcQueues, Sleep};
use rm_client::{
    Acceptance, ErrorCode, Handle, Notice, Rights, Sanitize, Session, SglEntry, Transfer, Vmid,
    grant, pages,
};

use super::{DONE, FROM_A, FROM_B, LABEL, TAG, granted, refused};
use crate::channel::Channel;
use crate::layout::{LINK_AB, PAGE, VMID_A, VMID_B, WINDOW};
use crate::{gic, mailbox, memory, probe};

/// What B needs to tell its part.
struct Story {
    session: Session<HvcQueues<Sleep>>,
    a: Channel,
}

/// B's part.
pub fn main() {
    let mut story = Story { session: mailbox::sleeping_session(), a: Channel::peer(LINK_AB) };
    story.use_what_is_shared();
    story.use_what_is_lent();
    story.only_read();
    story.leave_something_behind();
    println!("I hold nothing any more");
}

impl Story {
    fn use_what_is_shared(&mut self) {
        let parcel = self.hear_offer(Transfer::Share);
        assert!(gic::taken(gic::SPI_RX) > 0, "nothing has interrupted me");
        println!("a message interrupts me: A offers parcel {:#x}", parcel.0);
        probe::expect_no_access(WINDOW);
        // The access list as A wrote it: a parcel that differs is not the one that was meant.
        let acl = [grant(Vmid(VMID_A), Rights::RW), grant(Vmid(VMID_B), Rights::RW)];
        let wanted = Acceptance::new(parcel, Transfer::Share)
            .contiguous()
            .expect_label(LABEL)
            .expect_acl(&acl, &[]);
        granted("accepting", self.session.accept_at(&wanted, &[pages(WINDOW, 2)]));
        memory::check(WINDOW, 2, FROM_A);
        println!("accepted {:#x} at {WINDOW:#x}: I see what A wrote, and write", parcel.0);
        memory::fill(WINDOW, 2, FROM_B);
        granted("telling A", self.session.notify_accepted(parcel, TAG));

        self.a.expect(DONE);
        memory::check(WINDOW, 2, FROM_A + 1);
        println!("I see what A wrote after that");
        let again = self.session.accept_at(&wanted, &[pages(WINDOW + 2 * PAGE, 2)]);
        refused("accepting twice", again, ErrorCode::Denied);
        self.a.say(DONE);

        self.expect_recall(parcel);
        self.give_back(parcel, pages(WINDOW, 2));
        println!("released it, as A asked: my access faults");
    }

    fn use_what_is_lent(&mut self) {
        let (parcel, place) = self.accept_anywhere();
        memory::check(place.ipa, 2, FROM_A);
        println!("accepted {:#x}, RM chose {:#x}: I see A's data", parcel.0, place.ipa);
        memory::fill(place.ipa, 2, FROM_B);
        self.give_back(parcel, place);
    }

    fn only_read(&mut self) {
        let (parcel, place) = self.accept_anywhere();
        memory::check(place.ipa, 2, FROM_A);
        let write = probe::write(place.ipa, 0);
        probe::expect_abort(write, probe::DATA_ABORT, place.ipa);
        println!("I can read {:#x}, and writing to it faults", parcel.0);
        self.give_back(parcel, place);
    }

    fn leave_something_behind(&mut self) {
        let (parcel, place) = self.accept_anywhere();
        memory::fill(place.ipa, 2, FROM_B);
        self.give_back(parcel, place);
    }

    /// Sleeps until A offers a parcel.
    fn hear_offer(&mut self, transfer: Transfer) -> Handle {
        loop {
            match granted("waiting", self.session.wait_notice()) {
                Notice::Shared(offered)
                    if offered.offer.owner == Vmid(VMID_A)
                        && offered.offer.transfer == transfer =>
                {
                    assert!(offered.offer.label == LABEL, "{:x?}", offered.offer);
                    return offered.offer.handle;
                }
                // That A has ended.
                Notice::Status(_) => {}
                other => panic!("I hear {other:x?}, and no offer of A's"),
            }
        }
    }

    /// Sleeps until A wants the parcel back.
    fn expect_recall(&mut self, parcel: Handle) {
        loop {
            match granted("waiting", self.session.wait_notice()) {
                Notice::Recall(recall) if recall.handle == parcel => return,
                Notice::Status(_) => {}
                other => panic!("I hear {other:x?}, not that A wants {parcel:x?} back"),
            }
        }
    }

    /// Accepts the next parcel that A lends where the resource manager finds room.
    fn accept_anywhere(&mut self) -> (Handle, SglEntry) {
        let parcel = self.hear_offer(Transfer::Lend);
        let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous().expect_label(LABEL);
        let mut places = granted("accepting", self.session.accept(&wanted));
        let place = places.next().expect("a contiguous parcel has one place");
        assert!(place.size == 2 * PAGE && places.next().is_none(), "{place:x?}");
        (parcel, place)
    }

    /// Releases a parcel, and tells A so.
    fn give_back(&mut self, parcel: Handle, place: SglEntry) {
        granted("releasing", self.session.release(parcel, Sanitize::empty()));
        probe::expect_no_access(place.ipa);
        probe::expect_no_access(place.ipa + place.size - 8);
        granted("telling A", self.session.notify_released(parcel, TAG));
    }
}
