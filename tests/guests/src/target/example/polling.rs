//! For programs without interrupts, or with other work: the message queues, asked now and then. The
//! calls are by function id, as Linux makes them; `HvcQueues` and `Native` do the same natively.

use rm_client::hvc::{SmcccQueues, SmcccTrap};
use rm_client::{Error, NewParcel, Notice, Poll, Queues, Rights, Sanitize, Session, grant, pages};

use super::{ANSWER, ANSWER_AT, PARTNER, QUESTION, TAG};
use crate::demo::granted;
use crate::layout::PAGES;
use crate::{cpu, memory};

/// The program.
pub fn main() {
    granted("the polling example", lend_a_question());
}

fn lend_a_question() -> Result<(), Error> {
    let mut session: Session<SmcccQueues<Poll>> = Session::new(Queues::new(SmcccTrap, Poll));
    memory::write(PAGES, QUESTION);
    let acl = [grant(PARTNER, Rights::RW)];
    let parcel = session.lend(&NewParcel::new(&[pages(PAGES, 1)], &acl))?;
    session.notify_shared(parcel, TAG, &[PARTNER])?;
    println!("lent a page with {QUESTION} in it: parcel {:#x}", parcel.0);

    work_until(&mut session, |notice| matches!(notice, Notice::Accepted(_)))?;
    println!("my partner has accepted it; I ask for it back");
    session.notify_recall(parcel, TAG, &[PARTNER])?;
    work_until(&mut session, |notice| matches!(notice, Notice::Released(_)))?;
    session.reclaim(parcel, Sanitize::empty())?;
    let answer = memory::read(ANSWER_AT);
    assert!(answer == ANSWER, "my partner answered {answer}");
    println!("it answered {answer}, and the page is mine again");
    Ok(())
}

/// Looks for notices between pieces of other work, until one is what was waited for.
fn work_until(
    session: &mut Session<SmcccQueues<Poll>>,
    is_it: impl Fn(&Notice<'_>) -> bool,
) -> Result<(), Error> {
    while !session.poll_notice()?.as_ref().is_some_and(&is_it) {
        // The other work.
        cpu::relax();
    }
    Ok(())
}
