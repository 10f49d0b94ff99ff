//! The two message queues as a transport.
//!
//! Requests and replies travel in packets of at most 240 bytes, and so do notifications, which may come
//! at any time and wait in an inbox until the program asks for them. What to do while the manager has
//! nothing to say is the program's choice: [`Poll`] asks again at once, an interrupt-driven [`Wait`]
//! sleeps. Nothing is missed in between: a transport announces that it is about to wait *before* it
//! looks for the last time.

use rm_abi::{Header, HypercallError, Kind, MAX_PAYLOAD, PACKET, PACKET_PAYLOAD};

use crate::notice::{Inbox, Notice};
use crate::transport::{Transport, TransportError};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// One of [`HypercallError`]'s values; `MSGQUEUE_FULL` if the queue has no room.
    pub error: i64,
    /// Whether another packet has room.
    pub not_full: bool,
}

/// What came of a look into the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// One of [`HypercallError`]'s values; `MSGQUEUE_EMPTY` if nothing waits.
    pub error: i64,
    /// Bytes of the packet.
    pub size: usize,
    /// Whether more packets wait.
    pub not_empty: bool,
}

/// The two hypercalls on a VM's queues.
pub trait QueueTrap {
    /// Puts a packet into the queue to the manager. `push`: it is the last one of a message.
    fn send(&mut self, packet: &[u8], push: bool) -> Sent;

    /// Takes a packet out of the queue from the manager.
    fn receive(&mut self, into: &mut [u8; PACKET]) -> Received;
}

/// What a client does while both queues stand still.
///
/// The order is `enter`, a last look at the queues, `wait` if that found nothing, `leave`. An interrupt
/// that comes after `enter` must end the next `wait` at once.
pub trait Wait {
    /// From here on an interrupt must not be lost.
    fn enter(&mut self) {}

    /// Returns when an interrupt of the queues may have come; at any time before is fine too.
    fn wait(&mut self);

    /// The end of what [`Wait::enter`] began.
    fn leave(&mut self) {}
}

/// Asks again at once. The program needs no interrupts, and its vCPU never rests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Poll;

impl Wait for Poll {
    fn wait(&mut self) {
        core::hint::spin_loop();
    }
}

/// The message that is coming in.
#[derive(Clone, Copy, Debug)]
struct Partial {
    header: Header,
    /// Packets that are still to come.
    missing: u8,
}

/// The reply that a call waits for.
struct Wanted<'a> {
    header: Header,
    buffer: &'a mut [u8],
    /// Bytes so far, also those that do not fit the buffer.
    length: usize,
    whole: bool,
}

/// The two queues of a VM. `INBOX` is how many bytes of notifications may wait; a MEM_SHARED of 512
/// runs takes about 4,200, the others less than 24.
#[derive(Debug)]
pub struct Queues<T, W, const INBOX: usize = 1024> {
    trap: T,
    wait: W,
    partial: Option<Partial>,
    inbox: Inbox<INBOX>,
}

impl<T: QueueTrap, W: Wait> Queues<T, W> {
    /// The queues, with room for a few notifications.
    pub const fn new(trap: T, wait: W) -> Self {
        Self::with_inbox(trap, wait)
    }
}

impl<T: QueueTrap, W: Wait, const INBOX: usize> Queues<T, W, INBOX> {
    /// The queues, with room for `INBOX` bytes of notifications.
    pub const fn with_inbox(trap: T, wait: W) -> Self {
        Self { trap, wait, partial: None, inbox: Inbox::new() }
    }

    /// The oldest notification that has come, without waiting. It is told once.
    pub fn poll_notice(&mut self) -> Result<Option<Notice<'_>>, TransportError> {
        while self.inbox.is_empty() && self.receive(&mut None)? {}
        Ok(self.inbox.next().and_then(Notice::decode))
    }

    /// The oldest notification, as soon as there is one.
    pub fn wait_notice(&mut self) -> Result<Notice<'_>, TransportError> {
        while self.inbox.is_empty() {
            self.receive_or_wait(&mut None)?;
        }
        let notice = self.inbox.next().and_then(Notice::decode);
        notice.ok_or(TransportError::Malformed)
    }

    /// How many notifications were dropped because the inbox had no room.
    pub const fn lost_notices(&self) -> u32 {
        self.inbox.lost()
    }

    /// Takes one packet, if there is one.
    fn receive(&mut self, wanted: &mut Option<Wanted<'_>>) -> Result<bool, TransportError> {
        let mut packet = [0; PACKET];
        let Received { error, size, .. } = self.trap.receive(&mut packet);
        match error {
            HypercallError::OK => {
                self.packet(&packet[..size.min(PACKET)], wanted);
                Ok(true)
            }
            HypercallError::MSGQUEUE_EMPTY => Ok(false),
            error => Err(TransportError::Hypercall(error)),
        }
    }

    /// Takes one packet, or waits for something to happen.
    fn receive_or_wait(&mut self, wanted: &mut Option<Wanted<'_>>) -> Result<(), TransportError> {
        if self.receive(wanted)? {
            return Ok(());
        }
        self.wait.enter();
        let received = self.receive(wanted);
        if received == Ok(false) {
            self.wait.wait();
        }
        self.wait.leave();
        received.map(drop)
    }

    /// Sends one packet, as soon as there is room.
    fn send(
        &mut self,
        packet: &[u8],
        push: bool,
        wanted: &mut Option<Wanted<'_>>,
    ) -> Result<(), TransportError> {
        while !self.try_send(packet, push)? {
            self.wait.enter();
            let sent = self.try_send(packet, push);
            // There is room again when the manager has room for what it has to say.
            let received = if sent == Ok(false) { self.receive(wanted) } else { Ok(true) };
            if received == Ok(false) {
                self.wait.wait();
            }
            self.wait.leave();
            received?;
            if sent? {
                break;
            }
        }
        Ok(())
    }

    fn try_send(&mut self, packet: &[u8], push: bool) -> Result<bool, TransportError> {
        match self.trap.send(packet, push).error {
            HypercallError::OK => Ok(true),
            HypercallError::MSGQUEUE_FULL => Ok(false),
            error => Err(TransportError::Hypercall(error)),
        }
    }

    /// Takes a packet to where it belongs. One that belongs nowhere is dropped.
    fn packet(&mut self, packet: &[u8], wanted: &mut Option<Wanted<'_>>) {
        let Some(header) = Header::decode(packet) else { return };
        let payload = &packet[Header::SIZE..];
        let first = header.kind != Kind::Continuation;
        let partial = match self.partial.take() {
            Some(partial) if !first && partial.continues_with(&header) => {
                Partial { missing: partial.missing - 1, ..partial }
            }
            _ if first => Partial { header, missing: header.fragments },
            _ => return,
        };
        let ends = partial.missing == 0;
        match partial.header.kind {
            Kind::Reply => {
                if let Some(wanted) = wanted.as_mut().filter(|wanted| wanted.is(&partial.header)) {
                    wanted.add(first, payload, ends);
                }
            }
            Kind::Notification => {
                self.notification(first.then_some(&partial.header), payload, ends)
            }
            Kind::Request | Kind::Continuation => return,
        }
        self.partial = (!ends).then_some(partial);
    }

    fn notification(&mut self, begins: Option<&Header>, payload: &[u8], ends: bool) {
        if let Some(header) = begins {
            self.inbox.begin();
            self.inbox.add(&header.encode());
        }
        self.inbox.add(payload);
        if ends {
            self.inbox.end();
        }
    }
}

impl Partial {
    fn continues_with(&self, header: &Header) -> bool {
        Header { kind: self.header.kind, ..*header } == self.header
    }
}

impl Wanted<'_> {
    /// Whether this is the header of the reply, in however many packets it comes.
    fn is(&self, header: &Header) -> bool {
        Header { fragments: 0, ..*header } == self.header
    }

    fn add(&mut self, first: bool, payload: &[u8], ends: bool) {
        if first {
            // The reply is handed on in one piece.
            self.length = 0;
            self.put(&self.header.encode());
        }
        self.put(payload);
        self.whole = ends;
    }

    fn put(&mut self, part: &[u8]) {
        if let Some(place) =
            self.buffer.get_mut(self.length..).and_then(|rest| rest.get_mut(..part.len()))
        {
            place.copy_from_slice(part);
        }
        self.length += part.len();
    }
}

impl<T: QueueTrap, W: Wait, const INBOX: usize> Transport for Queues<T, W, INBOX> {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        let Some(header) = Header::decode(request) else { return Err(TransportError::Malformed) };
        let payload = &request[Header::SIZE..];
        if payload.len() > MAX_PAYLOAD {
            return Err(TransportError::Malformed);
        }
        let room = reply.len();
        let mut wanted =
            Some(Wanted { header: header.reply(), buffer: reply, length: 0, whole: false });
        let fragments = Header::fragments_for(payload.len());
        for index in 0..=fragments {
            let start = usize::from(index) * PACKET_PAYLOAD;
            let part = &payload[start..payload.len().min(start + PACKET_PAYLOAD)];
            let kind = if index == 0 { header.kind } else { Kind::Continuation };
            let mut packet = [0; PACKET];
            packet[..Header::SIZE].copy_from_slice(&Header { kind, fragments, ..header }.encode());
            let length = Header::SIZE + part.len();
            packet[Header::SIZE..length].copy_from_slice(part);
            self.send(&packet[..length], index == fragments, &mut wanted)?;
        }
        loop {
            if let Some(Wanted { whole: true, length, .. }) = wanted {
                return if length <= room {
                    Ok(length)
                } else {
                    Err(TransportError::TooLong(length))
                };
            }
            self.receive_or_wait(&mut wanted)?;
        }
    }
}
