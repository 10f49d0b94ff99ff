//! The eight bytes that every packet starts with.
//!
//! ```text
//! 0      1                        2          4
//! 0x21 | kind, further packets<<2 | sequence | message id
//! ```
//! Byte 0 is the version of the protocol (1) below the header's length in 32-bit words (2). There is
//! no other negotiation.

use crate::bytes::Bytes;

/// Bytes of the largest packet that a message queue carries, header included.
pub const PACKET: usize = 240;
/// Bytes of payload in the largest packet.
pub const PACKET_PAYLOAD: usize = PACKET - Header::SIZE;
/// Most packets that can follow the first of a message.
pub const MAX_FRAGMENTS: u8 = 62;
/// Bytes of payload in the largest message.
pub const MAX_PAYLOAD: usize = (MAX_FRAGMENTS as usize + 1) * PACKET_PAYLOAD;

/// Version 1, header of two words.
const VERSION_AND_SIZE: u8 = 0x21;

/// What a packet is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// The second or a later packet of a message.
    Continuation,
    /// A VM asks.
    Request,
    /// The manager answers, with the request's sequence number and message id.
    Reply,
    /// The manager tells something unasked.
    Notification,
}

/// A packet's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Header {
    /// What the packet is part of.
    pub kind: Kind,
    /// How many packets follow the message's first; the same in all of them. 0 in a direct call.
    pub fragments: u8,
    /// Chosen by who asks, and echoed in the reply.
    pub sequence: u16,
    /// Which call or notification, see [`crate::message`].
    pub message: u32,
}

impl Header {
    /// Bytes of an encoded header.
    pub const SIZE: usize = 8;

    /// The header of a request in one piece.
    pub const fn request(message: u32, sequence: u16) -> Self {
        Self { kind: Kind::Request, fragments: 0, sequence, message }
    }

    /// The header of the reply to this request, in one piece.
    #[must_use]
    pub const fn reply(&self) -> Self {
        Self { kind: Kind::Reply, fragments: 0, sequence: self.sequence, message: self.message }
    }

    /// How many packets follow the first of a message of `payload` bytes, which is at most
    /// [`MAX_PAYLOAD`].
    pub const fn fragments_for(payload: usize) -> u8 {
        (payload.saturating_sub(1) / PACKET_PAYLOAD) as u8
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let kind = match self.kind {
            Kind::Continuation => 0,
            Kind::Request => 1,
            Kind::Reply => 2,
            Kind::Notification => 3,
        };
        let sequence = self.sequence.to_le_bytes();
        let message = self.message.to_le_bytes();
        [
            VERSION_AND_SIZE,
            kind | self.fragments << 2,
            sequence[0],
            sequence[1],
            message[0],
            message[1],
            message[2],
            message[3],
        ]
    }

    /// The header at the start of a packet, or nothing if it is too short, of another version or
    /// header length, or announces more packets than a message may have.
    pub fn decode<B: Bytes + ?Sized>(packet: &B) -> Option<Self> {
        if packet.len() < Self::SIZE || packet.u8_at(0) != VERSION_AND_SIZE {
            return None;
        }
        let second = packet.u8_at(1);
        let fragments = second >> 2;
        if fragments > MAX_FRAGMENTS {
            return None;
        }
        let kind = match second & 3 {
            0 => Kind::Continuation,
            1 => Kind::Request,
            2 => Kind::Reply,
            _ => Kind::Notification,
        };
        Some(Self { kind, fragments, sequence: packet.u16_at(2), message: packet.u32_at(4) })
    }
}
