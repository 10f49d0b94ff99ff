//! What carries messages between supplier and consumer: rings in the page that they share, and each
//! other's doorbell.

use rm_client::supplier::{Receiver, Ring, Sender};

use crate::doorbells::{BELL, read, ring};
use crate::layout::Link;
use crate::{cpu, gic, timer};

/// One end.
pub(crate) struct Wire {
    out: Sender<'static>,
    into: Receiver<'static>,
}

/// How long an end sleeps at most.
const NAP: u64 = 10_000;

impl Wire {
    /// The end of the page's owner.
    pub(crate) fn owner(link: Link) -> Self {
        let [out, into] = rings(link.owner);
        Self::new(out, into)
    }

    /// The other end.
    pub(crate) fn peer(link: Link) -> Self {
        let [into, out] = rings(link.peer);
        Self::new(out, into)
    }

    fn new(out: &'static Ring, into: &'static Ring) -> Self {
        gic::enable();
        gic::unmask(BELL);
        gic::unmask(timer::INTERRUPT);
        cpu::unmask_interrupts();
        Self { out: Sender::new(out), into: Receiver::new(into) }
    }

    /// Sends a message and rings.
    pub(crate) fn send(&mut self, message: &[u8]) {
        assert!(self.out.put(message), "the peer hears nothing");
        ring(1);
    }

    /// The next message, after one sleep at most.
    pub(crate) fn hear(&mut self) -> Option<&[u8]> {
        let taken = gic::taken(BELL);
        // Before the look: who rings behind it is not missed.
        read();
        cpu::mask_interrupts();
        if self.into.is_empty() && gic::taken(BELL) == taken {
            timer::after(timer::microseconds(NAP));
            cpu::wait_for_interrupt();
            timer::stop();
        }
        cpu::unmask_interrupts();
        self.into.take()
    }
}

fn rings(page: u64) -> &'static [Ring; 2] {
    let page = page as *const [Ring; 2];
    // SAFETY: the boot configuration shares this page, zeroed and for nothing else, for as long as
    // either VM lives, and atomics may be shared.
    unsafe { &*page }
}
