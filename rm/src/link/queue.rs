//! Message queues: eight packets each way, and when their ends are interrupted.

use heapless::Vec;
use rm_abi::PACKET;

/// Packets that a queue holds.
pub(crate) const DEPTH: usize = 8;

/// One packet.
#[derive(Clone, Copy, Debug)]
struct Packet {
    len: u8,
    bytes: [u8; PACKET],
}

/// Packets in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue {
    packets: [Packet; DEPTH],
    first: u8,
    len: u8,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self { packets: [Packet { len: 0, bytes: [0; PACKET] }; DEPTH], first: 0, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len() == DEPTH
    }

    /// The oldest packet.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        let packet = &self.packets[usize::from(self.first) % DEPTH];
        (!self.is_empty()).then(|| &packet.bytes[..packet.len.into()])
    }

    /// A copy of the oldest packet, for use without the queue's lock.
    pub(crate) fn front_copy(&self) -> Option<Vec<u8, PACKET>> {
        let bytes = self.front()?;
        Some(Vec::from_slice(bytes).expect("a packet has the size of one"))
    }

    /// Takes the oldest packet away.
    pub(crate) fn pop(&mut self) {
        assert!(!self.is_empty(), "G7: a packet was taken from an empty queue");
        self.first = (self.first + 1) % DEPTH as u8;
        self.len -= 1;
    }

    /// Puts a packet in that `write` writes and whose length it gives. The queue has room.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut [u8; PACKET]) -> usize) {
        assert!(!self.is_full(), "G7: a packet was put into a full queue");
        let packet = &mut self.packets[(self.first as usize + self.len()) % DEPTH];
        packet.len = write(&mut packet.bytes) as u8;
        self.len += 1;
    }

    /// Puts a packet of at most [`PACKET`] bytes in. The queue has room.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.push_with(|into| {
            into[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        });
    }

    /// Takes all packets away.
    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }
}

/// How many packets wait in a VM's two queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lengths {
    /// From the VM to the manager.
    pub(crate) requests: usize,
    /// From the manager to the VM.
    pub(crate) replies: usize,
}

/// When a VM's ends of its queues are interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Thresholds {
    /// The queue to the manager has room again once at most so many packets are left.
    pub(crate) not_full: usize,
    /// The queue from the manager is worth looking at once so many packets wait.
    pub(crate) not_empty: usize,
}

impl Thresholds {
    pub(crate) const DEFAULT: Self = Self { not_full: DEPTH - 1, not_empty: 1 };

    /// Which of the VM's two interrupts an entry into EL2 brings about that found the queues at
    /// `before` and leaves them at `after`: send, receive.
    ///
    /// What happens in between does not count: a VM that empties its queue and has it refilled in the
    /// same entry is told so by the entry's results and needs no interrupt.
    pub(crate) const fn edges(self, before: Lengths, after: Lengths) -> (bool, bool) {
        (
            before.requests > self.not_full && after.requests <= self.not_full,
            before.replies < self.not_empty && after.replies >= self.not_empty,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_the_order_they_went_in() {
        let mut queue = Queue::new();
        for round in 0..20_u8 {
            queue.push(&[round]);
            queue.push(&[round, 1]);
            assert_eq!(queue.front(), Some(&[round][..]));
            queue.pop();
            assert_eq!(queue.front(), Some(&[round, 1][..]));
            queue.pop();
        }
        assert_eq!(queue.front(), None);
        (0..DEPTH).for_each(|_| queue.push(&[0; PACKET]));
        assert!(queue.is_full());
    }

    /// Lengths of both queues before and after an entry, and which interrupts it raises.
    type Edge = (&'static str, (usize, usize), (usize, usize), (bool, bool));

    #[rustfmt::skip]
    const EDGES: &[Edge] = &[
        ("nothing happens",                       (0, 0), (0, 0), (false, false)),
        ("a reply comes",                         (0, 0), (0, 1), (false, true)),
        ("three packets come at once",            (0, 0), (0, 3), (false, true)),
        ("a second packet comes",                 (0, 1), (0, 2), (false, false)),
        ("the last is received, nothing follows", (0, 1), (0, 0), (false, false)),
        ("the last is received, one follows",     (0, 1), (0, 1), (false, false)),
        ("a request fills the queue",             (7, 0), (8, 0), (false, false)),
        ("a request fills it and is served",      (7, 0), (7, 1), (false, true)),
        ("the full queue is served",              (8, 0), (7, 1), (true, true)),
        ("the full queue is emptied",             (8, 8), (0, 8), (true, false)),
        ("a queue with room is served",           (7, 1), (0, 8), (false, false)),
    ];

    #[test]
    fn an_entry_interrupts_by_the_lengths_at_its_ends() {
        for &(what, before, after, edges) in EDGES {
            let lengths = |(requests, replies)| Lengths { requests, replies };
            let told = Thresholds::DEFAULT.edges(lengths(before), lengths(after));
            assert_eq!(told, edges, "{what}");
        }
    }

    #[test]
    fn a_client_that_sleeps_on_zero_is_always_woken() {
        // The client sleeps when an entry leaves nothing to receive, or no room to send. Whatever
        // later entries do that it does not make itself, it is woken once there is something.
        for threshold in [Thresholds::DEFAULT, Thresholds { not_full: 3, not_empty: 4 }] {
            let asleep = Lengths { requests: DEPTH, replies: 0 };
            for replies in 1..=DEPTH {
                let after = Lengths { requests: DEPTH, replies };
                let woken = threshold.edges(asleep, after).1;
                assert_eq!(woken, replies >= threshold.not_empty);
            }
            for requests in 0..DEPTH {
                let after = Lengths { requests, replies: 0 };
                assert_eq!(threshold.edges(asleep, after).0, requests <= threshold.not_full);
            }
        }
    }
}
