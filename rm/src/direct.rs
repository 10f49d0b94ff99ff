//! The direct call: request and reply in one trap.
//!
//! A request is copied in once, served, and its reply copied out. A call that needs more steps than
//! one goes on in the VM's operation slot, and its caller gets a token with which it asks again; it
//! need not, the steps are done without it. A reply that cannot be written waits in the slot.

use core::sync::atomic::Ordering;

use rm_abi::hypercall::HypercallError;
use rm_abi::memparcel::accept;
use rm_abi::vm::VmExitRequest;
use rm_abi::{Bytes, Header, Kind, MAX_PAYLOAD, PACKET, message, reply};

use crate::address::VmIndex;
use crate::call::accept::RANGE;
use crate::call::{self, Caller};
use crate::machine::Machine;
use crate::manager::Manager;
use crate::operation::budget::Budget;
use crate::operation::message::{Message, Packet, View};
use crate::operation::{Answer, Begun, Operation, Reply, STEP, Slot, Step, Work};
use crate::refusal::Refusal;

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
        message::MEM_DONATE | message::MEM_LEND | message::MEM_SHARE | message::VM_GET_VMID => {
            reply::SIZE_WITH_WORD
        }
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
        let caller = Caller { manager: self, vm, step };
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
        let mut packet = [0; PACKET];
        let packet = &mut packet[..length.min(PACKET)];
        guest.read(call.request, packet).map_err(|_| HypercallError::ADDR_INVALID)?;
        let header = Header::decode(&*packet)
            .filter(|header| header.kind == Kind::Request && header.fragments == 0)
            .ok_or(HypercallError::ARGUMENT_INVALID)?;
        if call.capacity < shortest_room(header.message) {
            return Err(HypercallError::ARGUMENT_SIZE);
        }
        let longest = accept::reply_size(rm_abi::MAX_ENTRIES);
        let room = usize::try_from(call.capacity).unwrap_or(usize::MAX).min(longest);
        guest.writable(call.reply, room).map_err(|_| HypercallError::ADDR_INVALID)?;
        let payload = &packet[Header::SIZE..];
        if header.message == message::VM_EXIT {
            return Ok(match VmExitRequest::decode(payload) {
                Ok(exit) => Direct::Exit { code: exit.code },
                Err(code) => {
                    let turn = Turn { caller, header, call, guest };
                    turn.answer(slot, Err(Refusal::Malformed(code)), Message::new())
                }
            });
        }
        let turn = Turn { caller, header, call, guest };
        if length > PACKET {
            turn.load(slot, payload)?;
            let begun = call::begin(
                caller,
                header.message,
                &View::new(self.mem(), &slot.request),
                ranges_in(room),
            );
            turn.begun(slot, begun, None)
        } else {
            let begun = call::begin(caller, header.message, &Packet(payload), ranges_in(room));
            turn.begun(slot, begun, Some(payload))
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
        if slot.token != call.token || matches!(slot.work, Work::Idle) {
            return Direct::Return(DirectResult::error(HypercallError::ARGUMENT_INVALID));
        }
        slot.step(caller, &mut Budget::new(caller.step));
        Turn { caller, header: slot.header, call, guest }.outcome(slot)
    }
}

/// Ranges that a reply of at most `room` bytes can name.
const fn ranges_in(room: usize) -> usize {
    room.saturating_sub(accept::REPLY_HEAD) / RANGE
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
        if slot.is_running() {
            return Err(HypercallError::BUSY);
        }
        let (mem, vm) = (self.caller.mem(), self.caller.vm);
        slot.drop_reply(self.caller);
        let length = self.call.length as usize - Header::SIZE;
        slot.request.resize(mem, vm, length).map_err(|_| HypercallError::NOMEM)?;
        slot.request.write(mem, 0, first);
        let mut at = first.len();
        let mut chunk = [0; 1024];
        while at < length {
            let chunk = &mut chunk[..(length - at).min(1024)];
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

    /// Goes on after the checks. `payload` is a request that is not in the slot yet.
    fn begun(
        &self,
        slot: &mut Slot,
        begun: Result<Begun, Refusal>,
        payload: Option<&[u8]>,
    ) -> Result<Direct, i64> {
        let begun = match (begun, payload) {
            (Ok(Begun::Short(operation)), Some(payload)) => {
                let mut ranges = Message::new();
                let answer = run_short(self.caller, operation, &Packet(payload), &mut ranges);
                return Ok(self.answer(slot, answer, ranges));
            }
            (Ok(Begun::Short(operation) | Begun::Long(operation)), payload) => {
                return self.occupy(slot, operation, payload);
            }
            (Ok(Begun::Answer(reply)), _) => Ok(Ok(reply)),
            (Ok(Begun::ReplyTooLarge), _) => Err(HypercallError::ARGUMENT_SIZE),
            (Err(refusal), _) => Ok(Err(refusal)),
        };
        if payload.is_none() {
            slot.request.clear(self.caller.mem(), self.caller.vm);
        }
        begun.map(|answer| self.answer(slot, answer, Message::new()))
    }

    /// Puts an operation into the slot and does its first step.
    fn occupy(
        &self,
        slot: &mut Slot,
        operation: Operation,
        payload: Option<&[u8]>,
    ) -> Result<Direct, i64> {
        let (mem, vm) = (self.caller.mem(), self.caller.vm);
        if slot.is_running() {
            operation.abandon(self.caller);
            return Err(HypercallError::BUSY);
        }
        if let Some(payload) = payload {
            slot.drop_reply(self.caller);
            slot.request.resize(mem, vm, payload.len()).expect("G7: a packet needs no frame");
            slot.request.write(mem, 0, payload);
        }
        if slot.ranges.resize(mem, vm, operation.ranges()).is_err() {
            operation.abandon(self.caller);
            slot.request.clear(mem, vm);
            return Ok(self.answer(slot, Err(Refusal::NoFrame), Message::new()));
        }
        slot.token += 1;
        slot.header = self.header;
        slot.work = Work::Running(operation);
        slot.step(self.caller, &mut Budget::new(self.caller.step));
        Ok(self.outcome(slot))
    }

    /// Sends the answer of a call that is not in the slot. If it cannot be written it waits there,
    /// unless a running call has the slot.
    fn answer(&self, slot: &mut Slot, answer: Answer, ranges: Message) -> Direct {
        Direct::Return(match self.send(&answer, &ranges) {
            Ok(length) => DirectResult { error: HypercallError::OK, length, token: 0 },
            Err(error) if slot.is_running() => DirectResult::error(error),
            Err(error) => {
                slot.drop_reply(self.caller);
                slot.token += 1;
                slot.header = self.header;
                slot.ranges = ranges;
                slot.work = Work::Answered(answer);
                DirectResult { error, length: 0, token: slot.token }
            }
        })
    }

    /// How the call in the slot stands.
    fn outcome(&self, slot: &mut Slot) -> Direct {
        let answer = match &slot.work {
            Work::Answered(answer) => *answer,
            Work::Running(_) | Work::Idle => {
                let (error, token) = (HypercallError::RETRY, slot.token);
                return Direct::Return(DirectResult { error, length: 0, token });
            }
        };
        Direct::Return(match self.send(&answer, &slot.ranges) {
            Ok(length) => {
                slot.drop_reply(self.caller);
                DirectResult { error: HypercallError::OK, length, token: 0 }
            }
            Err(error) => DirectResult { error, length: 0, token: slot.token },
        })
    }

    /// Writes a reply to the guest and says how long it is.
    fn send(&self, answer: &Answer, ranges: &Message) -> Result<u64, i64> {
        let mut head = [0; accept::REPLY_HEAD];
        let head = match *answer {
            Ok(Reply::Ranges { count, incomplete }) => {
                head = accept::reply_head(&self.header, count, incomplete);
                &head[..]
            }
            Ok(Reply::Word(word)) => {
                head = reply::word(&self.header, word);
                &head[..]
            }
            Ok(Reply::Empty) => {
                head[..reply::SIZE].copy_from_slice(&reply::status(&self.header, Ok(())));
                &head[..reply::SIZE]
            }
            Err(refusal) => {
                let status = reply::status(&self.header, Err(refusal.code()));
                head[..reply::SIZE].copy_from_slice(&status);
                &head[..reply::SIZE]
            }
        };
        let ranges = match answer {
            Ok(Reply::Ranges { count, .. }) => (ranges, usize::from(*count) * RANGE),
            _ => (ranges, 0),
        };
        let length = (head.len() + ranges.1) as u64;
        if length > self.call.capacity {
            return Err(HypercallError::ARGUMENT_SIZE);
        }
        self.copy_out(head, ranges).map_err(|_| HypercallError::ADDR_INVALID)?;
        Ok(length)
    }

    fn copy_out(&self, head: &[u8], (ranges, size): (&Message, usize)) -> Result<(), GuestFault> {
        self.guest.write(self.call.reply, head)?;
        let mut at = 0;
        let mut chunk = [0; 256];
        while at < size {
            let chunk = &mut chunk[..(size - at).min(256)];
            ranges.read(self.caller.mem(), at, chunk);
            let to = self.call.reply.wrapping_add((head.len() + at) as u64);
            self.guest.write(to, chunk)?;
            at += chunk.len();
        }
        Ok(())
    }
}

/// Does all the work of a short call, which its checks have bounded.
fn run_short<M: Machine>(
    caller: Caller<'_, '_, M>,
    mut operation: Operation,
    payload: &dyn Bytes,
    ranges: &mut Message,
) -> Answer {
    let size = operation.ranges();
    ranges.resize(caller.mem(), caller.vm, size).expect("G7: a short reply needs no frame");
    match operation.step(caller, payload, ranges, &mut Budget::new(u32::MAX)) {
        Step::Done(answer) => answer,
        Step::More => panic!("G7: a short call did not end in its step"),
    }
}
