//! The message queues of a program that sleeps until they interrupt.

use rm_client::hvc::{HvcQueues, Native, Sleep};
use rm_client::{Queues, Session};

use crate::{cpu, gic};

/// A session that sleeps. The handler of its interrupts need not do more than to end them.
pub fn sleeping_session() -> Session<HvcQueues<Sleep>> {
    gic::enable();
    gic::unmask(gic::SPI_TX);
    gic::unmask(gic::SPI_RX);
    cpu::unmask_interrupts();
    Session::new(Queues::new(Native, Sleep::default()))
}
