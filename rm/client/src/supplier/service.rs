//! The supplier's side: named heaps, and a table of what was given to whom.
//!
//! The manager's word counts, and the peer's does not: an object's memory goes back to its heap when the
//! manager has let it be reclaimed, whatever a peer claims. A message only says when to try. So a peer
//! that lies gains nothing, and one that is silent costs its own quota until it ends.
//!
//! A peer that ends and starts again counts its transactions from the beginning. So what it asked for in an
//! earlier life answers no question of a later one: [`Supplier::hear`] tells the lives apart, and is to have
//! a notice before [`Supplier::receive`] has a message that came after it.

use rm_abi::extension::{EventKind, PageState, Rule};
use rm_abi::vm::{VmState, VmStatus};
use rm_abi::{ErrorCode, Handle, Sanitize, Transfer, Vmid};

use super::heap::{Block, Heap};
use super::message::{Acl, Body, Given, Message, Packet, Refusal, Request, first};
use crate::error::Error;
use crate::notice::Notice;
use crate::parcel::{NewParcel, PAGE_SIZE, pages};
use crate::session::Session;
use crate::transport::Transport;

/// What each peer may have at once, and for how long it may hesitate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Bytes, whole granules counted.
    pub bytes: u64,
    /// Objects.
    pub objects: usize,
    /// Ticks after which the service tries whether an object is still held: memory that was never
    /// accepted goes back then.
    pub patience: u64,
}

/// What a peer has at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes, whole granules counted, as [`Terms::bytes`] limits them.
    pub bytes: u64,
    /// Objects, as [`Terms::objects`] limits them.
    pub objects: usize,
}

/// Whether an object may be given to anybody again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It is the peer's.
    Given,
    /// The peer that asked for it has ended, or speaks of something else by now: it comes home.
    Forgotten,
    /// The manager's answer left open whose it is: never given away again.
    Poisoned,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    peer: Vmid,
    transaction: u32,
    request: Request,
    given: Given,
    heap: usize,
    block: Block,
    try_at: u64,
    phase: Phase,
}

/// What was not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Messages that could not be read.
    pub malformed: u32,
    /// Messages for a consumer, which this is not.
    pub misdirected: u32,
    /// Requests that were refused.
    pub refused: u32,
    /// Requests that came a second time and got the same answer.
    pub repeated: u32,
    /// Objects whose memory is lost, because the manager's answer left open whose it is.
    pub poisoned: u32,
}

/// A supplier with `HEAPS` heaps and at most `OBJECTS` objects. Who sent a message is what the channel
/// knows, not what the message says.
#[derive(Debug)]
pub struct Supplier<const HEAPS: usize, const OBJECTS: usize = 32> {
    me: Vmid,
    supplies: bool,
    terms: Terms,
    heaps: [Heap; HEAPS],
    objects: [Option<Object>; OBJECTS],
    last: u32,
    counts: Counts,
}

impl<const HEAPS: usize, const OBJECTS: usize> Supplier<HEAPS, OBJECTS> {
    /// The service of the VM `me`. Of two heaps with one name the second is refused.
    pub fn new(me: Vmid, heaps: [Heap; HEAPS], terms: Terms) -> Result<Self, Refusal> {
        let twice = |index: usize, heap: &Heap| {
            heaps[..index].iter().any(|other| other.name() == heap.name())
        };
        if heaps.iter().enumerate().any(|(index, heap)| twice(index, heap)) {
            return Err(Refusal::Invalid);
        }
        let (supplies, counts) = (true, Counts::default());
        Ok(Self { me, supplies, terms, heaps, objects: [None; OBJECTS], last: 0, counts })
    }

    /// Answers every request with EOPNOTSUPP from now on, or serves them. What was given away before can
    /// be given back in either case.
    pub const fn set_role(&mut self, supplies: bool) {
        self.supplies = supplies;
    }

    /// What was not as it should be.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of a heap that are not given away.
    pub fn free_bytes(&self, heap: &str) -> Option<u64> {
        let is_it = |other: &&Heap| other.name().as_bytes() == heap.as_bytes();
        self.heaps.iter().find(is_it).map(Heap::free_bytes)
    }

    /// Objects that are given away.
    pub fn objects(&self) -> usize {
        self.objects.iter().flatten().count()
    }

    /// What a peer is charged with.
    pub fn usage(&self, peer: Vmid) -> Usage {
        let theirs = || self.objects.iter().flatten().filter(|object| object.peer == peer);
        Usage { bytes: theirs().map(|object| object.block.size).sum(), objects: theirs().count() }
    }

    /// Whether nobody else has any of this memory, nor may have it: mem-buf's EXCLUSIVE_OWNER. What this
    /// service gave away is known here. If the configuration lets this VM look at its own tables (role
    /// *inspect*), the manager is asked too, for another part of the VM may have given it away.
    pub fn is_exclusive<T: Transport, const N: usize>(
        &self,
        session: &mut Session<T, N>,
        block: Block,
    ) -> Result<bool, Refusal> {
        let ours = self.objects.iter().flatten().any(|object| overlap(object.block, block));
        if ours {
            return Ok(false);
        }
        let mut is_owned = true;
        let looked = session.map(self.me, |run| {
            let run_block = Block { ipa: run.ipa, size: run.pages.saturating_mul(PAGE_SIZE) };
            is_owned &= !overlap(run_block, block) || run.state == PageState::Owned;
        });
        match looked {
            Ok(()) => Ok(is_owned),
            Err(Error::Refused(ErrorCode::Denied | ErrorCode::Unimplemented)) => Ok(true),
            Err(error) => Err(refusal(error)),
        }
    }

    /// Takes a message of `peer` and returns the answer to send, if there is one.
    pub fn receive<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        peer: Vmid,
        bytes: &[u8],
    ) -> Option<Packet> {
        let Some(message) = Message::decode(bytes) else {
            self.counts.malformed = self.counts.malformed.saturating_add(1);
            return None;
        };
        let body = match message.body {
            Body::Alloc(request) => {
                let transaction = message.transaction;
                let answer = request
                    .and_then(|request| self.allocate(now, session, peer, transaction, &request));
                if answer.is_err() {
                    self.counts.refused = self.counts.refused.saturating_add(1);
                }
                Body::Allocated(answer)
            }
            Body::Relinquish(given) => Body::Relinquished(self.relinquished(session, peer, given)),
            Body::Allocated(_) | Body::Relinquished(_) | Body::Offer(_) => {
                self.counts.misdirected = self.counts.misdirected.saturating_add(1);
                return None;
            }
        };
        Message { transaction: message.transaction, body }.encode().ok()
    }

    /// As [`Self::receive`], of a peer that speaks mem-buf's [first generation](first): heaps have the
    /// numbers of their places, and giving back is not confirmed.
    pub fn receive_first<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        peer: Vmid,
        bytes: &[u8],
    ) -> Option<Packet> {
        let Some(first::Message { transaction, body }) = first::Message::decode(bytes) else {
            self.counts.malformed = self.counts.malformed.saturating_add(1);
            return None;
        };
        let answer = match body {
            first::Body::Alloc(request) => {
                let request = request.and_then(|request| self.of_first(&request));
                request.and_then(|request| self.allocate(now, session, peer, transaction, &request))
            }
            first::Body::Relinquish(handle) => {
                let theirs =
                    |object: &&Object| object.peer == peer && object.given.handle == handle;
                let given = self.objects.iter().flatten().find(theirs).map(|object| object.given);
                let outcome = given.map(|given| self.relinquished(session, peer, given));
                if outcome != Some(Ok(())) {
                    self.counts.refused = self.counts.refused.saturating_add(1);
                }
                return None;
            }
            first::Body::Allocated(_) => {
                self.counts.misdirected = self.counts.misdirected.saturating_add(1);
                return None;
            }
        };
        if answer.is_err() {
            self.counts.refused = self.counts.refused.saturating_add(1);
        }
        let body = first::Body::Allocated(answer.map(|given| given.handle));
        first::Message { transaction, body }.encode().ok()
    }

    /// A request of the first generation in the words of the second.
    fn of_first(&self, request: &first::Request) -> Result<Request, Refusal> {
        let first::Request { size, acl, heap } = *request;
        let transfer = if acl.names(self.me) { Transfer::Share } else { Transfer::Lend };
        let heap = self.heaps.get(heap as usize).ok_or(Refusal::Invalid)?;
        Ok(Request { size, transfer, acl, heap: *heap.name() })
    }

    /// An answer of [`Self::receive`] could not be sent: what it gives away comes back at once.
    pub fn undelivered<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        peer: Vmid,
        answer: &[u8],
    ) {
        if let Some(Message { body: Body::Allocated(Ok(given)), .. }) = Message::decode(answer) {
            self.take_back_all(session, |object| object.peer == peer && object.given == given);
        }
    }

    fn allocate<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        peer: Vmid,
        transaction: u32,
        request: &Request,
    ) -> Result<Given, Refusal> {
        if !self.supplies {
            return Err(Refusal::NotSupported);
        }
        let asked = |object: &Object| {
            (object.peer, object.transaction, object.phase) == (peer, transaction, Phase::Given)
        };
        if let Some(object) = self.objects.iter().flatten().find(|object| asked(object)) {
            if object.request == *request {
                self.counts.repeated = self.counts.repeated.saturating_add(1);
                return Ok(object.given);
            }
            // A consumer does not use a number twice while it has what it got for it: this is another
            // life of it, of whose beginning nobody has told yet.
            self.forget(session, asked);
        }
        self.check_acl(peer, request)?;
        let is_it = |heap: &Heap| *heap.name() == request.heap;
        let heap = self.heaps.iter().position(is_it).ok_or(Refusal::Invalid)?;
        self.check_terms(peer, request.size, self.heaps[heap].granule())?;
        let place = self.objects.iter().position(Option::is_none).ok_or(Refusal::Busy)?;
        let block = self.heaps[heap].take(request.size)?;
        let id = self.next_id();
        let made = give(session, request, block, id);
        let (given, phase) = match made {
            Ok(handle) => (Given { handle, object: id }, Phase::Given),
            // It was refused or not sent: nothing has changed.
            Err(error @ (Error::Refused(_) | Error::RefusedUnknown(_) | Error::Encode(_))) => {
                self.heaps[heap].put_back(block);
                return Err(explained(session, error));
            }
            Err(_) => {
                self.counts.poisoned = self.counts.poisoned.saturating_add(1);
                let handle = Handle(0);
                (Given { handle, object: id }, Phase::Poisoned)
            }
        };
        let try_at = now.saturating_add(self.terms.patience);
        let request = *request;
        self.objects[place] =
            Some(Object { peer, transaction, request, given, heap, block, try_at, phase });
        if phase == Phase::Given { Ok(given) } else { Err(Refusal::Lost) }
    }

    /// A peer asks for itself, and with a share for this VM, and for nobody else.
    fn check_acl(&self, peer: Vmid, request: &Request) -> Result<(), Refusal> {
        let shared = match request.transfer {
            Transfer::Share => true,
            Transfer::Lend => false,
            // What is given for good cannot come back to its heap.
            Transfer::Donate => return Err(Refusal::Invalid),
        };
        let acl: &Acl = &request.acl;
        if acl.entries().iter().any(|entry| entry.vmid != peer && entry.vmid != self.me) {
            return Err(Refusal::NotPermitted);
        }
        let fits = acl.names(peer) && acl.names(self.me) == shared;
        if fits { Ok(()) } else { Err(Refusal::Invalid) }
    }

    fn check_terms(&self, peer: Vmid, size: u64, granule: u64) -> Result<(), Refusal> {
        let size = size.checked_next_multiple_of(granule).ok_or(Refusal::Invalid)?;
        let Usage { bytes, objects } = self.usage(peer);
        let fits = objects < self.terms.objects
            && bytes.checked_add(size).is_some_and(|sum| sum <= self.terms.bytes);
        if fits { Ok(()) } else { Err(Refusal::NoSpace) }
    }

    /// A number that no object has, and never 0.
    fn next_id(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            let is_it = |object: &Object| object.given.object == self.last;
            if self.last != 0 && !self.objects.iter().flatten().any(is_it) {
                return self.last;
            }
        }
    }

    /// Peer, object and handle must all be those of one entry: nobody gives back what is another's.
    fn relinquished<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        peer: Vmid,
        given: Given,
    ) -> Result<(), Refusal> {
        let is_it = |object: &Option<Object>| {
            object.is_some_and(|object| object.peer == peer && object.given == given)
        };
        let index = self.objects.iter().position(is_it).ok_or(Refusal::Unknown)?;
        self.take_back(session, index)
    }

    /// Reclaims an object's memory, wiped, if the manager lets it.
    fn take_back<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        index: usize,
    ) -> Result<(), Refusal> {
        let object = self.objects[index].ok_or(Refusal::Unknown)?;
        if object.phase == Phase::Poisoned {
            return Err(Refusal::Lost);
        }
        match session.reclaim(object.given.handle, Sanitize::SANITIZE) {
            Ok(()) => {
                self.objects[index] = None;
                self.heaps[object.heap].put_back(object.block);
                Ok(())
            }
            // A parcel of this VM ends by its own reclaim alone; so nothing is certain any more. Or the
            // manager says itself that a page cannot be vouched for.
            Err(Error::Refused(ErrorCode::HandleInvalid | ErrorCode::MemoryInvalid)) => {
                self.counts.poisoned = self.counts.poisoned.saturating_add(1);
                self.objects[index] = Some(Object { phase: Phase::Poisoned, ..object });
                Err(Refusal::Lost)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Looks after what is due: objects whose time is over are taken back if nobody holds them. To be
    /// called now and then.
    pub fn tick<T: Transport, const N: usize>(&mut self, now: u64, session: &mut Session<T, N>) {
        for index in 0..OBJECTS {
            let due = self.objects[index].is_some_and(|object| object.try_at <= now);
            if due
                && self.take_back(session, index).is_err()
                && let Some(object) = &mut self.objects[index]
            {
                object.try_at = now.saturating_add(self.terms.patience);
            }
        }
    }

    /// Takes a notice that concerns the service: a borrower has released a parcel, or a peer has ended.
    /// For the first, subscribe to [`Events::RELEASED`](crate::Events).
    pub fn hear<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        notice: &Notice<'_>,
    ) {
        match notice {
            Notice::Released(news) => self.released(session, news.handle),
            Notice::Event(event) if event.kind == EventKind::Released => {
                self.released(session, event.handle);
            }
            notice => {
                if let Some(peer) = ended(notice) {
                    self.peer_ended(session, peer);
                }
            }
        }
    }

    /// The manager says that a parcel was released.
    pub fn released<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        parcel: Handle,
    ) {
        self.take_back_all(session, |object| object.given.handle == parcel);
    }

    /// A peer has ended. What the manager still takes from it comes home at a later [`Self::tick`].
    pub fn peer_ended<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        peer: Vmid,
    ) {
        self.forget(session, |object| object.peer == peer && object.phase == Phase::Given);
    }

    /// Asks a peer for everything that it has, and lets it accept none of it anew: what it releases from
    /// now on comes home, also if it accepts and releases for ever. One that does not release is a case
    /// for [`Self::revoke`].
    pub fn recall<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        peer: Vmid,
    ) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        for object in self.objects.iter().flatten().filter(|object| object.peer == peer) {
            outcome = outcome.and(session.recall(object.given.handle).map_err(refusal));
        }
        self.take_back_all(session, |object| object.peer == peer);
        outcome
    }

    /// Takes everything away from a peer that does not give it back. The first refusal is told when all of
    /// the peer's objects were tried: one that is broken does not shield the others.
    pub fn revoke<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        peer: Vmid,
    ) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        for index in 0..OBJECTS {
            let Some(object) = self.objects[index].filter(|object| object.peer == peer) else {
                continue;
            };
            // What this refuses, the reclaim refuses too, and keeps the object's state right.
            let _ = session.revoke(object.given.handle);
            outcome = outcome.and(self.take_back(session, index));
        }
        outcome
    }

    /// Takes objects back, now or when they can be, and repeats no answer about them.
    fn forget<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        which: impl Fn(&Object) -> bool,
    ) {
        for object in self.objects.iter_mut().flatten().filter(|object| which(object)) {
            object.phase = Phase::Forgotten;
        }
        self.take_back_all(session, |object| object.phase == Phase::Forgotten);
    }

    fn take_back_all<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        which: impl Fn(&Object) -> bool,
    ) {
        for index in 0..OBJECTS {
            if self.objects[index].as_ref().is_some_and(&which)
                && self.take_back(session, index).is_err()
                && let Some(object) = &mut self.objects[index]
            {
                // What is still held is tried again at the next tick.
                object.try_at = 0;
            }
        }
    }
}

const fn overlap(one: Block, other: Block) -> bool {
    one.ipa < other.ipa.saturating_add(other.size) && other.ipa < one.ipa.saturating_add(one.size)
}

fn give<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    request: &Request,
    block: Block,
    id: u32,
) -> Result<Handle, Error> {
    let ranges = [pages(block.ipa, block.size / PAGE_SIZE)];
    let parcel = NewParcel::new(&ranges, request.acl.entries()).label(id).sanitized();
    match request.transfer {
        Transfer::Share => session.share(&parcel),
        _ => session.lend(&parcel),
    }
}

/// The VM of whose end a notice tells.
pub(super) const fn ended(notice: &Notice<'_>) -> Option<Vmid> {
    match notice {
        Notice::Status(VmStatus {
            vmid,
            state: VmState::Exited | VmState::Resetting | VmState::Reset,
        }) => Some(*vmid),
        _ => None,
    }
}

/// As [`refusal`], and whether it is this VM's own configuration that is in the way.
pub(super) fn explained<T: Transport, const N: usize>(
    session: &mut Session<T, N>,
    error: Error,
) -> Refusal {
    let is_role = matches!(error, Error::Refused(ErrorCode::Denied))
        && session.last_refusal().is_ok_and(|why| why.rule == Rule::Role as u16);
    if is_role { Refusal::NotSupported } else { refusal(error) }
}

/// How a peer is told of what the manager said.
pub(super) const fn refusal(error: Error) -> Refusal {
    let Error::Refused(code) = error else { return Refusal::Broken };
    match code {
        ErrorCode::NoMemory | ErrorCode::MapFailed => Refusal::NoMemory,
        ErrorCode::NoResource => Refusal::NoSpace,
        ErrorCode::Denied => Refusal::NotPermitted,
        ErrorCode::Busy | ErrorCode::MemoryInUse => Refusal::Busy,
        ErrorCode::HandleInvalid | ErrorCode::MemoryReleased => Refusal::Unknown,
        ErrorCode::Unimplemented => Refusal::NotSupported,
        _ => Refusal::Invalid,
    }
}
