//! What a VM received during one exchange.

use rm_abi::{Header, Kind, PACKET};

/// More packets than any exchange brings to one VM.
const ROOM: usize = 24;

/// Packets in the order of their arrival.
#[derive(Clone, Debug)]
pub struct Inbox {
    packets: [[u8; PACKET]; ROOM],
    lengths: [u8; ROOM],
    count: usize,
}

impl Inbox {
    /// An empty one.
    pub const fn new() -> Self {
        Self { packets: [[0; PACKET]; ROOM], lengths: [0; ROOM], count: 0 }
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Takes a packet from `receive`, which tells its length, if there is one.
    pub fn take(&mut self, receive: impl FnOnce(&mut [u8; PACKET]) -> Option<usize>) -> bool {
        assert!(self.count < ROOM, "a VM is told more than ever was");
        let Some(length) = receive(&mut self.packets[self.count]) else { return false };
        self.lengths[self.count] = length as u8;
        self.count += 1;
        true
    }

    /// The packet at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (index < self.count).then(|| &self.packets[index][..self.lengths[index].into()])
    }

    /// All packets.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).filter_map(|index| self.get(index))
    }

    /// How many packets there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many notifications begin here.
    pub fn notifications(&self) -> usize {
        self.iter().filter(|packet| is_notification(packet)).count()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a packet begins a notification.
pub fn is_notification(packet: &[u8]) -> bool {
    Header::decode(packet).is_some_and(|header| header.kind == Kind::Notification)
}
