//! For who has calls to make and nothing to hear: the direct call, one trap for request and reply.
//!
//! Notices come by the queues alone, so this owner shares its page and looks into it for the answer,
//! and asks for it until it gets it back.

use rm_client::hvc::{Hvc, Native};
use rm_client::{Direct, Error, ErrorCode, NewParcel, Rights, Sanitize, Session, grant, pages};

use super::{ANSWER, ANSWER_AT, OWNER, PARTNER, QUESTION, TAG};
use crate::demo::granted;
use crate::layout::PAGES;
use crate::{cpu, memory};

/// The program.
pub fn main() {
    granted("the direct example", share_a_question());
}

fn share_a_question() -> Result<(), Error> {
    let mut session: Session<Hvc> = Session::new(Direct(Native));
    memory::write(PAGES, QUESTION);
    memory::write(ANSWER_AT, 0);
    let acl = [grant(OWNER, Rights::RW), grant(PARTNER, Rights::RW)];
    let parcel = session.share(&NewParcel::new(&[pages(PAGES, 1)], &acl))?;
    session.notify_shared(parcel, TAG, &[PARTNER])?;
    println!("shared a page with {QUESTION} in it: parcel {:#x}", parcel.0);

    while memory::read(ANSWER_AT) != ANSWER {
        cpu::relax();
    }
    session.notify_recall(parcel, TAG, &[PARTNER])?;
    loop {
        match session.reclaim(parcel, Sanitize::empty()) {
            Err(Error::Refused(ErrorCode::MemoryInUse)) => cpu::relax(),
            outcome => break outcome?,
        }
    }
    println!("my partner answered {}, and the page is mine again", memory::read(ANSWER_AT));
    Ok(())
}
