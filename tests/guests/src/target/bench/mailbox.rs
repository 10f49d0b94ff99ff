//! The message queues: a request and its reply.

use rm_abi::{Header, HypercallError, PACKET, message};
use rm_client::QueueTrap;
use rm_client::hvc::Native;

use super::{QueueSession, ROUNDS, count, measure, median};
use crate::demo::granted;
use crate::{cpu, gic};

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
