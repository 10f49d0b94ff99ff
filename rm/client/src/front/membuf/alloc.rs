//! ALLOC: memory of another VM's heap, and the close of what came of it.
//!
//! A program that calls ALLOC sleeps until its driver has an answer. What the driver does meanwhile, and
//! for others, is its own affair; so the call is a request here, and its outcome an [`AllocEvent`].
//!
//! Memory that came is mapped and then added to the heap that the program named. A close goes the other
//! way: out of the heap, out of the mapping, back to the manager, and then the supplier is told. A step
//! that fails ends the close there: nothing behind it is done, the parcel stays accepted, and the next
//! close goes on where this one stopped.

use rm_abi::Vmid;

use super::calls::Acl;
use super::{AclEntry, AllocArg, IonData};
use crate::front::Errno;
use crate::notice::Notice;
use crate::session::Session;
use crate::supplier::{Agreement, Consumer, ConsumerCounts, Event, Memory, Offer, Packet, Ticket};
use crate::transport::Transport;

/// A call as the driver has copied it: the struct, and what its pointers lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocCall<'a> {
    /// The struct.
    pub arg: AllocArg,
    /// What `acl_list` points at.
    pub acl: &'a [AclEntry],
    /// What `src_data` points at: a heap of the supplier's.
    pub src: IonData,
    /// What `dst_data` points at: a heap of this VM.
    pub dst: IonData,
}

/// What the driver does with such memory in its own VM. What is refused has not been done.
pub trait Local {
    /// Maps it for this VM's kernel (stage 1).
    fn map(&mut self, memory: &Memory) -> Result<(), Errno>;
    /// Takes the mapping away.
    fn unmap(&mut self, memory: &Memory) -> Result<(), Errno>;
    /// Lets the heap `heap` give it to programs.
    fn add(&mut self, heap: IonData, memory: &Memory) -> Result<(), Errno>;
    /// Takes it out of that heap: `EBUSY` while a program has some of it.
    fn remove(&mut self, heap: IonData, memory: &Memory) -> Result<(), Errno>;
}

/// What has become of a call, or of a close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocEvent {
    /// ALLOC has memory, which is in its heap: the struct is to say which descriptor stands for it, and the
    /// last close of that is [`Allocator::close`].
    Ready(Ticket, Memory),
    /// ALLOC fails.
    Failed(Ticket, Errno),
    /// The memory is the supplier's again; an error says that it has not confirmed that.
    Closed(Ticket, Result<(), Errno>),
    /// The peer has exported a buffer, and tells of it: [`MemBuf::import_offer`](super::MemBuf::import_offer).
    Offered(Offer),
}

/// What to tell a program, and what to send to the supplier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllocStep {
    /// For the program.
    pub event: Option<AllocEvent>,
    /// For the supplier.
    pub send: Option<Packet>,
}

/// How far memory is on its way in, or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The manager's word is all there is.
    Accepted,
    /// It is mapped.
    Mapped,
    /// It is in its heap.
    Added,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    ticket: Ticket,
    heap: IonData,
    stage: Stage,
    /// No program has a descriptor of it: it is closed without being asked.
    is_leaving: bool,
}

/// The ALLOC of one VM's `/dev/membuf`, with at most `SLOTS` allocations at once.
#[derive(Debug)]
pub struct Allocator<const SLOTS: usize = 8> {
    consumer: Consumer<SLOTS>,
    supplier: Vmid,
    open: [Option<Open>; SLOTS],
}

impl<const SLOTS: usize> Allocator<SLOTS> {
    /// Of memory that one supplier gives.
    pub fn new(agreement: Agreement) -> Self {
        let supplier = agreement.supplier;
        Self { consumer: Consumer::new(agreement), supplier, open: [None; SLOTS] }
    }

    /// Messages that were not as they should be.
    pub const fn counts(&self) -> ConsumerCounts {
        self.consumer.counts()
    }

    /// Allocations that are not over.
    pub fn open(&self) -> usize {
        self.consumer.open()
    }

    /// ALLOC: what is to be sent to the supplier. `heap_of` says what the supplier calls the heap that
    /// [`AllocCall::src`] has the number of. If the list leaves the supplier some access it is a share, else
    /// a loan.
    ///
    /// `EINVAL` for what [`AllocArg::check`] refuses, for a list that is not `nr_acl_entries` long or that
    /// nobody can be granted, and for a heap that is none; `EBUSY` if too many allocations are open.
    pub fn alloc<'h>(
        &mut self,
        now: u64,
        call: &AllocCall<'_>,
        vm_of: impl Fn(u32) -> Option<Vmid>,
        heap_of: impl Fn(IonData) -> Option<&'h str>,
    ) -> Result<(Ticket, Packet), Errno> {
        call.arg.check()?;
        let acl = Acl::new(call.arg.nr_acl_entries, call.acl, vm_of)?;
        let heap = heap_of(call.src).ok_or(Errno::EINVAL)?;
        let place = self.open.iter().position(Option::is_none).ok_or(Errno::EBUSY)?;
        let transfer = acl.transfer(self.supplier);
        let (ticket, packet) =
            self.consumer.alloc(now, heap, call.arg.size, transfer, acl.entries())?;
        let open = Open { ticket, heap: call.dst, stage: Stage::Accepted, is_leaving: false };
        self.open[place] = Some(open);
        Ok((ticket, packet))
    }

    /// Takes a message of the supplier's.
    pub fn receive<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        local: &mut impl Local,
        bytes: &[u8],
    ) -> AllocStep {
        let step = self.consumer.receive(session, bytes);
        let Some(Event::Allocated(ticket, memory)) = step.event else {
            return AllocStep { event: step.event.map(|event| self.event(event)), send: step.send };
        };
        match self.bring_in(local, ticket, &memory) {
            Ok(()) => AllocStep { event: Some(AllocEvent::Ready(ticket, memory)), send: None },
            Err(errno) => {
                if let Some(open) = self.find(ticket) {
                    open.is_leaving = true;
                }
                // What cannot be undone now is tried again by `tick`.
                let send = self.close(now, session, local, ticket).ok();
                AllocStep { event: Some(AllocEvent::Failed(ticket, errno)), send }
            }
        }
    }

    /// Maps memory and adds it to its heap. While it is mapped, it is used.
    fn bring_in(
        &mut self,
        local: &mut impl Local,
        ticket: Ticket,
        memory: &Memory,
    ) -> Result<(), Errno> {
        let open = self.find(ticket).ok_or(Errno::EBADF)?;
        local.map(memory)?;
        open.stage = Stage::Mapped;
        self.consumer.begin_use(ticket)?;
        let open = self.find(ticket).ok_or(Errno::EBADF)?;
        local.add(open.heap, memory)?;
        open.stage = Stage::Added;
        Ok(())
    }

    /// Takes memory out of its heap and then out of the mapping, from where the last try stopped.
    fn take_out(
        &mut self,
        local: &mut impl Local,
        ticket: Ticket,
        memory: &Memory,
    ) -> Result<(), Errno> {
        let open = self.find(ticket).ok_or(Errno::EBADF)?;
        if open.stage == Stage::Added {
            local.remove(open.heap, memory)?;
            open.stage = Stage::Mapped;
        }
        if open.stage == Stage::Mapped {
            local.unmap(memory)?;
            open.stage = Stage::Accepted;
            self.consumer.end_use(ticket)?;
        }
        Ok(())
    }

    /// Does one thing that time asks for; to be called until nothing is told or sent.
    pub fn tick<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        local: &mut impl Local,
    ) -> AllocStep {
        let leaving = self.open.map(|open| open.filter(|open| open.is_leaving));
        for open in leaving.into_iter().flatten() {
            if let Ok(packet) = self.close(now, session, local, open.ticket) {
                return AllocStep { event: None, send: Some(packet) };
            }
        }
        let step = self.consumer.tick(now);
        AllocStep { event: step.event.map(|event| self.event(event)), send: step.send }
    }

    /// The last close of the descriptor of an allocation: what is to be sent to the supplier.
    ///
    /// `EBADF` if it is none, or closed already. Otherwise what the step said that failed, as `EBUSY` of a
    /// heap of which a program has something: the memory stays this VM's, and a later close goes on.
    pub fn close<T: Transport, const N: usize>(
        &mut self,
        now: u64,
        session: &mut Session<T, N>,
        local: &mut impl Local,
        ticket: Ticket,
    ) -> Result<Packet, Errno> {
        let memory = self.consumer.memory(ticket).ok_or(Errno::EBADF)?;
        self.take_out(local, ticket, &memory)?;
        let packet = self.consumer.close(now, session, ticket)?;
        // Whatever the supplier says to that: this VM has it no more, and no second close.
        self.forget(ticket);
        Ok(packet)
    }

    /// Takes a notice that concerns the allocations: the supplier has ended. Who waits for it waits in
    /// vain. What a program has a descriptor of is closed by the program, as ever.
    pub fn hear<T: Transport, const N: usize>(
        &mut self,
        session: &mut Session<T, N>,
        notice: &Notice<'_>,
        mut told: impl FnMut(AllocEvent),
    ) {
        let mut heard = [None; SLOTS];
        let mut places = heard.iter_mut();
        self.consumer.hear(session, notice, |event| {
            if let Some(place) = places.next() {
                *place = Some(event);
            }
        });
        for event in heard.into_iter().flatten() {
            told(self.event(event));
        }
    }

    /// What an event of the conversation is to a program.
    fn event(&mut self, event: Event) -> AllocEvent {
        match event {
            Event::Allocated(ticket, memory) => AllocEvent::Ready(ticket, memory),
            Event::Failed(ticket, refusal) => {
                self.forget(ticket);
                AllocEvent::Failed(ticket, refusal.into())
            }
            Event::Closed(ticket, outcome) => {
                self.forget(ticket);
                AllocEvent::Closed(ticket, outcome.map_err(Into::into))
            }
            Event::Offered(offer) => AllocEvent::Offered(offer),
        }
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Open> {
        self.open.iter_mut().flatten().find(|open| open.ticket == ticket)
    }

    fn forget(&mut self, ticket: Ticket) {
        for place in &mut self.open {
            if place.is_some_and(|open| open.ticket == ticket) {
                *place = None;
            }
        }
    }
}
