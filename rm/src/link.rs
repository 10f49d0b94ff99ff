//! The mailbox of a VM: two message queues (and, beside them, its doorbells), and how requests become replies in them.
//!
//! A queued request is served in the SEND that delivered it, as far as the step allows, and then at
//! this VM's entries into EL2. One request is at work at a time, in the VM's operation slot; while its
//! reply is not wholly in the receive queue, the next one stays in the send queue (back-pressure), so
//! nothing is ever thrown away. Receiving makes room, and the same entry fills it again.
//!
//! News for the VM and its replies share the receive queue. No message is interrupted by another;
//! news that waited when a reply was ready goes before it, later news behind it.

pub(crate) mod fragment;
pub(crate) mod notice;
pub(crate) mod queue;
mod reply;

use core::sync::atomic::Ordering;

use rm_abi::vm::VmExitRequest;
use rm_abi::{Header, message};

use crate::address::VmIndex;
use crate::call::{self, Caller, QUEUE_ROOM};
use crate::doorbell::{Doorbell, MAX_DOORBELLS};
use crate::link::fragment::Arrival;
use crate::link::notice::{Node, NodeId, OWN_NODES, Offering, Waiting};
use crate::link::queue::{Lengths, Queue, Thresholds};
use crate::lock::{self, Guard, Lock, Rank};
use crate::machine::{Line, Machine};
use crate::manager::Manager;
use crate::memparcel::table::RecordIndex;
use crate::operation::budget::{Budget, weight};
use crate::operation::message::{Packet, View};
use crate::operation::{Begun, Origin, Slot, Step, Work, refusal_of};
use crate::refusal::Refusal;

/// The mailbox of one VM, as the manager stores it.
#[derive(Debug)]
pub struct LinkRecord<R> {
    link: Lock<Link, R>,
    /// For news of parcels that are gone, and of VMs.
    nodes: [Node; OWN_NODES],
    pub(crate) doorbells: [Doorbell<R>; MAX_DOORBELLS],
}

impl<R: lock::Strategy> LinkRecord<R> {
    /// A mailbox with empty queues.
    #[expect(clippy::new_without_default, reason = "mailboxes are made at boot, in place")]
    pub const fn new() -> Self {
        Self {
            link: Lock::new(Rank::Queue, Link::new()),
            nodes: [const { Node::new() }; OWN_NODES],
            doorbells: [const { Doorbell::new() }; MAX_DOORBELLS],
        }
    }

    pub(crate) fn lock<'a, M: Machine<Relax = R>>(&'a self, machine: &'a M) -> Guard<'a, Link, R> {
        self.link.lock(machine)
    }
}

/// The queues of a VM and what waits for them.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to_manager: Queue,
    pub(crate) to_vm: Queue,
    pub(crate) thresholds: Thresholds,
    waiting: Waiting,
    /// An offer some of whose packets are in the queue.
    offering: Option<Offering>,
    /// A reply of which some packets are in the queue.
    replying: bool,
    /// The lengths at the start of the VM's own entry that is under way: interrupts are computed at
    /// its end then.
    entered: Option<Lengths>,
    /// Number of the next notification.
    sequence: u16,
    /// The VM has ended: news for it is nobody's.
    closed: bool,
}

/// What goes into a VM's receive queue next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Nothing,
    Reply,
    Notice(NodeId),
    Offering(RecordIndex),
}

impl Link {
    const fn new() -> Self {
        Self {
            to_manager: Queue::new(),
            to_vm: Queue::new(),
            thresholds: Thresholds::DEFAULT,
            waiting: Waiting::new(),
            offering: None,
            replying: false,
            entered: None,
            sequence: 0,
            closed: false,
        }
    }

    fn lengths(&self) -> Lengths {
        Lengths { requests: self.to_manager.len(), replies: self.to_vm.len() }
    }

    /// Whether news may go straight into the queue.
    const fn is_open(&self) -> bool {
        self.waiting.first().is_none()
            && self.offering.is_none()
            && !self.replying
            && !self.to_vm.is_full()
    }

    /// The VM has ended.
    fn close(&mut self) {
        self.closed = true;
        self.to_manager.clear();
        self.to_vm.clear();
        self.offering = None;
        self.replying = false;
    }

    /// The VM begins to live again.
    fn open(&mut self) {
        self.thresholds = Thresholds::DEFAULT;
        self.sequence = 0;
        self.closed = false;
    }

    const fn next_sequence(&mut self) -> u16 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// Empties the receive queue. What was left of a message goes too: its end alone says nothing.
    pub(crate) fn flush(&mut self, slot: &mut Slot) -> bool {
        self.to_vm.clear();
        self.offering = None;
        if let Some(entered) = &mut self.entered {
            // What comes next comes into an empty queue.
            entered.replies = 0;
        }
        core::mem::take(&mut self.replying) && slot.awaits_queue()
    }
}

/// How an entry of a VM left its queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) has_room: bool,
    pub(crate) has_packets: bool,
}

impl<M: Machine> Manager<'_, M> {
    /// Runs `work` as one entry of the VM: its slot is locked, and interrupts are computed at the
    /// end, from the queues' lengths at both ends.
    pub(crate) fn enter<T>(
        &self,
        caller: Caller<'_, '_, M>,
        work: impl FnOnce(&mut Slot) -> T,
    ) -> (T, Left) {
        let state = caller.state();
        let mut slot = state.slot.lock(self.machine());
        let record = self.link(caller.vm);
        {
            let mut link = record.lock(self.machine());
            link.entered = Some(link.lengths());
        }
        let value = work(&mut slot);
        let mut link = record.lock(self.machine());
        let before = link.entered.take().expect("G7: an entry has a beginning");
        self.interrupt(&link, caller.vm, before);
        let left =
            Left { has_room: !link.to_manager.is_full(), has_packets: !link.to_vm.is_empty() };
        let queued = self.has_work(caller.vm, &link, &slot);
        drop(link);
        state.queued.store(queued, Ordering::Relaxed);
        state.pending.store(slot.is_running(), Ordering::Relaxed);
        (value, left)
    }

    /// Interrupts the VM for what has changed since `before`.
    fn interrupt(&self, link: &Link, vm: VmIndex, before: Lengths) {
        let (send, receive) = link.thresholds.edges(before, link.lengths());
        if send {
            self.machine().interrupt(vm, Line::Send);
        }
        if receive {
            self.machine().interrupt(vm, Line::Receive);
        }
    }

    /// As [`Manager::interrupt`], for a change that another VM made: if the VM itself is in the middle
    /// of an entry, that entry's end sees to it.
    fn interrupt_others(&self, link: &Link, vm: VmIndex, before: Lengths) {
        if link.entered.is_none() {
            self.interrupt(link, vm, before);
        }
    }

    /// Whether another entry could do something for the VM's queues without its help.
    fn has_work(&self, vm: VmIndex, link: &Link, slot: &Slot) -> bool {
        !link.to_manager.is_empty() && !slot.awaits_queue()
            || !link.to_vm.is_full() && self.next(vm, link, slot) != Next::Nothing
    }

    /// What goes into the receive queue next.
    fn next(&self, vm: VmIndex, link: &Link, slot: &Slot) -> Next {
        if let Some(offering) = &link.offering {
            return Next::Offering(offering.record());
        }
        if link.replying {
            return Next::Reply;
        }
        match link.waiting.first() {
            Some(id) if !slot.awaits_queue() || self.stamp_of(vm, id) <= slot.stamp => {
                Next::Notice(id)
            }
            _ if slot.awaits_queue() => Next::Reply,
            _ => Next::Nothing,
        }
    }

    /// Goes on with all that the VM's queues hold, until the budget is spent or the VM must do
    /// something. `Some` is the code with which the VM asks to end.
    pub(crate) fn pump(
        &self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        budget: &mut Budget,
    ) -> Option<u8> {
        loop {
            self.deliver(caller, slot, budget);
            match slot.work {
                Work::Running(_) => {
                    if budget.is_spent() {
                        return None;
                    }
                    slot.step(caller, budget);
                    if slot.is_running() {
                        return None;
                    }
                }
                Work::Answered(_) if slot.awaits_queue() => return None,
                Work::Answered(_) | Work::Idle => {
                    if budget.is_spent() || !self.has_slot_for_queue(caller, slot) {
                        return None;
                    }
                    let _ = budget.spend(weight::PACKET);
                    if let Some(code) = self.take_request(caller, slot, budget) {
                        return Some(code);
                    }
                }
            }
        }
    }

    /// Whether the next queued packet may use the slot now. `false` if there is none.
    fn has_slot_for_queue(&self, caller: Caller<'_, '_, M>, slot: &mut Slot) -> bool {
        if self.link(caller.vm).lock(self.machine()).to_manager.is_empty() {
            return false;
        }
        slot.make_room(caller)
    }

    /// Moves news and the reply into the receive queue, as far as there is room.
    fn deliver(&self, caller: Caller<'_, '_, M>, slot: &mut Slot, budget: &mut Budget) {
        let (vm, machine) = (caller.vm, self.machine());
        if slot.stamp == 0
            && let (Work::Answered(answer), Origin::Queue) = (&slot.work, slot.origin)
            && let Some(refusal) = refusal_of(answer)
        {
            caller.note_refusal(Origin::Queue, &slot.header, refusal);
        }
        let mut link = self.link(vm).lock(machine);
        if slot.awaits_queue() && slot.stamp == 0 {
            // News that came while the reply could not go is behind it.
            link.waiting.stamp += 1;
            slot.stamp = link.waiting.stamp;
        }
        while !link.to_vm.is_full() && !budget.is_spent() {
            let record = match self.next(vm, &link, slot) {
                Next::Nothing => return,
                Next::Reply => {
                    let _ = budget.spend(weight::PACKET);
                    if Self::send_reply(caller, slot, &mut link) {
                        // Its frames come before the queue in the order of locks.
                        drop(link);
                        slot.drop_reply(caller);
                        link = self.link(vm).lock(machine);
                    }
                    continue;
                }
                Next::Notice(id) => match self.offer_of(vm, id) {
                    Some(record) => record,
                    None => {
                        let _ = budget.spend(weight::PACKET);
                        self.send_first(&mut link, vm, id, None);
                        continue;
                    }
                },
                Next::Offering(record) => record,
            };
            // Its parcel comes before the queue in the order of locks, so all is asked again.
            drop(link);
            let parcel = self.parcels().lock(machine, record);
            link = self.link(vm).lock(machine);
            if link.to_vm.is_full() {
                return;
            }
            match self.next(vm, &link, slot) {
                Next::Offering(same) if same == record => self.write_offer(&mut link, &parcel),
                Next::Notice(id) if self.offer_of(vm, id) == Some(record) => {
                    self.send_first(&mut link, vm, id, Some(&parcel));
                }
                _ => {}
            }
            let _ = budget.spend(weight::OFFER);
            drop(parcel);
        }
    }

    /// Puts one packet of the slot's reply into the queue, which has room. `true`: it was the last.
    fn send_reply(caller: Caller<'_, '_, M>, slot: &mut Slot, link: &mut Link) -> bool {
        let Work::Answered(answer) = slot.work else { panic!("G4: a reply is an answer") };
        let mut last = false;
        link.to_vm.push_with(|into| {
            let (length, is_last) = slot.write_packet(caller, &answer, into);
            last = is_last;
            length
        });
        link.replying = !last;
        last
    }

    /// Takes one packet out of the send queue, and begins the request that it completes.
    fn take_request(
        &self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        budget: &mut Budget,
    ) -> Option<u8> {
        let packet = {
            let mut link = self.link(caller.vm).lock(self.machine());
            let packet = link.to_manager.front_copy()?;
            link.to_manager.pop();
            packet
        };
        match slot.assembly.packet(caller, &packet) {
            Arrival::Nothing => None,
            Arrival::Single(header) => {
                self.serve(caller, slot, header, Some(Packet(&packet[Header::SIZE..])), budget)
            }
            Arrival::Last(header) => {
                slot.take_assembled();
                self.serve(caller, slot, header, None, budget)
            }
            Arrival::Starved(header, none) => {
                slot.occupy(Origin::Queue, header);
                slot.work = Work::Answered(Err(none.into()));
                None
            }
        }
    }

    /// Begins a request, which is in `packet` or in the slot. A short one is done at once.
    fn serve(
        &self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        header: Header,
        packet: Option<Packet<'_>>,
        budget: &mut Budget,
    ) -> Option<u8> {
        let mem = caller.mem();
        slot.occupy(Origin::Queue, header);
        let mut operation = None;
        let begun = {
            let view = View::new(mem, &slot.request);
            let payload: &dyn rm_abi::Bytes = packet.as_ref().map_or(&view, |packet| packet);
            if header.message == message::VM_EXIT {
                match VmExitRequest::decode(payload) {
                    Ok(exit) => {
                        self.note_exit(caller.vm, &exit);
                        return Some(exit.code);
                    }
                    Err(code) => Err(Refusal::Malformed(code)),
                }
            } else {
                call::begin(caller, header.message, payload, QUEUE_ROOM, &mut operation)
            }
        };
        let Some(work) = &mut operation else {
            slot.request.clear(mem, caller.vm);
            slot.work = Work::Answered(match begun {
                Ok(Begun::Answer(reply)) => Ok(reply),
                Ok(_) => panic!("G4: a call that has work has an operation"),
                Err(refusal) => Err(refusal),
            });
            return None;
        };
        if let Err(none) = slot.data.resize(caller, work.data_size()) {
            operation.take().into_iter().for_each(|operation| operation.abandon(caller));
            slot.request.clear(mem, caller.vm);
            slot.work = Work::Answered(Err(none.into()));
            return None;
        }
        match packet {
            Some(packet) if begun == Ok(Begun::Short) => {
                // The work is bounded by the checks, not by a budget; it is all that this entry
                // begins, but for the reply's way into the queue.
                let _ = budget.spend(budget.left().saturating_sub(weight::PACKET));
                let unbounded = &mut Budget::new(u32::MAX);
                match work.step(caller, &packet, &mut slot.data, unbounded) {
                    Step::Done(answer) => slot.work = Work::Answered(answer),
                    Step::More => {
                        slot.request.store(mem, packet.0);
                        slot.run(&mut operation);
                    }
                }
            }
            Some(packet) => {
                slot.request.store(mem, packet.0);
                slot.run(&mut operation);
            }
            None => slot.run(&mut operation),
        }
        None
    }
}
