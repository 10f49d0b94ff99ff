//! Messages in a page that two VMs share: a ring for each direction.
//!
//! A side believes the other nothing: it keeps its own count, copies a message before it looks at it, and
//! takes counts and lengths that cannot be for what they are. A peer that scribbles over the page loses
//! messages, as a peer may that sends none. After a message is put, the peer's doorbell is to be rung.

use core::sync::atomic::{AtomicU32, Ordering};

use super::message::MAX_MESSAGE;

/// Messages that may wait in one direction.
pub const DEPTH: u32 = 8;

const WORDS: usize = MAX_MESSAGE / 4;

#[derive(Debug)]
#[repr(C)]
struct Cell {
    length: AtomicU32,
    words: [AtomicU32; WORDS],
}

/// One direction. All zero is an empty ring.
#[derive(Debug)]
#[repr(C)]
pub struct Ring {
    sent: AtomicU32,
    heard: AtomicU32,
    cells: [Cell; DEPTH as usize],
}

// Both directions fit one page.
const _: () = assert!(2 * size_of::<Ring>() <= 4096);

impl Default for Ring {
    fn default() -> Self {
        let cell = |_| Cell {
            length: AtomicU32::new(0),
            words: core::array::from_fn(|_| AtomicU32::new(0)),
        };
        let cells = core::array::from_fn(cell);
        Self { sent: AtomicU32::new(0), heard: AtomicU32::new(0), cells }
    }
}

impl Ring {
    const fn cell(&self, count: u32) -> &Cell {
        &self.cells[(count % DEPTH) as usize]
    }
}

/// The end that sends.
#[derive(Debug)]
pub struct Sender<'a> {
    ring: &'a Ring,
    sent: u32,
}

impl<'a> Sender<'a> {
    /// The end of a ring that is empty.
    pub const fn new(ring: &'a Ring) -> Self {
        Self { ring, sent: 0 }
    }

    /// Puts a message into the ring. `false` if it is full or the message too long.
    #[must_use]
    pub fn put(&mut self, message: &[u8]) -> bool {
        let waiting = self.sent.wrapping_sub(self.ring.heard.load(Ordering::Acquire));
        if waiting >= DEPTH || message.len() > MAX_MESSAGE {
            return false;
        }
        let cell = self.ring.cell(self.sent);
        for (word, bytes) in cell.words.iter().zip(message.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
        }
        cell.length.store(message.len() as u32, Ordering::Relaxed);
        self.sent = self.sent.wrapping_add(1);
        self.ring.sent.store(self.sent, Ordering::Release);
        true
    }
}

/// The end that receives.
#[derive(Debug)]
pub struct Receiver<'a> {
    ring: &'a Ring,
    heard: u32,
    message: [u8; MAX_MESSAGE],
}

impl<'a> Receiver<'a> {
    /// The end of a ring that is empty.
    pub const fn new(ring: &'a Ring) -> Self {
        Self { ring, heard: 0, message: [0; MAX_MESSAGE] }
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.ring.sent.load(Ordering::Acquire) == self.heard
    }

    /// The next message, if there is one.
    pub fn take(&mut self) -> Option<&[u8]> {
        let sent = self.ring.sent.load(Ordering::Acquire);
        if sent.wrapping_sub(self.heard) > DEPTH {
            // No honest count: begin where the peer says it is.
            self.heard = sent;
            self.ring.heard.store(sent, Ordering::Release);
        }
        if sent == self.heard {
            return None;
        }
        let cell = self.ring.cell(self.heard);
        for (bytes, word) in self.message.chunks_exact_mut(4).zip(&cell.words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let length = (cell.length.load(Ordering::Relaxed) as usize).min(MAX_MESSAGE);
        self.heard = self.heard.wrapping_add(1);
        self.ring.heard.store(self.heard, Ordering::Release);
        Some(&self.message[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_until_the_ring_is_full() {
        let ring = Ring::default();
        let (mut sender, mut receiver) = (Sender::new(&ring), Receiver::new(&ring));
        for round in 0..5 {
            for message in 0..DEPTH as u8 {
                assert!(sender.put(&[round, message, 3, 4, 5]));
            }
            assert!(!sender.put(&[9]), "full");
            for message in 0..DEPTH as u8 {
                assert_eq!(receiver.take(), Some(&[round, message, 3, 4, 5][..]));
            }
            assert_eq!(receiver.take(), None);
        }
        assert!(!sender.put(&[0; MAX_MESSAGE + 1]));
    }

    #[test]
    fn a_peer_that_scribbles_over_the_page_is_survived() {
        let ring = Ring::default();
        let (mut sender, mut receiver) = (Sender::new(&ring), Receiver::new(&ring));
        ring.sent.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(receiver.take(), None, "no count that can be");
        ring.cell(u32::MAX).length.store(u32::MAX, Ordering::Relaxed);
        ring.sent.store(0, Ordering::Relaxed);
        assert_eq!(receiver.take().map(<[u8]>::len), Some(MAX_MESSAGE));
        ring.heard.store(77, Ordering::Relaxed);
        assert!(!sender.put(&[1]), "full, as far as one can tell");
    }
}
