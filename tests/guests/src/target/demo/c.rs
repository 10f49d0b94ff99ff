//! VM C: not in any access list.

use rm_client::{Acceptance, ErrorCode, Sanitize, Transfer, pages};

use super::{DONE, refused};
use crate::channel::Channel;
use crate::layout::{LINK_AC, WINDOW};
use crate::{life, probe};

/// C's part.
pub fn main() {
    let a = Channel::peer(LINK_AC);
    let mut session = life::session();
    let parcel = a.hear_handle();
    println!("A let slip that there is a parcel {:#x}", parcel.0);

    // To who is no party, the parcel does not exist.
    let wanted = Acceptance::new(parcel, Transfer::Lend).contiguous();
    let accepted = session.accept_at(&wanted, &[pages(WINDOW, 2)]);
    refused("accepting", accepted, ErrorCode::HandleInvalid);
    let released = session.release(parcel, Sanitize::empty());
    refused("releasing", released, ErrorCode::HandleInvalid);
    let reclaimed = session.reclaim(parcel, Sanitize::SANITIZE);
    refused("reclaiming", reclaimed, ErrorCode::HandleInvalid);
    println!("I may not accept, release or reclaim it: no such parcel, they say");

    probe::expect_no_access(WINDOW);
    println!("and where I wanted it, my access faults");
    a.say(DONE);
}
