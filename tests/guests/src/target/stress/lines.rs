//! Both ways to the manager, for calls that go now this way and now that.
//!
//! A VM has one place for a call that takes several steps: while a call of another vCPU has it, a direct
//! call that needs it is BUSY.

use rm_abi::HypercallError;
use rm_client::hvc::{Hvc, HvcQueues, Native, Sleep};
use rm_client::{Direct, Notice, Queues, Transport, TransportError};

use crate::cpu;

/// A vCPU's lines to the manager: the direct call, and maybe the VM's message queues.
pub(crate) struct Lines {
    direct: Hvc,
    queues: Option<HvcQueues<Sleep>>,
    by_queue: bool,
}

impl Lines {
    /// Only one vCPU of a VM may have the queues.
    pub(crate) fn new(with_queues: bool) -> Self {
        let queues = with_queues.then(|| Queues::new(Native, Sleep::default()));
        Self { direct: Direct(Native), queues, by_queue: false }
    }

    /// Which way the next calls go, if there are both.
    pub(crate) fn choose(&mut self, by_queue: bool) {
        self.by_queue = by_queue;
    }

    /// The next notice, if one has come.
    pub(crate) fn poll_notice(&mut self) -> Option<Notice<'_>> {
        let notice = self.queues.as_mut()?.poll_notice();
        notice.unwrap_or_else(|error| panic!("asking for notices: {error}"))
    }
}

impl Transport for Lines {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        if let Some(queues) = &mut self.queues
            && self.by_queue
        {
            return queues.exchange(request, reply);
        }
        loop {
            match self.direct.exchange(request, reply) {
                Err(TransportError::Hypercall(HypercallError::BUSY)) => cpu::relax(),
                outcome => return outcome,
            }
        }
    }
}
