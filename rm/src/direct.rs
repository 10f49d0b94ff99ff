//! The direct call: request and reply in one trap.
//!
//! A request is copied in once, served, and its reply copied out. A call that needs more steps than
//! one goes on in the VM's operation slot, and its caller gets a token with which it asks again; it
//! need not, the steps are done without it. The reply waits in the slot; other vCPUs' calls that want
//! the slot are BUSY until it is fetched, for a second at most. A caller that is told twice that the
//! reply cannot be written keeps it only until another call wants the slot.

use core::sync::atomic::Ordering;

use rm_abi::extension::{
    self, Discovery, HeapAllocRequest, HeapInfo, LastRefusal, LeafInfo, ParcelInfo,
};
use rm_abi::hypercall::HypercallError;
use rm_abi::memparcel::accept;
use rm_abi::vm::VmExitRequest;
use rm_abi::{Header, Kind, MAX_PAYLOAD, PACKET, message, reply};

use crate::address::VmIndex;
use crate::call::accept::RANGE;
use crate::call::extension::MAX_DATA;
use crate::call::{self, Caller};
use crate::machine::Machine;
use crate::manager::Manager;
use crate::operation::budget::Budget;
use crate::operation::message::{Message, Packet, View};
use crate::operation::{
    Answer, Begun, Claim, Operation, Origin, Reply, STEP, Slot, Step, Work, refusal_of,
};
use crate::refusal::Refusal;

/// Bytes of a long message that are copied at once: the guest's address is translated once for each.
const CHUNK: usize = 1024;
/// A request of one range or handle fits this.
const SMALL: usize = 64;

/// The arguments of a direct call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectCall {
    /// Where the request is, a virtual address of the caller.
    pub request: u64,
    /// Its length in bytes, header included.
    pub length: u64,
    /// Where the reply goes.
    pub reply: u64,
    /// The room there, in bytes.
    pub capacity: u64,
    /// 0, or the token of a call to go on with; request and length are ignored then.
    pub token: u64,
}

/// The results of a direct call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectResult {
    /// A [`HypercallError`].
    pub error: i64,
    /// Bytes of the reply.
    pub length: u64,
    /// Where not 0, names the call whose reply is still to come.
    pub token: u64,
}

/// What a direct call came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direct {
    /// The caller goes on, with these results.
    Return(DirectResult),
    /// The caller ends: VM_EXIT with this code.
    Exit {
        /// 0 is normal.
        code: u8,
    },
}

/// Why a guest's buffer could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum GuestFault {
    /// The guest's own translation has no such address, or not with this right.
    Stage1,
    /// The page is the guest's, but without the right.
    Permission,
    /// The page is not RAM of the guest.
    Unmapped,
}

/// The memory of the calling vCPU, at its virtual addresses. A range may straddle pages, wrap or be
/// anything else: what is not wholly RAM of the guest with the right is a fault.
pub trait GuestMemory {
    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// A fault of some byte; what was copied before it counts for nothing.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), GuestFault>;

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// A fault of some byte; bytes before it may have been written.
    fn write(&self, at: u64, from: &[u8]) -> Result<(), GuestFault>;

    /// Whether [`GuestMemory::write`] would succeed now.
    ///
    /// # Errors
    ///
    /// The fault it would have.
    fn writable(&self, at: u64, length: usize) -> Result<(), GuestFault>;
}

impl DirectResult {
    const fn error(error: i64) -> Self {
        Self { error, length: 0, token: 0 }
    }
}

/// Bytes of the longest reply that a call can have, as far as its request alone tells.
const fn shortest_room(message: u32) -> u64 {
    let size = match message {
        message::MEM_DONATE | message::MEM_LEND | message::MEM_SHARE => reply::SIZE_WITH_WORD,
        message::MEM_LOOKUP | message::VM_GET_VMID => reply::SIZE_WITH_WORD,
        message::VM_GET_OWNER | message::VM_GET_STATE => reply::SIZE_WITH_WORD,
        message::VM_GET_PEERS | message::VM_GET_ID => reply::SIZE + call::vm::MAX_DATA,
        extension::DISCOVER => reply::SIZE + Discovery::SIZE,
        extension::LAST_REFUSAL => reply::SIZE + LastRefusal::SIZE,
        extension::INFO => reply::SIZE + ParcelInfo::SIZE,
        extension::HOLDERS => reply::SIZE + call::info::HOLDERS_SIZE,
        extension::LIMITS => reply::SIZE + call::info::LIMITS_SIZE,
        extension::DEVICES => reply::SIZE + call::info::DEVICES_SIZE,
        extension::COUNTERS => reply::SIZE + call::inspect::COUNTERS_SIZE,
        extension::LEAF => reply::SIZE + LeafInfo::SIZE,
        extension::HEAP => reply::SIZE + HeapInfo::SIZE,
        extension::HEAP_ALLOC => reply::SIZE + HeapAllocRequest::REPLY,
        _ => reply::SIZE,
    };
    size as u64
}

impl<M: Machine> Manager<'_, M> {
    /// Serves a direct call of `vm`, or one step of it.
    pub fn direct(&self, vm: VmIndex, call: &DirectCall, guest: &impl GuestMemory) -> Direct {
        self.direct_within(vm, call, guest, STEP)
    }

    /// As [`Manager::direct`], with another bound for what is done in one entry, in weights.
    pub fn direct_within(
        &self,
        vm: VmIndex,
        call: &DirectCall,
        guest: &impl GuestMemory,
        step: u32,
    ) -> Direct {
        let caller = Caller { manager: self, vm, step, at_boot: false };
        let mut slot = caller.state().slot.lock(self.machine());
        let result = if call.token == 0 {
            match self.request(caller, &mut slot, call, guest) {
                Ok(served) => served,
                Err(error) => Direct::Return(DirectResult::error(error)),
            }
        } else {
            self.resume(caller, &mut slot, call, guest)
        };
        caller.state().pending.store(slot.is_running(), Ordering::Relaxed);
        result
    }

    /// A new request.
    fn request(
        &self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        call: &DirectCall,
        guest: &impl GuestMemory,
    ) -> Result<Direct, i64> {
        let length = call.length as usize;
        if call.length < Header::SIZE as u64 || call.length > (Header::SIZE + MAX_PAYLOAD) as u64 {
            return Err(HypercallError::ARGUMENT_SIZE);
        }
        // Most requests are small, and clearing a buffer costs more than all that is done with it.
        let (mut small, mut large);
        let packet = if length <= SMALL {
            small = [0; SMALL];
            &mut small[..length]
        } else {
            large = [0; PACKET];
            &mut large[..length.min(PACKET)]
        };
        guest.read(call.request, packet).map_err(|_| HypercallError::ADDR_INVALID)?;
        let header = Header::decode(&*packet)
            .filter(|header| header.kind == Kind::Request && header.fragments == 0)
            .ok_or(HypercallError::ARGUMENT_INVALID)?;
        if call.capacity < shortest_room(header.message) {
            return Err(HypercallError::ARGUMENT_SIZE);
        }
        // A range that wraps is no buffer, even if the reply would fit its beginning.
        if call.reply.checked_add(call.capacity).is_none() {
            return Err(HypercallError::ADDR_INVALID);
        }
        let room = usize::try_from(call.capacity).unwrap_or(usize::MAX) - reply::SIZE;
        let payload = &packet[Header::SIZE..];
        let turn = Turn { caller, header, call, guest };
        if header.message == message::VM_EXIT {
            return Ok(match VmExitRequest::decode(payload) {
                Ok(exit) => {
                    self.note_exit(caller.vm, &exit);
                    Direct::Exit { code: exit.code }
                }
                Err(code) => turn.answer(slot, &Err(Refusal::Malformed(code))),
            });
        }
        let mut operation = None;
        if length > PACKET {
            turn.load(slot, payload)?;
            let view = View::new(self.mem(), &slot.request);
            let begun = call::begin(caller, header.message, &view, room, &mut operation);
            turn.begun(slot, begun, &mut operation, None)
        } else {
            let packet = Packet(payload);
            let begun = call::begin(caller, header.message, &packet, room, &mut operation);
            turn.begun(slot, begun, &mut operation, Some(packet))
        }
    }

    /// Goes on with the call that a token names.
    fn resume(
        &self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        call: &DirectCall,
        guest: &impl GuestMemory,
    ) -> Direct {
        let names_it = slot.token == call.token && slot.origin == Origin::Direct;
        if !names_it || matches!(slot.work, Work::Idle) {
            return Direct::Return(DirectResult::error(HypercallError::ARGUMENT_INVALID));
        }
        let was_running = slot.is_running();
        slot.step(caller, &mut Budget::new(caller.step));
        let turn = Turn { caller, header: slot.header, call, guest };
        // A long reply is copied in a stay of its own.
        if was_running && slot.data.is_long() { turn.retry(slot) } else { turn.outcome(slot) }
    }
}

/// One call and where its reply goes.
struct Turn<'a, 's, M: Machine, G> {
    caller: Caller<'a, 's, M>,
    header: Header,
    call: &'a DirectCall,
    guest: &'a G,
}

impl<M: Machine, G: GuestMemory> Turn<'_, '_, M, G> {
    /// Copies a request of several packets' length into the slot, which must be free. `first` has
    /// been copied already and is not read again.
    fn load(&self, slot: &mut Slot, first: &[u8]) -> Result<(), i64> {
        if !slot.make_room(self.caller) {
            return Err(HypercallError::BUSY);
        }
        let (mem, vm) = (self.caller.mem(), self.caller.vm);
        let length = self.call.length as usize - Header::SIZE;
        slot.request.resize(self.caller, length).map_err(|_| HypercallError::NOMEM)?;
        slot.request.write(mem, 0, first);
        let mut at = first.len();
        let mut chunk = [0; CHUNK];
        while at < length {
            let chunk = &mut chunk[..(length - at).min(CHUNK)];
            let from = self.call.request.wrapping_add((Header::SIZE + at) as u64);
            if self.guest.read(from, chunk).is_err() {
                slot.request.clear(mem, vm);
                return Err(HypercallError::ADDR_INVALID);
            }
            slot.request.write(mem, at, chunk);
            at += chunk.len();
        }
        Ok(())
    }

    /// Goes on after the checks. `packet` is a request that is not in the slot.
    fn begun(
        &self,
        slot: &mut Slot,
        begun: Result<Begun, Refusal>,
        begun_operation: &mut Option<Operation>,
        packet: Option<Packet<'_>>,
    ) -> Result<Direct, i64> {
        // An operation is large, so it stays where it is until it must move to the slot.
        if let Some(operation) = begun_operation {
            // Nothing has changed yet, so a reply that could not be written costs nothing.
            let longest = accept::REPLY_HEAD + operation.data_size();
            let room = longest.min(self.call.capacity as usize);
            if self.guest.writable(self.call.reply, room).is_err() {
                self.abandon(begun_operation);
                self.forget_request(slot, packet);
                return Err(HypercallError::ADDR_INVALID);
            }
            return match packet {
                Some(packet) if begun == Ok(Begun::Short) => {
                    self.short(slot, begun_operation, packet)
                }
                _ => self.occupy(slot, begun_operation, packet),
            };
        }
        self.forget_request(slot, packet);
        match begun {
            Ok(Begun::Answer(reply)) => Ok(self.answer(slot, &Ok(reply))),
            Ok(Begun::ReplyTooLarge) => Err(HypercallError::ARGUMENT_SIZE),
            Ok(Begun::Short | Begun::Long) => panic!("G4: a call that has work has an operation"),
            Err(refusal) => Ok(self.answer(slot, &Err(refusal))),
        }
    }

    /// Drops a request that was copied to the slot and has no work.
    fn forget_request(&self, slot: &mut Slot, packet: Option<Packet<'_>>) {
        if packet.is_none() {
            slot.request.clear(self.caller.mem(), self.caller.vm);
        }
    }

    /// Does all the work of a short call, beside whatever is in the slot.
    fn short(
        &self,
        slot: &mut Slot,
        begun: &mut Option<Operation>,
        packet: Packet<'_>,
    ) -> Result<Direct, i64> {
        if !matches!(slot.work, Work::Idle) {
            return self.short_beside(slot, begun, packet);
        }
        let Some(operation) = begun else { panic!("G4: a call that has work has an operation") };
        slot.data.resize_inline(operation.data_size());
        slot.occupy(Origin::Direct, self.header);
        // The work is bounded by the checks, not by a budget.
        match operation.step(self.caller, &packet, &mut slot.data, &mut Budget::new(u32::MAX)) {
            Step::Done(answer) => slot.work = Work::Answered(answer),
            Step::More => {
                slot.request.store(self.caller.mem(), packet.0);
                slot.run(begun);
                slot.step(self.caller, &mut Budget::new(self.caller.step));
            }
        }
        Ok(self.outcome(slot))
    }

    /// A short call while a long one, or the reply of one, has the slot. If its own reply cannot be
    /// written it is lost.
    fn short_beside(
        &self,
        slot: &mut Slot,
        begun: &mut Option<Operation>,
        packet: Packet<'_>,
    ) -> Result<Direct, i64> {
        let Some(operation) = begun else { panic!("G4: a call that has work has an operation") };
        let mut data = Message::new();
        data.resize_inline(operation.data_size());
        match operation.step(self.caller, &packet, &mut data, &mut Budget::new(u32::MAX)) {
            Step::Done(answer) => {
                let length = self.send(&answer, &data)?;
                Ok(Direct::Return(DirectResult { error: HypercallError::OK, length, token: 0 }))
            }
            // It is longer than it looked, and wants the slot after all.
            Step::More => self.occupy(slot, begun, Some(packet)),
        }
    }

    /// Puts an operation into the slot and does its first step.
    fn occupy(
        &self,
        slot: &mut Slot,
        begun: &mut Option<Operation>,
        packet: Option<Packet<'_>>,
    ) -> Result<Direct, i64> {
        let (mem, vm) = (self.caller.mem(), self.caller.vm);
        if !slot.make_room(self.caller) {
            self.abandon(begun);
            return Err(HypercallError::BUSY);
        }
        if let Some(packet) = packet {
            slot.request.store(mem, packet.0);
        }
        let size = begun.as_ref().map_or(0, Operation::data_size);
        if let Err(none) = slot.data.resize(self.caller, size) {
            self.abandon(begun);
            slot.request.clear(mem, vm);
            return Ok(self.answer(slot, &Err(none.into())));
        }
        slot.occupy(Origin::Direct, self.header);
        slot.run(begun);
        // A long request has made this stay long enough.
        if packet.is_some() {
            slot.step(self.caller, &mut Budget::new(self.caller.step));
        }
        Ok(self.outcome(slot))
    }

    /// Takes back what the checks of a call did that will not be stepped.
    fn abandon(&self, begun: &mut Option<Operation>) {
        if let Some(operation) = begun.take() {
            operation.abandon(self.caller);
        }
    }

    /// Sends the answer of a call that had no work. One that cannot be written is not kept: nothing
    /// has changed, so the caller may ask again.
    fn answer(&self, slot: &Slot, answer: &Answer) -> Direct {
        Direct::Return(match self.send(answer, &slot.data) {
            Ok(length) => DirectResult { error: HypercallError::OK, length, token: 0 },
            Err(error) => DirectResult::error(error),
        })
    }

    /// The caller is to ask again.
    fn retry(&self, slot: &Slot) -> Direct {
        let (error, token) = (HypercallError::RETRY, slot.token);
        Direct::Return(DirectResult { error, length: 0, token })
    }

    /// How the call in the slot stands.
    fn outcome(&self, slot: &mut Slot) -> Direct {
        let answer = match &slot.work {
            Work::Answered(answer) => *answer,
            Work::Running(_) | Work::Idle => return self.retry(slot),
        };
        Direct::Return(match self.send(&answer, &slot.data) {
            Ok(length) => {
                slot.drop_reply(self.caller);
                DirectResult { error: HypercallError::OK, length, token: 0 }
            }
            Err(error) => {
                if slot.was_told {
                    slot.claim = Claim::Free;
                }
                slot.was_told = true;
                DirectResult { error, length: 0, token: slot.token }
            }
        })
    }

    /// Writes a reply to the guest and says how long it is.
    fn send(&self, answer: &Answer, data: &Message) -> Result<u64, i64> {
        let mut head = [0; accept::REPLY_HEAD];
        let mut told;
        let head = match *answer {
            Ok(Reply::Ranges { count, incomplete }) => {
                head = accept::reply_head(&self.header, count, incomplete);
                &head[..]
            }
            Ok(Reply::Word(word)) => {
                head = reply::word(&self.header, word);
                &head[..]
            }
            Ok(Reply::Empty | Reply::Data { .. } | Reply::Partly { .. }) => {
                head[..reply::SIZE].copy_from_slice(&reply::status(&self.header, Ok(())));
                &head[..reply::SIZE]
            }
            Ok(Reply::Told(topic)) => {
                told = [0; reply::SIZE + MAX_DATA];
                let (status, data) = told.split_at_mut(reply::SIZE);
                status.copy_from_slice(&reply::status(&self.header, Ok(())));
                let length = call::extension::encode(self.caller, topic, Origin::Direct, data);
                &told[..reply::SIZE + length]
            }
            Err(refusal) => {
                let status = reply::status(&self.header, Err(refusal.code()));
                head[..reply::SIZE].copy_from_slice(&status);
                &head[..reply::SIZE]
            }
        };
        let size = match *answer {
            Ok(Reply::Ranges { count, .. }) => usize::from(count) * RANGE,
            Ok(Reply::Data { length } | Reply::Partly { length, .. }) => length.into(),
            _ => 0,
        };
        let length = (head.len() + size) as u64;
        if length > self.call.capacity {
            return Err(HypercallError::ARGUMENT_SIZE);
        }
        self.copy_out(head, (data, size)).map_err(|_| HypercallError::ADDR_INVALID)?;
        // Not before, or a reply that is written at the second try would count twice.
        if let Some(refusal) = refusal_of(answer) {
            self.caller.note_refusal(Origin::Direct, &self.header, refusal);
        }
        Ok(length)
    }

    fn copy_out(&self, head: &[u8], (data, size): (&Message, usize)) -> Result<(), GuestFault> {
        self.guest.write(self.call.reply, head)?;
        if size == 0 { Ok(()) } else { self.copy_data(head.len(), data, size) }
    }

    /// Writes what the operation's message holds behind the reply's head. Apart, because most replies have none.
    #[inline(never)]
    fn copy_data(&self, head: usize, data: &Message, size: usize) -> Result<(), GuestFault> {
        let mut at = 0;
        let mut chunk = [0; CHUNK];
        while at < size {
            let chunk = &mut chunk[..(size - at).min(CHUNK)];
            data.read(self.caller.mem(), at, chunk);
            let to = self.call.reply.wrapping_add((head + at) as u64);
            self.guest.write(to, chunk)?;
            at += chunk.len();
        }
        Ok(())
    }
}
