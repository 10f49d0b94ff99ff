//! The consumer's side: asks, checks what it is given, uses it, gives it back in order.
//!
//! What a reply says is a claim. Before the memory is accepted the manager is asked whose parcel it is,
//! how it was made and how long it is; the accept then takes access list and label exactly as they were
//! asked for, and wiped pages only.

use rm_abi::{AclEntry, ErrorCode, Handle, Sanitize, Transfer, Vmid};

use super::message::{Acl, Body, Given, HeapName, Message, Offer, Packet, Refusal, Request};
use super::service::{ended, explained, refusal};
use crate::error::Error;
use crate::notice::Notice;
use crate::parcel::{Acceptance, PAGE_SIZE};
use crate::session::Session;
use crate::transport::Transport;

/// How often a supplier is told that its memory is free, before the consumer forgets about it. The
/// supplier knows it from the manager as well.
const TELLS: u32 = 5;

/// An allocation: an index of the consumer's table, with the transaction that made it, so that the ticket
/// of one that is over names no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    slot: usize,
    transaction: u32,
}

/// Memory that this VM has from the supplier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Where it is.
    pub ipa: u64,
    /// Its bytes, rounded up to the supplier's granule.
    pub size: u64,
    /// The manager's name for it.
    pub handle: Handle,
}

/// What has become of an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is mapped.
    Allocated(Ticket, Memory),
    /// There will be none.
    Failed(Ticket, Refusal),
    /// It was given back; an error says that the supplier has not confirmed it.
    Closed(Ticket, Result<(), Refusal>),
    /// The peer has lent or shared memory that was not asked for. This is what it says;
    /// [`MemBuf::import_offer`](crate::front::membuf::MemBuf::import_offer) believes none of it.
    Offered(Offer),
}

/// What to tell the program, and what to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// For the program.
    pub event: Option<Event>,
    /// For the supplier.
    pub send: Option<Packet>,
}

/// What was not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConsumerCounts {
    /// Messages that could not be read.
    pub malformed: u32,
    /// Messages for a supplier, which this is not.
    pub misdirected: u32,
    /// Replies to nothing that is waited for.
    pub unexpected: u32,
    /// Replies that came too late and were undone.
    pub late: u32,
    /// Replies that were not true.
    pub lies: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Asked { deadline: u64 },
    Held { given: Given, memory: Memory, uses: u32 },
    Telling { given: Given, deadline: u64, tells: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    transaction: u32,
    request: Request,
    state: State,
}

/// What a consumer knows before it asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Who supplies: replies are checked to be about this VM's parcels.
    pub supplier: Vmid,
    /// What the supplier rounds up to.
    pub granule: u64,
    /// Ticks to wait for a reply: mem-buf's 3.5 s.
    pub patience: u64,
}

/// A consumer with at most `SLOTS` allocations at once.
#[derive(Debug)]
pub struct Consumer<const SLOTS: usize = 8> {
    agreement: Agreement,
    slots: [Option<Slot>; SLOTS],
    last: u32,
    counts: ConsumerCounts,
}

impl<const SLOTS: usize> Consumer<SLOTS> {
    /// A consumer of one supplier.
    pub fn new(agreement: Agreement) -> Self {
        Self { agreement, slots: [None; SLOTS], last: 0, counts: ConsumerCounts::default() }
    }

    /// What was not as it should be.
    pub const fn counts(&self) -> ConsumerCounts {
        self.counts
    }

    /// Allocations that are not over.
    pub fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Asks for `size` bytes of one of the supplier's heaps. What comes of it is told by an [`Event`].
    pub fn alloc(
        &mut self,
        now: u64,
        heap: &str,
        size: u64,
        transfer: Transfer,
        acl: &[AclEntry],
    ) -> Result<(Ticket, Packet), Refusal> {
        let shared = acl.iter().any(|entry| entry.vmid == self.agreement.supplier);
        if size == 0 || transfer == Transfer::Donate || shared != (transfer == Transfer::Share) {
            return Err(Refusal::Invalid);
        }
        size.checked_next_multiple_of(self.agreement.granule).ok_or(Refusal::Invalid)?;
        let (acl, heap) = (Acl::new(acl)?, HeapName::new(heap.as_bytes())?);
        let request = Request { size, transfer, acl, heap };
        let slot = self.slots.iter().position(Option::is_none).ok_or(Refusal::Busy)?;
        let transaction = self.next_transaction();
        let packet = encode(transaction, Body::Alloc(Ok(request)))?;
        let state = State::Asked { deadline: now.saturating_add(self.agreement.patience) };
        self.slots[slot] = Some(Slot { transaction, request, state });
        Ok((Ticket { slot, transaction }, packet))
    }

    fn next_transaction(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            let used = self.slots.iter().flatten().any(|slot| slot.transaction == self.last);
            if !used {
                return self.last;
            }
        }
    }

    /// Takes a message of the supplier's. One that comes when its time is over, but before
    /// [`Self::tick`] has said so, is in time.
    pub fn receive<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        bytes: &[u8],
    ) -> Step {
        let Some(message) = Message::decode(bytes) else {
            self.counts.malformed = self.counts.malformed.saturating_add(1);
            return Step::default();
        };
        match message.body {
            Body::Allocated(answer) => self.answered(session, message.transaction, answer),
            Body::Relinquished(answer) => self.confirmed(message.transaction, answer),
            Body::Offer(offer) => Step { event: Some(Event::Offered(offer)), send: None },
            Body::Alloc(_) => {
                // Not dropped: the peer would wait for its whole patience.
                self.counts.misdirected = self.counts.misdirected.saturating_add(1);
                let body = Body::Allocated(Err(Refusal::NotSupported));
                Step { event: None, send: encode(message.transaction, body).ok() }
            }
            Body::Relinquish(_) => {
                self.counts.misdirected = self.counts.misdirected.saturating_add(1);
                let body = Body::Relinquished(Err(Refusal::NotSupported));
                Step { event: None, send: encode(message.transaction, body).ok() }
            }
        }
    }

    fn answered<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        transaction: u32,
        answer: Result<Given, Refusal>,
    ) -> Step {
        let waits = |slot: &Option<Slot>| {
            slot.is_some_and(|slot| {
                slot.transaction == transaction && matches!(slot.state, State::Asked { .. })
            })
        };
        let known = answer.is_ok_and(|given| self.is_ours(given.handle));
        let Some(slot) = self.slots.iter().position(waits) else {
            return match answer {
                // A success that nobody waits for any more is undone, unless it repeats what is held.
                Ok(given) if !known => {
                    self.counts.late = self.counts.late.saturating_add(1);
                    self.relinquish(given)
                }
                _ => {
                    self.counts.unexpected = self.counts.unexpected.saturating_add(1);
                    Step::default()
                }
            };
        };
        let ticket = Ticket { slot, transaction };
        let given = match answer {
            Ok(given) => given,
            Err(refusal) => return self.fail(ticket, refusal),
        };
        if known {
            // It names a parcel of another allocation, which stays as it is.
            self.counts.lies = self.counts.lies.saturating_add(1);
            return self.fail(ticket, Refusal::Invalid);
        }
        match self.accept(session, slot, given) {
            Ok(memory) => Step { event: Some(Event::Allocated(ticket, memory)), send: None },
            Err(refusal) => {
                let send = self.relinquish(given).send;
                Step { send, ..self.fail(ticket, refusal) }
            }
        }
    }

    /// Maps what a reply names, if it is what was asked for.
    fn accept<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        slot: usize,
        given: Given,
    ) -> Result<Memory, Refusal> {
        let entry = self.slots[slot].ok_or(Refusal::Unknown)?;
        let Request { size, transfer, acl, .. } = entry.request;
        let size = size.next_multiple_of(self.agreement.granule);
        let info = session.info(given.handle).map_err(refusal)?;
        let is_true = info.owner == self.agreement.supplier
            && info.transfer == transfer
            && info.label == given.object
            && info.pages.checked_mul(PAGE_SIZE) == Some(size);
        if !is_true {
            self.counts.lies = self.counts.lies.saturating_add(1);
            return Err(Refusal::Invalid);
        }
        let wanted = Acceptance::new(given.handle, transfer)
            .contiguous()
            .expect_label(given.object)
            .expect_acl(acl.entries(), &[])
            .expect_sanitized();
        let place = match session.accept(&wanted) {
            Ok(mut places) => places.next().filter(|place| place.size == size),
            Err(error) => {
                if !matches!(error, Error::Refused(_) | Error::Encode(_)) {
                    // It may be accepted: then this lets it go.
                    let _ = session.release(given.handle, Sanitize::empty());
                }
                return Err(explained(session, error));
            }
        };
        let Some(place) = place else {
            let _ = session.release(given.handle, Sanitize::empty());
            return Err(Refusal::Broken);
        };
        let memory = Memory { ipa: place.ipa, size, handle: given.handle };
        self.slots[slot] = Some(Slot { state: State::Held { given, memory, uses: 0 }, ..entry });
        Ok(memory)
    }

    fn is_ours(&self, handle: Handle) -> bool {
        self.slots.iter().flatten().any(|slot| match slot.state {
            State::Held { given, .. } | State::Telling { given, .. } => given.handle == handle,
            State::Asked { .. } => false,
        })
    }

    fn fail(&mut self, ticket: Ticket, refusal: Refusal) -> Step {
        self.slots[ticket.slot] = None;
        Step { event: Some(Event::Failed(ticket, refusal)), send: None }
    }

    fn relinquish(&mut self, given: Given) -> Step {
        let transaction = self.next_transaction();
        Step { event: None, send: encode(transaction, Body::Relinquish(given)).ok() }
    }

    fn confirmed(&mut self, transaction: u32, answer: Result<(), Refusal>) -> Step {
        let told = |slot: &Option<Slot>| {
            slot.is_some_and(|slot| {
                slot.transaction == transaction && matches!(slot.state, State::Telling { .. })
            })
        };
        let Some(slot) = self.slots.iter().position(told) else {
            self.counts.unexpected = self.counts.unexpected.saturating_add(1);
            return Step::default();
        };
        let answer = match answer {
            // The manager told the supplier before this VM did.
            Ok(()) | Err(Refusal::Unknown) => Ok(()),
            // It has not got it back yet: it is told again.
            Err(Refusal::Busy) => return Step::default(),
            Err(refusal) => Err(refusal),
        };
        self.slots[slot] = None;
        Step { event: Some(Event::Closed(Ticket { slot, transaction }, answer)), send: None }
    }

    /// Does one thing that time asks for; to be called until nothing is told or sent.
    pub fn tick(&mut self, now: u64) -> Step {
        for index in 0..SLOTS {
            let Some(slot) = self.slots[index] else { continue };
            let ticket = Ticket { slot: index, transaction: slot.transaction };
            match slot.state {
                State::Asked { deadline } if deadline <= now => {
                    return self.fail(ticket, Refusal::TimedOut);
                }
                State::Telling { deadline, tells, .. } if deadline <= now && tells == 0 => {
                    self.slots[index] = None;
                    let event = Event::Closed(ticket, Err(Refusal::TimedOut));
                    return Step { event: Some(event), send: None };
                }
                State::Telling { given, deadline, tells } if deadline <= now => {
                    let deadline = now.saturating_add(self.agreement.patience);
                    let state = State::Telling { given, deadline, tells: tells - 1 };
                    self.slots[index] = Some(Slot { state, ..slot });
                    let send = encode(slot.transaction, Body::Relinquish(given)).ok();
                    return Step { event: None, send };
                }
                _ => {}
            }
        }
        Step::default()
    }

    fn held(&mut self, ticket: Ticket) -> Result<&mut Slot, Refusal> {
        let slot = self.slots.get_mut(ticket.slot).and_then(Option::as_mut);
        slot.filter(|slot| {
            slot.transaction == ticket.transaction && matches!(slot.state, State::Held { .. })
        })
        .ok_or(Refusal::Unknown)
    }

    /// The memory of an allocation, while it is held.
    pub fn memory(&self, ticket: Ticket) -> Option<Memory> {
        let slot = self.slots.get(ticket.slot)?.filter(|s| s.transaction == ticket.transaction)?;
        match slot.state {
            State::Held { memory, .. } => Some(memory),
            State::Asked { .. } | State::Telling { .. } => None,
        }
    }

    /// Notes that a part of this VM uses the memory: it cannot be closed before [`Self::end_use`].
    pub fn begin_use(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        let State::Held { uses, .. } = &mut self.held(ticket)?.state else {
            return Err(Refusal::Unknown);
        };
        *uses = uses.checked_add(1).ok_or(Refusal::NoSpace)?;
        Ok(())
    }

    /// Takes back one [`Self::begin_use`].
    pub fn end_use(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        let State::Held { uses, .. } = &mut self.held(ticket)?.state else {
            return Err(Refusal::Unknown);
        };
        *uses = uses.checked_sub(1).ok_or(Refusal::Invalid)?;
        Ok(())
    }

    /// Gives memory back: unmaps it, and then tells the supplier. Refused while it is used; and if the
    /// manager refuses, the memory stays as it is.
    pub fn close<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        ticket: Ticket,
    ) -> Result<Packet, Refusal> {
        let deadline = now.saturating_add(self.agreement.patience);
        let slot = self.held(ticket)?;
        let State::Held { given, uses, .. } = slot.state else { return Err(Refusal::Unknown) };
        if uses > 0 {
            return Err(Refusal::Busy);
        }
        let flags = match slot.request.transfer {
            Transfer::Lend => Sanitize::SANITIZE,
            _ => Sanitize::empty(),
        };
        release(session, given.handle, flags)?;
        slot.state = State::Telling { given, deadline, tells: TELLS };
        encode(ticket.transaction, Body::Relinquish(given))
    }

    /// Takes a notice that concerns the consumer: the supplier has ended. `told` hears what has become of
    /// each allocation.
    pub fn hear<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        notice: &Notice<'_>,
        told: impl FnMut(Event),
    ) {
        if ended(notice) == Some(self.agreement.supplier) {
            self.supplier_ended(session, told);
        }
    }

    /// The supplier has ended: forgets what was asked for and lets go what is held and not used. `told` hears
    /// what has become of each allocation.
    pub fn supplier_ended<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        mut told: impl FnMut(Event),
    ) {
        for (index, place) in self.slots.iter_mut().enumerate() {
            let Some(slot) = *place else { continue };
            let ticket = Ticket { slot: index, transaction: slot.transaction };
            told(match slot.state {
                State::Asked { .. } => Event::Failed(ticket, Refusal::Gone),
                State::Telling { .. } => Event::Closed(ticket, Ok(())),
                State::Held { uses: 1.., .. } => continue,
                State::Held { given, .. } => {
                    match release(session, given.handle, Sanitize::empty()) {
                        Ok(()) => Event::Closed(ticket, Err(Refusal::Gone)),
                        // It stays held, and can be closed later.
                        Err(_) => continue,
                    }
                }
            });
            *place = None;
        }
    }
}

/// Lets a parcel go; that it was taken away before is no error.
fn release<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    parcel: Handle,
    flags: Sanitize,
) -> Result<(), Refusal> {
    match session.release(parcel, flags) {
        Err(Error::Refused(ErrorCode::HandleInvalid | ErrorCode::MemoryReleased)) => Ok(()),
        outcome => outcome.map_err(refusal),
    }
}

fn encode(transaction: u32, body: Body) -> Result<Packet, Refusal> {
    Message { transaction, body }.encode().map_err(|_| Refusal::Invalid)
}
