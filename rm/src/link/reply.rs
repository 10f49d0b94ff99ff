//! Replies as packets.
//!
//! A reply's payload is an error word, a few words of data, and what lies in the operation's
//! message: an accept's ranges, a list. It is never put together: each packet is written straight into the queue.

use rm_abi::memparcel::accept;
use rm_abi::{Header, Kind, PACKET, PACKET_PAYLOAD, reply};

use crate::call::Caller;
use crate::call::accept::RANGE;
use crate::call::extension;
use crate::machine::Machine;
use crate::operation::{Answer, Reply, Slot};

/// Error word and data of a reply, without what lies in the message.
struct Head {
    bytes: [u8; accept::REPLY_HEAD],
    len: usize,
    /// Bytes of the message behind it.
    data: usize,
}

impl Head {
    fn new(header: &Header, answer: &Answer) -> Self {
        let mut head = Self { bytes: [0; accept::REPLY_HEAD], len: reply::SIZE, data: 0 };
        match *answer {
            Ok(Reply::Ranges { count, incomplete }) => {
                head.bytes = accept::reply_head(header, count, incomplete);
                head.len = accept::REPLY_HEAD;
                head.data = usize::from(count) * RANGE;
            }
            Ok(Reply::Word(word)) => {
                head.bytes = reply::word(header, word);
                head.len = reply::SIZE_WITH_WORD;
            }
            Ok(Reply::Data { length } | Reply::Partly { length, .. }) => {
                head.bytes[..reply::SIZE].copy_from_slice(&reply::status(header, Ok(())));
                head.data = length.into();
            }
            Ok(Reply::Empty) => {
                head.bytes[..reply::SIZE].copy_from_slice(&reply::status(header, Ok(())));
            }
            // Its data is put behind the error word by whoever writes the packet.
            Ok(Reply::Told(_)) => {
                head.bytes[..reply::SIZE].copy_from_slice(&reply::status(header, Ok(())));
            }
            Err(refusal) => {
                let status = reply::status(header, Err(refusal.code()));
                head.bytes[..reply::SIZE].copy_from_slice(&status);
            }
        }
        head
    }

    /// The words behind the header.
    fn payload(&self) -> &[u8] {
        &self.bytes[Header::SIZE..self.len]
    }
}

impl Slot {
    /// Writes the next packet of the reply in the slot; gives its length, and whether it is the last.
    pub(crate) fn write_packet<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        answer: &Answer,
        into: &mut [u8; PACKET],
    ) -> (usize, bool) {
        let head = Head::new(&self.header, answer);
        if let Ok(Reply::Told(topic)) = *answer {
            // All of it fits one packet.
            let (status, data) = into.split_at_mut(reply::SIZE);
            status.copy_from_slice(&head.bytes[..reply::SIZE]);
            self.sent += 1;
            return (reply::SIZE + extension::encode(caller, topic, self.origin, data), true);
        }
        let words = head.payload();
        let total = words.len() + head.data;
        let fragments = Header::fragments_for(total);
        let kind = if self.sent == 0 { Kind::Reply } else { Kind::Continuation };
        let header = Header { kind, fragments, ..self.header };
        into[..Header::SIZE].copy_from_slice(&header.encode());
        let start = usize::from(self.sent) * PACKET_PAYLOAD;
        let payload = &mut into[Header::SIZE..][..(total - start).min(PACKET_PAYLOAD)];
        let length = Header::SIZE + payload.len();
        // All words are in the first packet.
        let (first, rest) = payload.split_at_mut(if start == 0 { words.len() } else { 0 });
        first.copy_from_slice(&words[..first.len()]);
        if !rest.is_empty() {
            let at = if start == 0 { 0 } else { start - words.len() };
            self.data.read(caller.mem(), at, rest);
        }
        self.sent += 1;
        (length, self.sent > fragments)
    }
}
