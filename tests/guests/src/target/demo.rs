//! Three VMs, one of which shares and lends its memory: what the first run shows.
//!
//! A owns the pages. B is in the access lists, C is not. Each tells its part of the story on its own
//! console, and checks every word of it: a line that is not true ends the run as a failure.
//!
//! A and B call over their message queues, and tell each other by notices what is offered, accepted,
//! wanted back and released; who waits for one sleeps until its queue interrupts. C calls directly.

pub mod a;
pub mod b;
pub mod c;

use rm_client::{Error, ErrorCode, Handle};

use crate::channel::Channel;

/// Label of the demo's parcels.
pub(crate) const LABEL: u32 = 0xde30;

/// What A calls its parcels in notices.
pub(crate) const TAG: u32 = 0xa;

/// What A fills pages with, and B.
pub(crate) const FROM_A: u64 = 0xa;
pub(crate) const FROM_B: u64 = 0xb;

/// The word by which one goes on and C is done. Handles are sent as they are.
pub(crate) const DONE: u64 = 0xd08e;

impl Channel {
    pub(crate) fn say_handle(&self, handle: Handle) {
        self.say(handle.0.into());
    }

    pub(crate) fn hear_handle(&self) -> Handle {
        let word = self.hear();
        Handle(u32::try_from(word).unwrap_or_else(|_| panic!("{word:#x} is no handle")))
    }
}

/// What a call that must succeed returned.
pub(crate) fn granted<T>(what: &str, outcome: Result<T, Error>) -> T {
    outcome.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Checks that a call was refused with this code.
pub(crate) fn refused<T>(what: &str, outcome: Result<T, Error>, code: ErrorCode) {
    match outcome {
        Ok(_) => panic!("{what}: was not refused"),
        Err(error) => assert!(error == Error::Refused(code), "{what}: {error}, not {code:?}"),
    }
}
