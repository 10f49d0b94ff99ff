//! One CPU's part of the log: frames written by that CPU, read by whoever holds the sink.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Bytes of a ring: a few hundred messages.
const SIZE: usize = 16 * 1024;

pub(crate) struct Ring {
    /// Count of bytes ever written, up to the last whole frame. Stored by the owner.
    head: AtomicUsize,
    /// Count of bytes ever read. Stored by the reader.
    tail: AtomicUsize,
    bytes: [AtomicU8; SIZE],
    dropped: AtomicU32,
    frame: UnsafeCell<Frame>,
}

/// The frame that is being built.
struct Frame {
    encoder: defmt::Encoder,
    /// As `head`, with the unfinished frame.
    at: usize,
    fits: bool,
}

// SAFETY: `frame` is used by the CPU that owns the ring only (see `log`); the rest is atomic.
unsafe impl Sync for Ring {}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            bytes: [const { AtomicU8::new(0) }; SIZE],
            dropped: AtomicU32::new(0),
            frame: UnsafeCell::new(Frame { encoder: defmt::Encoder::new(), at: 0, fits: true }),
        }
    }

    /// Starts a frame; one that was not finished is forgotten.
    pub(crate) fn start(&self) {
        let head = self.head.load(Ordering::Relaxed);
        self.with_frame(|frame| {
            (frame.at, frame.fits) = (head, true);
            let Frame { encoder, at, fits } = frame;
            // The encoder remembers the last bytes of a frame that was not finished.
            encoder.end_frame(|_| ());
            encoder.start_frame(|bytes| *fits &= self.put(at, bytes));
        });
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        self.with_frame(|Frame { encoder, at, fits }| {
            encoder.write(bytes, |bytes| *fits &= self.put(at, bytes));
        });
    }

    /// Ends the frame: readers see all of it or nothing.
    pub(crate) fn end(&self) {
        self.with_frame(|Frame { encoder, at, fits }| {
            encoder.end_frame(|bytes| *fits &= self.put(at, bytes));
            if *fits {
                self.head.store(*at, Ordering::Release);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    fn with_frame(&self, action: impl FnOnce(&mut Frame)) {
        // SAFETY: the owning CPU runs `start`, `write` and `end` one after the other and `action`
        // calls none of them, so this is the only reference.
        action(unsafe { &mut *self.frame.get() });
    }

    /// Adds the bytes at `at`, unless they do not fit.
    fn put(&self, at: &mut usize, bytes: &[u8]) -> bool {
        let used = *at - self.tail.load(Ordering::Acquire);
        if bytes.len() > SIZE - used {
            return false;
        }
        for &byte in bytes {
            self.bytes[*at % SIZE].store(byte, Ordering::Relaxed);
            *at += 1;
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Relaxed)
    }

    /// Removes as many bytes as there are and fit, and says how many. The reader holds the sink.
    pub(crate) fn take(&self, into: &mut [u8]) -> usize {
        let tail = self.tail.load(Ordering::Relaxed);
        let count = into.len().min(self.head.load(Ordering::Acquire) - tail);
        let (wrapped, first) = self.bytes.split_at(tail % SIZE);
        let (early, late) = into[..count].split_at_mut(count.min(first.len()));
        copy(early, first);
        copy(late, wrapped);
        self.tail.store(tail + count, Ordering::Release);
        count
    }

    /// Removes bytes, in order, while `take` wants the next one. The reader holds the sink.
    pub(crate) fn read(&self, mut take: impl FnMut(u8) -> bool) {
        let head = self.head.load(Ordering::Acquire);
        let mut tail = self.tail.load(Ordering::Relaxed);
        while tail != head && take(self.bytes[tail % SIZE].load(Ordering::Relaxed)) {
            tail += 1;
        }
        self.tail.store(tail, Ordering::Release);
    }

    /// How many frames were dropped since the last call, once the ring is half empty again.
    pub(crate) fn take_dropped(&self) -> Option<u32> {
        let used = self.head.load(Ordering::Relaxed) - self.tail.load(Ordering::Relaxed);
        if used > SIZE / 2 || self.dropped.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}

/// Fills `into` from the first bytes of `from`.
fn copy(into: &mut [u8], from: &[AtomicU8]) {
    for (to, from) in into.iter_mut().zip(from) {
        *to = from.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn log(ring: &Ring, message: &[u8]) {
        ring.start();
        ring.write(message);
        ring.end();
    }

    fn take(ring: &Ring, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let taken = ring.take(&mut bytes);
        bytes.truncate(taken);
        bytes
    }

    fn read(ring: &Ring, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        ring.read(|byte| {
            let wanted = bytes.len() < count;
            if wanted {
                bytes.push(byte);
            }
            wanted
        });
        bytes
    }

    /// Frames end in a zero; the very first one also starts with a zero.
    fn frames(bytes: &[u8]) -> Vec<&[u8]> {
        bytes.split(|&byte| byte == 0).filter(|frame| !frame.is_empty()).collect()
    }

    #[test]
    fn a_reader_sees_only_finished_frames() {
        let ring = Ring::new();
        ring.start();
        ring.write(b"half");
        assert!(ring.is_empty());
        assert!(read(&ring, SIZE).is_empty());
        ring.end();
        assert_eq!(read(&ring, SIZE).last(), Some(&0));
        assert!(ring.is_empty());
    }

    #[test]
    fn a_frame_that_was_broken_off_leaves_no_trace() {
        let (broken, whole) = (Ring::new(), Ring::new());
        broken.start();
        broken.write(b"a message that a fault cut");
        log(&broken, b"fault");
        log(&whole, b"fault");
        assert_eq!(frames(&read(&broken, SIZE)), frames(&read(&whole, SIZE)));
    }

    #[test]
    fn a_full_ring_drops_whole_frames_and_counts_them() {
        let ring = Ring::new();
        let sent = SIZE / 50;
        for _ in 0..sent {
            log(&ring, &[7; 100]);
        }
        assert_eq!(ring.take_dropped(), None, "no room to say it yet");
        let bytes = read(&ring, SIZE);
        assert_eq!(bytes.last(), Some(&0), "the last frame in the ring is whole");
        let dropped = ring.take_dropped().expect("room again");
        assert_eq!(frames(&bytes).len() + dropped as usize, sent);
        assert_eq!(ring.take_dropped(), None, "said once");
    }

    #[test]
    fn reading_in_pieces_keeps_order_across_the_wrap() {
        let (pieces, reference) = (Ring::new(), Ring::new());
        for round in 0..2 * SIZE / 40 {
            let message = [round as u8 | 1; 40];
            log(&pieces, &message);
            log(&reference, &message);
            let expected = read(&reference, SIZE);
            let mut bytes = read(&pieces, 7);
            bytes.extend(take(&pieces, 9));
            bytes.extend(take(&pieces, SIZE));
            assert_eq!(bytes, expected, "round {round}");
        }
    }
}
