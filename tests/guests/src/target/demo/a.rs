//! VM A: the owner.

use rm_client::hvc::{HvcQueues, Sleep};
use rm_client::{
    ErrorCode, Handle, NewParcel, Notice, Rights, Sanitize, Session, Vmid, grant, pages,
};

use super::{DONE, FROM_A, FROM_B, LABEL, TAG, granted, refused};
use crate::channel::Channel;
use crate::layout::{LINK_AB, LINK_AC, PAGE, PAGES, VMID_A, VMID_B, VMID_C};
use crate::{mailbox, memory, probe};

const B: Vmid = Vmid(VMID_B);
/// How many pages A shares and lends.
const COUNT: u64 = 2;

/// What A needs to tell its part.
struct Story {
    session: Session<HvcQueues<Sleep>>,
    b: Channel,
    c: Channel,
}

/// A's part.
pub fn main() {
    let mut story = Story {
        session: mailbox::sleeping_session(),
        b: Channel::owner(LINK_AB),
        c: Channel::owner(LINK_AC),
    };
    let me = granted("asking who I am", story.session.vmid());
    assert!(me == Vmid(VMID_A), "I am {me:?}");
    println!("I am VM {:#x}; B is {VMID_B:#x}, C is {VMID_C:#x}", me.0);
    story.share_with_b();
    story.lend_to_b_and_not_to_c();
    story.lend_for_reading();
    story.reclaim_with_what_b_wrote();
    println!("all my pages are home");
}

impl Story {
    fn share_with_b(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let acl = [grant(Vmid(VMID_A), Rights::RW), grant(B, Rights::RW)];
        let ranges = [pages(PAGES, COUNT)];
        let parcel = NewParcel::new(&ranges, &acl).label(LABEL);
        let parcel = granted("sharing", self.session.share(&parcel));
        println!("shared {COUNT} pages with B, both may write: parcel {:#x}", parcel.0);
        self.offer_to_b(parcel);

        self.expect_accepted(parcel);
        memory::check(PAGES, COUNT, FROM_B);
        println!("B tells me that it accepted; I see what it wrote, and write again");
        memory::fill(PAGES, COUNT, FROM_A + 1);
        self.b.say(DONE);

        self.b.expect(DONE);
        let early = self.session.reclaim(parcel, Sanitize::empty());
        refused("reclaiming what B holds", early, ErrorCode::MemoryInUse);
        println!("reclaiming while B holds it is refused; I ask B for it");
        granted("recalling", self.session.notify_recall(parcel, TAG, &[B]));

        self.expect_released(parcel);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        memory::check(PAGES, COUNT, FROM_A + 1);
        println!("B released it, I reclaimed it");
    }

    fn lend_to_b_and_not_to_c(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let parcel = self.lend(Rights::RW);
        println!("lent {COUNT} pages to B: parcel {:#x}", parcel.0);
        for page in 0..COUNT {
            probe::expect_no_access(PAGES + page * PAGE);
        }
        println!("my own access to them faults (ESR {:#x})", probe::DATA_ABORT);
        self.c.say_handle(parcel);
        self.c.expect(DONE);
        self.offer_to_b(parcel);

        self.expect_released(parcel);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::SANITIZE));
        memory::check_zero(PAGES, COUNT);
        println!("reclaimed with sanitize: I read zeros");
    }

    fn lend_for_reading(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let parcel = self.lend(Rights::R);
        println!("lent {COUNT} pages to B for reading: parcel {:#x}", parcel.0);
        self.offer_to_b(parcel);
        self.expect_released(parcel);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        memory::check(PAGES, COUNT, FROM_A);
        println!("reclaimed: B could not change them");
    }

    fn reclaim_with_what_b_wrote(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let parcel = self.lend(Rights::RW);
        self.offer_to_b(parcel);
        self.expect_released(parcel);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        memory::check(PAGES, COUNT, FROM_B);
        println!("lent once more and reclaimed without sanitize: I read what B wrote");
    }

    fn lend(&mut self, rights: Rights) -> Handle {
        let (ranges, acl) = ([pages(PAGES, COUNT)], [grant(B, rights)]);
        let parcel = NewParcel::new(&ranges, &acl).label(LABEL);
        granted("lending", self.session.lend(&parcel))
    }

    /// B hears of it by a message in its queue, which interrupts it.
    fn offer_to_b(&mut self, parcel: Handle) {
        granted("offering", self.session.notify_shared(parcel, TAG, &[B]));
    }

    /// Sleeps until B tells that it has accepted.
    fn expect_accepted(&mut self, parcel: Handle) {
        loop {
            match granted("waiting", self.session.wait_notice()) {
                Notice::Accepted(news) if news.handle == parcel && news.borrower == B => return,
                // That C has ended.
                Notice::Status(_) => {}
                other => panic!("I hear {other:x?}, not that B accepted {parcel:x?}"),
            }
        }
    }

    /// Sleeps until B tells that it has released.
    fn expect_released(&mut self, parcel: Handle) {
        loop {
            match granted("waiting", self.session.wait_notice()) {
                Notice::Released(news) if news.handle == parcel && news.borrower == B => return,
                Notice::Status(_) => {}
                other => panic!("I hear {other:x?}, not that B released {parcel:x?}"),
            }
        }
    }
}
