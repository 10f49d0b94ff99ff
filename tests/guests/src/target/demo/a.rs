//! VM A: the owner.

use rm_client::{ErrorCode, hvc::Hvc};
use rm_client::{Handle, NewParcel, Rights, Sanitize, Session, Vmid, grant, pages};

use super::{DONE, FROM_A, FROM_B, LABEL, granted, refused};
use crate::channel::Channel;
use crate::layout::{LINK_AB, LINK_AC, PAGE, PAGES, VMID_A, VMID_B, VMID_C};
use crate::{life, memory, probe};

const B: Vmid = Vmid(VMID_B);
/// How many pages A shares and lends.
const COUNT: u64 = 2;

/// What A needs to tell its part.
struct Story {
    session: Session<Hvc>,
    b: Channel,
    c: Channel,
}

/// A's part.
pub fn main() {
    let mut story =
        Story { session: life::session(), b: Channel::owner(LINK_AB), c: Channel::owner(LINK_AC) };
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
        self.b.say_handle(parcel);

        self.b.expect(DONE);
        memory::check(PAGES, COUNT, FROM_B);
        println!("I see what B wrote, and write again");
        memory::fill(PAGES, COUNT, FROM_A + 1);
        self.b.say(DONE);

        self.b.expect(DONE);
        let early = self.session.reclaim(parcel, Sanitize::empty());
        refused("reclaiming what B holds", early, ErrorCode::MemoryInUse);
        println!("reclaiming while B holds it is refused");
        self.b.say(DONE);

        self.b.expect(DONE);
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
        self.b.say_handle(parcel);

        self.b.expect(DONE);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::SANITIZE));
        memory::check_zero(PAGES, COUNT);
        println!("reclaimed with sanitize: I read zeros");
    }

    fn lend_for_reading(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let parcel = self.lend(Rights::R);
        println!("lent {COUNT} pages to B for reading: parcel {:#x}", parcel.0);
        self.b.say_handle(parcel);
        self.b.expect(DONE);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        memory::check(PAGES, COUNT, FROM_A);
        println!("reclaimed: B could not change them");
    }

    fn reclaim_with_what_b_wrote(&mut self) {
        memory::fill(PAGES, COUNT, FROM_A);
        let parcel = self.lend(Rights::RW);
        self.b.say_handle(parcel);
        self.b.expect(DONE);
        granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        memory::check(PAGES, COUNT, FROM_B);
        println!("lent once more and reclaimed without sanitize: I read what B wrote");
    }

    fn lend(&mut self, rights: Rights) -> Handle {
        let (ranges, acl) = ([pages(PAGES, COUNT)], [grant(B, rights)]);
        let parcel = NewParcel::new(&ranges, &acl).label(LABEL);
        granted("lending", self.session.lend(&parcel))
    }
}
