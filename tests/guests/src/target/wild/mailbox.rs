//! Both ways to the manager, used badly: buffers that the other vCPU writes at the same time, that are
//! elsewhere, shorter or longer than is said; tokens of others; parts of messages.

use core::sync::atomic::{AtomicU64, Ordering};

use rm_abi::{Capability, Header, HypercallError, Kind, PACKET, PACKET_PAYLOAD, message};
use rm_client::Handle;

use super::request::LONGEST;
use super::{OFFERED, Wild, spared};
use crate::{hvc_immediate, raw};

/// Words of a buffer, which holds the longest reply.
const WORDS: usize = 2048;

/// A buffer of one vCPU, which the other uses too.
#[repr(C, align(4096))]
struct Buffer([AtomicU64; WORDS]);

impl Buffer {
    const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn at(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn word(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    /// 32 bits at an offset that is a multiple of four.
    fn half(&self, at: usize) -> u32 {
        (self.word(at / 8) >> (at % 8 * 8)) as u32
    }

    fn put(&self, bytes: &[u8]) {
        for (word, chunk) in self.0.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
    }
}

static REQUESTS: [Buffer; 2] = [const { Buffer::empty() }; 2];
static REPLIES: [Buffer; 2] = [const { Buffer::empty() }; 2];
/// The token of a call of either vCPU that was not done at once.
static TOKEN: AtomicU64 = AtomicU64::new(0);

impl Wild {
    /// This vCPU's buffer, mostly.
    fn buffer(&mut self, buffers: &'static [Buffer; 2]) -> &'static Buffer {
        &buffers[self.vcpu ^ usize::from(self.random.once_in(8))]
    }

    /// A direct call.
    pub(super) fn call_directly(&mut self) {
        let mut bytes = [0; LONGEST];
        let mut length = self.request(&mut bytes) as u64;
        let (request, reply) = (self.buffer(&REQUESTS), self.buffer(&REPLIES));
        request.put(&bytes[..length as usize]);
        let (mut from, mut to, mut capacity) = (request.at(), reply.at(), WORDS as u64 * 8);
        match self.random.below(32) {
            0 => from = self.address(),
            1 => length = self.number(),
            2 => to = self.address(),
            3 => capacity = self.number(),
            4 => from += self.random.below(16),
            _ => {}
        }
        let mut token = 0;
        if self.random.once_in(16) {
            token = TOKEN.load(Ordering::Relaxed) ^ self.random.below(2);
        }
        // Who comes back too seldom leaves its call to whoever is next.
        for _ in 0..1 + self.random.below(64) {
            let [error, _, next] = self.trap(0x1f0, [from, length, to, capacity, token]);
            if error as i64 == HypercallError::OK && to == reply.at() {
                self.hear(reply);
            }
            if error as i64 != HypercallError::RETRY {
                break;
            }
            token = next;
            TOKEN.store(token, Ordering::Relaxed);
        }
    }

    /// A call in one of its forms.
    fn trap(&mut self, number: u64, [a, b, c, d, e]: [u64; 5]) -> [u64; 3] {
        let by_id = [0xc600_8000 | number, a, b, c, d, e];
        let [x0, x1, x2, _] = match (self.random.below(4), number) {
            (0, _) => raw::smc(by_id),
            (1, _) => raw::hvc(by_id),
            (_, 0x1b) => hvc_immediate!("0x601b", [a, b, c, d, e, 0]),
            (_, 0x1c) => hvc_immediate!("0x601c", [a, b, c, d, e, 0]),
            _ => hvc_immediate!("0x61f0", [a, b, c, d, e, 0]),
        };
        [x0, x1, x2]
    }

    /// What a message of the manager's says that is of use. The other vCPU may have spoiled it. Behind the
    /// header comes the handle of an offer, or the error word of a reply and then the handle of a new parcel.
    fn hear(&mut self, message: &Buffer) {
        let Some(header) = Header::decode(&message.word(0).to_le_bytes()[..]) else { return };
        let (first, second) = (message.half(8), message.half(12));
        match (header.kind, header.message) {
            (Kind::Notification, message::MEM_SHARED) => {
                OFFERED.store(message.word(1), Ordering::Relaxed);
                self.remember(Handle(first));
            }
            (Kind::Reply, call) => {
                self.counts.answered += 1;
                if first != 0 {
                    return;
                }
                self.counts.granted += 1;
                match call {
                    message::MEM_LEND | message::MEM_SHARE | message::MEM_DONATE => {
                        self.counts.made += 1;
                        self.keep(Handle(second));
                    }
                    message::MEM_ACCEPT => self.counts.accepted += 1,
                    message::MEM_RECLAIM => self.counts.reclaimed += 1,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Sends a message in packets, of which some are lost, doubled, changed, too short or too long.
    pub(super) fn send(&mut self) {
        let mut bytes = [0; LONGEST];
        let length = self.request(&mut bytes);
        let Some(header) = Header::decode(&bytes[..length]) else {
            return self.send_packet(&bytes[..length.min(PACKET)]);
        };
        let payload = &bytes[Header::SIZE..length];
        let header = Header { fragments: Header::fragments_for(payload.len()), ..header };
        for index in 0..=usize::from(header.fragments) {
            let index = match self.random.below(24) {
                0 => continue,
                1 => self.random.index(usize::from(header.fragments) + 1),
                _ => index,
            };
            let kind = if index == 0 { header.kind } else { Kind::Continuation };
            let header = self.header(Header { kind, ..header });
            let part = payload.get(index * PACKET_PAYLOAD..).unwrap_or_default();
            let part = &part[..part.len().min(PACKET_PAYLOAD)];
            let mut packet = [0; PACKET];
            packet[..Header::SIZE].copy_from_slice(&header.encode());
            packet[Header::SIZE..][..part.len()].copy_from_slice(part);
            self.send_packet(&packet[..Header::SIZE + part.len()]);
        }
    }

    fn send_packet(&mut self, packet: &[u8]) {
        let buffer = self.buffer(&REQUESTS);
        buffer.put(packet);
        let (mut from, mut size) = (buffer.at(), packet.len() as u64);
        match self.random.below(32) {
            0 => from = self.address(),
            1 => size = self.number(),
            2 => size = self.random.below(PACKET as u64),
            _ => {}
        }
        let queue = self.queue(Capability::SEND_QUEUE);
        let push = self.random.below(2);
        let [error, ..] = self.trap(0x1b, [queue, size, from, push, 0]);
        self.counts.sent += u32::from(error == 0);
        if error as i64 == HypercallError::MSGQUEUE_FULL {
            self.receive();
        }
    }

    /// Receives a few packets.
    pub(super) fn receive(&mut self) {
        for _ in 0..self.random.below(24) {
            let buffer = self.buffer(&REPLIES);
            let (mut to, mut room) = (buffer.at(), PACKET as u64);
            match self.random.below(32) {
                0 => to = self.address(),
                1 => room = self.number(),
                _ => {}
            }
            let queue = self.queue(Capability::RECEIVE_QUEUE);
            let [error, _, more] = self.trap(0x1c, [queue, to, room, 0, 0]);
            if error == 0 {
                self.counts.received += 1;
                if to == buffer.at() {
                    self.hear(buffer);
                }
            }
            if more == 0 {
                return;
            }
        }
    }

    fn queue(&mut self, queue: Capability) -> u64 {
        if self.random.once_in(64) { queue.0 ^ self.number() } else { queue.0 }
    }

    /// Writes into the message of either vCPU, which may be on its way.
    pub(super) fn scribble(&mut self) {
        for _ in 0..self.random.below(32) {
            let buffer = self.buffer(&REQUESTS);
            let word = match self.random.below(3) {
                0 => self.number(),
                1 => self.page(),
                _ => self.handle().0.into(),
            };
            // Behind a header of its own, so that it is looked at as a body.
            let mut bytes = [0; 16];
            bytes[8..].copy_from_slice(&word.to_le_bytes());
            spared::bytes(&mut bytes);
            let index = 1 + self.random.index(15);
            let word = u64::from_le_bytes(bytes[8..].try_into().unwrap_or_default());
            buffer.0[index].store(word, Ordering::Relaxed);
        }
    }
}
