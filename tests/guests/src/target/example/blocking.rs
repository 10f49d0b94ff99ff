//! For programs that sleep until there is something to hear: the message queues and their interrupts.
//!
//! `mailbox.rs` lets the interrupts through and opens the session. Owner and partner are on one CPU
//! here: who sleeps leaves it to the other.

use rm_client::{Error, NewParcel, Notice, Rights, Sanitize, grant, pages};

use super::{ANSWER, ANSWER_AT, PARTNER, QUESTION, TAG};
use crate::demo::granted;
use crate::layout::PAGES;
use crate::{gic, mailbox, memory};

/// The program.
pub fn main() {
    granted("the blocking example", lend_a_question());
}

fn lend_a_question() -> Result<(), Error> {
    let mut session = mailbox::sleeping_session();
    memory::write(PAGES, QUESTION);
    let acl = [grant(PARTNER, Rights::RW)];
    let parcel = session.lend(&NewParcel::new(&[pages(PAGES, 1)], &acl))?;
    session.notify_shared(parcel, TAG, &[PARTNER])?;
    println!("lent a page with {QUESTION} in it: parcel {:#x}", parcel.0);

    while !matches!(session.wait_notice()?, Notice::Accepted(_)) {}
    println!("my partner has accepted it; I ask for it back");
    session.notify_recall(parcel, TAG, &[PARTNER])?;
    while !matches!(session.wait_notice()?, Notice::Released(_)) {}
    session.reclaim(parcel, Sanitize::empty())?;
    let (answer, interrupts) = (memory::read(ANSWER_AT), gic::taken(gic::SPI_RX));
    assert!(answer == ANSWER, "my partner answered {answer}");
    assert!(interrupts > 0, "no message brought an interrupt");
    println!("it answered {answer}, and the page is mine again; {interrupts} interrupts told me");
    Ok(())
}
