//! Requests of several packets: putting them together.
//!
//! What is malformed is dropped without an answer, as the protocol has it: a packet without a valid
//! header, a continuation of nothing, one that does not match the message in progress. A new message
//! ends a partial one. Packets need not be full; the message ends with the announced number of them.

use rm_abi::{Header, Kind, PACKET_PAYLOAD};

use crate::address::VmIndex;
use crate::call::Caller;
use crate::frame_pool::NoFrame;
use crate::machine::Machine;
use crate::operation::message::Message;
use crate::stage2::Memory;

/// A message in progress.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// The header of its first packet; `None` while there is no message.
    header: Option<Header>,
    /// Packets that are still to come.
    missing: u8,
    /// Bytes so far.
    length: usize,
    /// Why there was no frame for it: its packets are counted, and the answer says so.
    starved: Option<NoFrame>,
    message: Message,
}

/// What a packet led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// Nothing to answer.
    Nothing,
    /// A request that is wholly in the packet.
    Single(Header),
    /// The last packet of a request, which [`Assembly::take`] hands over.
    Last(Header),
    /// The last packet of a request that there was no room for.
    Starved(Header, NoFrame),
}

impl Assembly {
    pub(crate) const fn new() -> Self {
        Self { header: None, missing: 0, length: 0, starved: None, message: Message::new() }
    }

    /// Takes one packet.
    pub(crate) fn packet<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        packet: &[u8],
    ) -> Arrival {
        let mem = caller.mem();
        let Some(header) = Header::decode(packet) else { return Arrival::Nothing };
        let payload = &packet[Header::SIZE..];
        if header.kind == Kind::Continuation {
            return self.continuation(mem, &header, payload);
        }
        self.discard(mem, caller.vm);
        match (header.kind, header.fragments) {
            (Kind::Request, 0) => Arrival::Single(header),
            (Kind::Request, fragments) => {
                let room = (usize::from(fragments) + 1) * PACKET_PAYLOAD;
                self.starved = self.message.resize(caller, room).err();
                self.header = Some(header);
                self.missing = fragments;
                self.append(mem, payload);
                Arrival::Nothing
            }
            // A VM answers nothing and notifies nobody.
            _ => Arrival::Nothing,
        }
    }

    fn continuation<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        header: &Header,
        payload: &[u8],
    ) -> Arrival {
        let Some(first) = self.header else { return Arrival::Nothing };
        if (Header { kind: first.kind, ..*header }) != first {
            return Arrival::Nothing;
        }
        self.append(mem, payload);
        self.missing -= 1;
        if self.missing > 0 {
            return Arrival::Nothing;
        }
        self.header = None;
        self.starved.map_or(Arrival::Last(first), |none| Arrival::Starved(first, none))
    }

    fn append<M: Machine>(&mut self, mem: Memory<'_, '_, M>, payload: &[u8]) {
        if self.starved.is_none() {
            self.message.write(mem, self.length, payload);
            self.length += payload.len();
        }
    }

    /// Hands over the request whose last packet has come; `into` is empty.
    pub(crate) fn take(&mut self, into: &mut Message) {
        self.message.shorten(self.length);
        self.length = 0;
        core::mem::swap(&mut self.message, into);
    }

    /// Drops a partial message.
    pub(crate) fn discard<M: Machine>(&mut self, mem: Memory<'_, '_, M>, vm: VmIndex) {
        if self.header.take().is_some() {
            self.message.clear(mem, vm);
        }
        self.length = 0;
        self.starved = None;
    }
}
