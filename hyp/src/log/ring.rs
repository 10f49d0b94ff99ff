//! One CPU's frames: written by that CPU, read by whoever holds the sink.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Bytes of a ring: a few hundred messages.
const SIZE: usize = 16 * 1024;

pub(super) struct Ring {
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

// SAFETY: `frame` is used by the CPU that owns the ring only (`Logger`); the rest is atomic.
unsafe impl Sync for Ring {}

impl Ring {
    pub(super) const fn new() -> Self {
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            bytes: [const { AtomicU8::new(0) }; SIZE],
            dropped: AtomicU32::new(0),
            frame: UnsafeCell::new(Frame { encoder: defmt::Encoder::new(), at: 0, fits: true }),
        }
    }

    /// Starts a frame; one that was not finished is forgotten.
    pub(super) fn start(&self) {
        let head = self.head.load(Ordering::Relaxed);
        self.with_frame(|frame| {
            (frame.at, frame.fits) = (head, true);
            let Frame { encoder, at, fits } = frame;
            encoder.start_frame(|bytes| *fits &= self.put(at, bytes));
        });
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        self.with_frame(|Frame { encoder, at, fits }| {
            encoder.write(bytes, |bytes| *fits &= self.put(at, bytes));
        });
    }

    /// Ends the frame: readers see all of it or nothing.
    pub(super) fn end(&self) {
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

    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Relaxed)
    }

    /// Removes bytes, in order, while `take` wants the next one. The reader holds the sink.
    pub(super) fn read(&self, mut take: impl FnMut(u8) -> bool) {
        let head = self.head.load(Ordering::Acquire);
        let mut tail = self.tail.load(Ordering::Relaxed);
        while tail != head && take(self.bytes[tail % SIZE].load(Ordering::Relaxed)) {
            tail += 1;
        }
        self.tail.store(tail, Ordering::Release);
    }

    /// How many frames were dropped since the last call, once the ring is half empty again.
    pub(super) fn take_dropped(&self) -> Option<u32> {
        let used = self.head.load(Ordering::Relaxed) - self.tail.load(Ordering::Relaxed);
        if used > SIZE / 2 || self.dropped.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}
