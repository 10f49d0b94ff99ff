//! The message queues: a request and its reply, and notices between two VMs.

use rm_abi::{Header, HypercallError, PACKET, message};
use rm_client::hvc::Native;
use rm_client::{Acceptance, NewParcel, Notice, QueueTrap, Sanitize, Transfer, Vmid};

use super::{NOTICES, QueueSession, ROUNDS, count, measure, median};
use crate::channel::Channel;
use crate::demo::{DONE, granted};
use crate::layout::VMID_B;
use crate::mailbox::sleeping_session;
use crate::{cpu, gic};

/// What A calls its parcel.
const TAG: u32 = 1;

/// A call of a client that asks until the reply is there.
pub(super) fn polling(session: &mut QueueSession) -> u64 {
    measure(|| {
        let _ = granted("asking who I am", session.vmid());
    })
}

/// The same for a client that looks into its queue only when it was interrupted, and sleeps until then:
/// send, sleep, interrupt handler, receive.
pub(super) fn asleep() -> u64 {
    gic::enable();
    gic::unmask(gic::SPI_RX);
    cpu::unmask_interrupts();
    once();
    let rounds = [(); ROUNDS].map(|()| count(once).0);
    cpu::mask_interrupts();
    gic::mask(gic::SPI_RX);
    median(rounds)
}

fn once() {
    let before = gic::taken(gic::SPI_RX);
    let request = Header::request(message::VM_GET_VMID, 1).encode();
    let sent = Native.send(&request, true);
    assert!(sent.error == HypercallError::OK, "{sent:?}");
    loop {
        cpu::mask_interrupts();
        if gic::taken(gic::SPI_RX) != before {
            break;
        }
        // An interrupt that came meanwhile ends the sleep at once.
        cpu::wait_for_interrupt();
        cpu::unmask_interrupts();
    }
    cpu::unmask_interrupts();
    let mut packet = [0; PACKET];
    let received = Native.receive(&mut packet);
    assert!(received.error == HypercallError::OK && received.size == 16, "{received:?}");
}

/// A's half of a notice to B and one back. Each VM sleeps on the one CPU until its queue interrupts, so
/// a round is two calls, two notices, and a switch to B and back.
pub(super) fn tell_and_hear(b: &Channel, parcel: &NewParcel<'_>) -> u64 {
    b.say(NOTICES);
    let mut session = sleeping_session();
    let handle = granted("sharing", session.share(parcel));
    b.say_handle(handle);
    let mut round = || {
        granted("asking", session.notify_recall(handle, TAG, &[Vmid(VMID_B)]));
        let notice = granted("waiting", session.wait_notice());
        assert!(matches!(notice, Notice::Accepted(_)), "{notice:?}");
    };
    round();
    let rounds = [(); ROUNDS].map(|()| count(&mut round).0);
    wake_no_more();
    b.expect(DONE);
    granted("reclaiming", session.reclaim(handle, Sanitize::empty()));
    median(rounds)
}

/// B's half.
pub(super) fn hear_and_tell(a: &Channel) {
    let handle = a.hear_handle();
    let mut session = sleeping_session();
    let wanted = Acceptance::new(handle, Transfer::Share).contiguous();
    granted("accepting", session.accept(&wanted).map(drop));
    for _ in 0..=ROUNDS {
        let notice = granted("waiting", session.wait_notice());
        assert!(matches!(notice, Notice::Recall(_)), "{notice:?}");
        granted("answering", session.notify_accepted(handle, TAG));
    }
    wake_no_more();
    granted("releasing", session.release(handle, Sanitize::empty()));
    a.say(DONE);
}

/// The other cases' naps end by the timer alone.
fn wake_no_more() {
    cpu::mask_interrupts();
    gic::mask(gic::SPI_TX);
    gic::mask(gic::SPI_RX);
}
