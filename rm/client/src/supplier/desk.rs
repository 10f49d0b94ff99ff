//! Where messages wait for the service: a short line for each peer, served in turns.
//!
//! A message is taken from the channel at once, so that a peer is never blocked, and costs nothing but
//! its place in its own line. Who sends more than the line holds is told so, and holds up nobody else.

use rm_abi::Vmid;

use super::message::{Body, Message, Packet, Refusal, first};
use super::service::{Supplier, ended};
use crate::notice::Notice;
use crate::session::Session;
use crate::transport::Transport;

/// How a peer speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Generation {
    /// mem-buf of kernel 5.4: [`first`].
    First,
    /// The one after it.
    #[default]
    Second,
}

/// A peer's line.
#[derive(Clone, Copy, Debug)]
struct Line<const DEPTH: usize> {
    peer: Vmid,
    generation: Generation,
    waiting: [Packet; DEPTH],
    first: usize,
    count: usize,
}

/// What was not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeskCounts {
    /// Messages for which there was no place.
    pub surplus: u32,
    /// Messages of VMs that are no peers, and such as are longer than any can be.
    pub strange: u32,
}

/// The lines of `PEERS` peers, of `DEPTH` messages each.
#[derive(Debug)]
pub struct Desk<const PEERS: usize, const DEPTH: usize = 4> {
    lines: [Line<DEPTH>; PEERS],
    turn: usize,
    counts: DeskCounts,
}

impl<const PEERS: usize, const DEPTH: usize> Desk<PEERS, DEPTH> {
    /// Empty lines of these peers.
    pub fn new(peers: [(Vmid, Generation); PEERS]) -> Self {
        let lines = peers.map(|(peer, generation)| Line {
            peer,
            generation,
            waiting: [Packet::EMPTY; DEPTH],
            first: 0,
            count: 0,
        });
        Self { lines, turn: 0, counts: DeskCounts::default() }
    }

    /// What was not as it should be.
    pub const fn counts(&self) -> DeskCounts {
        self.counts
    }

    /// Messages of a peer that wait.
    pub fn waiting(&self, peer: Vmid) -> usize {
        self.lines.iter().find(|line| line.peer == peer).map_or(0, |line| line.count)
    }

    /// Puts a message of `peer` into its line. If there is no place for it, this is what to answer.
    pub fn put(&mut self, peer: Vmid, bytes: &[u8]) -> Option<Packet> {
        let line = self.lines.iter_mut().find(|line| line.peer == peer);
        let (Some(line), Some(packet)) = (line, Packet::copy(bytes)) else {
            self.counts.strange = self.counts.strange.saturating_add(1);
            return None;
        };
        if line.count < DEPTH {
            line.waiting[(line.first + line.count) % DEPTH] = packet;
            line.count += 1;
            return None;
        }
        self.counts.surplus = self.counts.surplus.saturating_add(1);
        match line.generation {
            Generation::First => busy_first(bytes),
            Generation::Second => busy(bytes),
        }
    }

    /// Serves one message of the peer whose turn it is. `None` if nobody waits, else who is to be sent
    /// what, if anything.
    pub fn serve<T: Transport, const N: usize, const HEAPS: usize, const OBJECTS: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        supplier: &mut Supplier<HEAPS, OBJECTS>,
    ) -> Option<(Vmid, Option<Packet>)> {
        let order = (0..PEERS).map(|step| (self.turn + step) % PEERS);
        let index = order.into_iter().find(|&index| self.lines[index].count > 0)?;
        self.turn = (index + 1) % PEERS;
        let line = &mut self.lines[index];
        let message = line.waiting[line.first];
        line.first = (line.first + 1) % DEPTH;
        line.count -= 1;
        let answer = match line.generation {
            Generation::First => supplier.receive_first(now, session, line.peer, &message),
            Generation::Second => supplier.receive(now, session, line.peer, &message),
        };
        Some((line.peer, answer))
    }

    /// Takes a notice, as [`Supplier::hear`] does: what a peer that has ended wanted it wants no more.
    pub fn hear(&mut self, notice: &Notice<'_>) {
        let peer = ended(notice);
        for line in self.lines.iter_mut().filter(|line| peer == Some(line.peer)) {
            line.count = 0;
        }
    }
}

fn busy(bytes: &[u8]) -> Option<Packet> {
    let Message { transaction, body } = Message::decode(bytes)?;
    let body = match body {
        Body::Alloc(_) => Body::Allocated(Err(Refusal::Busy)),
        Body::Relinquish(_) => Body::Relinquished(Err(Refusal::Busy)),
        Body::Allocated(_) | Body::Relinquished(_) | Body::Offer(_) => return None,
    };
    Message { transaction, body }.encode().ok()
}

fn busy_first(bytes: &[u8]) -> Option<Packet> {
    let first::Message { transaction, body } = first::Message::decode(bytes)?;
    let first::Body::Alloc(_) = body else { return None };
    let body = first::Body::Allocated(Err(Refusal::Busy));
    first::Message { transaction, body }.encode().ok()
}
