//! The borrower of all examples: sleeps until a parcel is offered, answers, gives it back when asked.

use rm_client::{Acceptance, Error, ErrorCode, Notice, Sanitize};

use super::{ANSWER_OFFSET, OWNER};
use crate::demo::granted;
use crate::{mailbox, memory};

/// The program.
pub fn main() {
    granted("the partner's part", answer());
}

fn answer() -> Result<(), Error> {
    let mut session = mailbox::sleeping_session();
    let offer = loop {
        if let Notice::Shared(offered) = session.wait_notice()? {
            break offered.offer;
        }
    };
    assert!(offer.owner == OWNER, "{:?} offers me a parcel", offer.owner);
    let wanted = Acceptance::new(offer.handle, offer.transfer).contiguous();
    let place = session.accept(&wanted)?.next().ok_or(Error::Malformed)?;
    let question = memory::read(place.ipa);
    memory::write(place.ipa + ANSWER_OFFSET, question + 1);
    session.notify_accepted(offer.handle, offer.tag)?;
    println!("accepted {:#x} at {:#x}: it asks {question}", offer.handle.0, place.ipa);

    while !matches!(session.wait_notice()?, Notice::Recall(_)) {}
    session.release(offer.handle, Sanitize::empty())?;
    match session.notify_released(offer.handle, offer.tag) {
        // An owner that does not wait to be told has it already.
        Err(Error::Refused(ErrorCode::HandleInvalid)) => {}
        outcome => outcome?,
    }
    println!("released it, as its owner asked");
    Ok(())
}
