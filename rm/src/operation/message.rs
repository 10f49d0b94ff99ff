//! Payloads of requests and replies.
//!
//! A payload of one packet lies in the message itself; a longer one in frames that are taken before
//! anything changes and returned with the reply. Bytes come in from the guest once and are never read
//! from there again, so a guest that rewrites its request races with nobody but itself.

use core::num::NonZeroU32;

use rm_abi::{Bytes, MAX_PAYLOAD, PACKET_PAYLOAD};

use crate::address::VmIndex;
use crate::call::Caller;
use crate::frame_pool::NoFrame;
use crate::machine::{Frame, FrameIndex, FrameUse, Machine};
use crate::memparcel::words::erase;
use crate::stage2::Memory;

/// Bytes of a frame.
const FRAME: usize = 4096;
/// Bytes of an entry of a frame.
const WORD: usize = 8;
/// Frames that the longest payload takes.
const FRAMES: usize = MAX_PAYLOAD.div_ceil(FRAME);

/// A payload that EL2 holds.
#[derive(Debug)]
pub(crate) struct Message {
    /// At most [`MAX_PAYLOAD`].
    len: u32,
    inline: [u8; PACKET_PAYLOAD],
    /// Each index plus one: half the size of an index that may be missing.
    frames: [Option<NonZeroU32>; FRAMES],
}

impl Message {
    pub(crate) const fn new() -> Self {
        Self { len: 0, inline: [0; PACKET_PAYLOAD], frames: [None; FRAMES] }
    }

    const fn len(&self) -> usize {
        self.len as usize
    }

    /// Makes room for `len` bytes, at most [`MAX_PAYLOAD`]; on refusal nothing is kept.
    pub(crate) fn resize<M: Machine>(
        &mut self,
        payer: Caller<'_, '_, M>,
        len: usize,
    ) -> Result<(), NoFrame> {
        self.clear(payer.mem(), payer.vm);
        if len > PACKET_PAYLOAD {
            for index in 0..len.div_ceil(FRAME) {
                match payer.take_frame(FrameUse::Data) {
                    Ok(frame) => self.frames[index] = NonZeroU32::new(frame.0 + 1),
                    Err(none) => {
                        self.clear(payer.mem(), payer.vm);
                        return Err(none);
                    }
                }
            }
        }
        self.len = len as u32;
        Ok(())
    }

    /// As [`Message::resize`] for a message that holds nothing and a length that needs no frame.
    pub(crate) fn resize_inline(&mut self, len: usize) {
        assert!(len <= PACKET_PAYLOAD && self.is_inline(), "G7: a short message needs no frame");
        self.len = len as u32;
    }

    /// Whether it is longer than a packet's payload.
    pub(crate) const fn is_long(&self) -> bool {
        self.len() > PACKET_PAYLOAD
    }

    /// Forgets all bytes from `len` on.
    pub(crate) fn shorten(&mut self, len: usize) {
        assert!(len <= self.len(), "G7: a message grows by resizing only");
        self.len = len as u32;
    }

    /// Holds the payload of one packet.
    pub(crate) fn store<M: Machine>(&mut self, mem: Memory<'_, '_, M>, payload: &[u8]) {
        self.resize_inline(payload.len());
        self.write(mem, 0, payload);
    }

    /// Returns what the message holds. At most four frames, so it is one unit of work.
    pub(crate) fn clear<M: Machine>(&mut self, mem: Memory<'_, '_, M>, payer: VmIndex) {
        self.len = 0;
        for frame in self.frames.iter_mut().filter_map(Option::take).map(index) {
            erase(mem, frame);
            mem.pool.put(mem.machine, payer, frame);
        }
    }

    /// Whether the bytes lie in the message itself.
    const fn is_inline(&self) -> bool {
        self.len() <= PACKET_PAYLOAD && self.frames[0].is_none()
    }

    /// Stores `bytes` at `at`; the range lies within the length.
    pub(crate) fn write<M: Machine>(&mut self, mem: Memory<'_, '_, M>, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len(), "G7: a message is written beyond its length");
        if self.is_inline() {
            self.inline[at..at + bytes.len()].copy_from_slice(bytes);
            return;
        }
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let (frame, word, offset) = self.locate(mem, at);
            let stored = if offset == 0 && rest.len() >= WORD {
                store_words(frame, word, rest)
            } else {
                store_bytes(frame, word, offset, rest)
            };
            (at, rest) = (at + stored, &rest[stored..]);
        }
    }

    /// Copies bytes from `at` on into `into`; the range lies within the length.
    pub(crate) fn read<M: Machine>(&self, mem: Memory<'_, '_, M>, at: usize, into: &mut [u8]) {
        if self.is_inline() {
            into.copy_from_slice(&self.inline[at..at + into.len()]);
            return;
        }
        let (mut at, mut rest) = (at, into);
        while !rest.is_empty() {
            let (frame, word, offset) = self.locate(mem, at);
            let loaded = if offset == 0 && rest.len() >= WORD {
                load_words(frame, word, rest)
            } else {
                load_bytes(frame, word, offset, rest)
            };
            (at, rest) = (at + loaded, &mut rest[loaded..]);
        }
    }

    /// Frame, word and byte in it at which byte `at` of a long message lies.
    fn locate<'a, M: Machine>(
        &self,
        mem: Memory<'a, '_, M>,
        at: usize,
    ) -> (&'a Frame, usize, usize) {
        let frame = self.frames[at / FRAME].expect("G7: a long message has its frames");
        (&mem.machine.frames()[index(frame).0 as usize], at % FRAME / WORD, at % WORD)
    }
}

/// The frame that a message's entry names.
const fn index(entry: NonZeroU32) -> FrameIndex {
    FrameIndex(entry.get() - 1)
}

/// Stores the whole words that `bytes` begin with, from entry `word` to the frame's last at most. Tells
/// how many bytes that were.
fn store_words(frame: &Frame, word: usize, bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks();
    let count = words.len().min(FRAME / WORD - word);
    for (index, bytes) in (word..).zip(&words[..count]) {
        frame.write(index, u64::from_le_bytes(*bytes));
    }
    count * WORD
}

/// Loads the whole words that `bytes` begin with, from entry `word` to the frame's last at most. Tells
/// how many bytes that were.
fn load_words(frame: &Frame, word: usize, bytes: &mut [u8]) -> usize {
    let (words, _) = bytes.as_chunks_mut();
    let count = words.len().min(FRAME / WORD - word);
    for (index, bytes) in (word..).zip(&mut words[..count]) {
        *bytes = frame.read(index).to_le_bytes();
    }
    count * WORD
}

/// Loads the bytes that lie in one entry, from `offset` bytes into it on. Tells how many they were.
fn load_bytes(frame: &Frame, word: usize, offset: usize, bytes: &mut [u8]) -> usize {
    let count = bytes.len().min(WORD - offset);
    bytes[..count].copy_from_slice(&frame.read(word).to_le_bytes()[offset..offset + count]);
    count
}

/// Stores the bytes that lie in one entry, `offset` bytes into it. Tells how many they were.
fn store_bytes(frame: &Frame, word: usize, offset: usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(WORD - offset);
    let mut value = frame.read(word).to_le_bytes();
    value[offset..offset + count].copy_from_slice(&bytes[..count]);
    frame.write(word, u64::from_le_bytes(value));
    count
}

/// The bytes of a request that is wholly on the stack, for the decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a>(pub(crate) &'a [u8]);

impl Bytes for Packet<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn u8_at(&self, at: usize) -> u8 {
        self.0.u8_at(at)
    }

    fn u16_at(&self, at: usize) -> u16 {
        self.0.u16_at(at)
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.0.u32_at(at)
    }

    fn u64_at(&self, at: usize) -> u64 {
        self.0.u64_at(at)
    }
}

/// A message's bytes, for the decoder.
pub(crate) struct View<'a, 's, M: Machine> {
    mem: Memory<'a, 's, M>,
    message: &'a Message,
}

impl<'a, 's, M: Machine> View<'a, 's, M> {
    pub(crate) const fn new(mem: Memory<'a, 's, M>, message: &'a Message) -> Self {
        Self { mem, message }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.message.read(self.mem, at, &mut bytes);
        bytes
    }
}

impl<M: Machine> Bytes for View<'_, '_, M> {
    fn len(&self) -> usize {
        self.message.len()
    }

    fn u8_at(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.array(at))
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// The fields of address lists, which a long request has hundreds of.
    fn u64_at(&self, at: usize) -> u64 {
        if self.message.is_inline() || !at.is_multiple_of(4) {
            return u64::from_le_bytes(self.array(at));
        }
        let word = |at| {
            let (frame, word, _) = self.message.locate(self.mem, at);
            frame.read(word)
        };
        if at.is_multiple_of(WORD) { word(at) } else { word(at) >> 32 | word(at + 4) << 32 }
    }
}
