//! The hypercalls on message queues and doorbells.
//!
//! The embedder decodes registers and writes results; everything else is here. A capability that names
//! nothing is answered like an unknown argument, one of another type or without the right like the
//! original does. A buffer is checked and copied before anything changes.

use heapless::Vec;
use rm_abi::hypercall::{
    MSGQUEUE_CONFIGURE_RECEIVE, MSGQUEUE_CONFIGURE_SEND, MSGQUEUE_FLUSH, MSGQUEUE_RECEIVE,
    MSGQUEUE_SEND,
};
use rm_abi::{Capability, HypercallError, Object, PACKET};

use crate::address::{PAGE_SIZE, VmIndex};
use crate::call::Caller;
use crate::direct::GuestMemory;
use crate::link::queue::DEPTH;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::operation::STEP;
use crate::operation::budget::Budget;

/// A hypercall on an object, as its registers say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hypercall {
    /// Which: a number of [`rm_abi::hypercall`].
    pub number: u16,
    /// Its arguments: X0 to X4 in the native form, X1 to X5 in that of SMCCC.
    pub args: [u64; 5],
    /// The native form, in which reserved arguments are checked.
    pub native: bool,
}

/// The registers that a hypercall changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Results {
    /// X0 to X2; X0 is a [`HypercallError`].
    pub x: [u64; 3],
    /// How many of them are written.
    pub count: usize,
    /// The VM asked to end, with this code.
    pub exit: Option<u8>,
}

impl Results {
    /// Results without an exit.
    pub const fn new<const N: usize>(values: [u64; N]) -> Self {
        let mut x = [0; 3];
        let mut index = 0;
        while index < N {
            x[index] = values[index];
            index += 1;
        }
        Self { x, count: N, exit: None }
    }

    /// An error, beside which the other results are zero.
    pub const fn error<const N: usize>(error: i64) -> Self {
        let mut x = [0; N];
        x[0] = error as u64;
        Self::new(x)
    }
}

/// "No such feature" of a call that exists: the original's error codes have 32 bits, which it widens
/// without their sign in the native form.
const UNIMPLEMENTED_NATIVE: i64 = HypercallError::UNIMPLEMENTED as u32 as i64;

/// An argument that leaves a setting as it is.
const KEEP: u64 = u64::MAX;
/// A threshold of "all of the queue".
const DEEPEST: u64 = u64::MAX - 1;

impl<M: Machine> Manager<'_, M> {
    /// Serves a hypercall on a message queue or doorbell. `None`: there is no such call.
    pub fn hypercall(
        &self,
        vm: VmIndex,
        call: &Hypercall,
        guest: &impl GuestMemory,
    ) -> Option<Results> {
        self.hypercall_within(vm, call, guest, STEP)
    }

    /// As [`Manager::hypercall`], with another bound for what is done in one entry, in weights.
    pub fn hypercall_within(
        &self,
        vm: VmIndex,
        call: &Hypercall,
        guest: &impl GuestMemory,
        step: u32,
    ) -> Option<Results> {
        let caller = Caller { manager: self, vm, step, at_boot: false };
        Some(match call.number {
            MSGQUEUE_SEND => self.send(caller, call, guest),
            MSGQUEUE_RECEIVE => self.receive(caller, call, guest),
            MSGQUEUE_FLUSH => self.flush(caller, call),
            MSGQUEUE_CONFIGURE_SEND => self.configure_send(caller, call),
            MSGQUEUE_CONFIGURE_RECEIVE => self.configure_receive(caller, call),
            _ => return self.ring(vm, call),
        })
    }

    /// In: queue, size, address, flags, 0. Out: error, whether there is room for another.
    fn send(
        &self,
        caller: Caller<'_, '_, M>,
        call: &Hypercall,
        guest: &impl GuestMemory,
    ) -> Results {
        // The only flag, PUSH, interrupts the receiver, and the manager needs no interrupt. The
        // original passes over bits without a meaning.
        let [queue, size, data, _flags, reserved] = call.args;
        let checked = call
            .check_reserved(&[reserved], 0)
            .and_then(|()| check_queue(queue, Object::SendQueue));
        if let Err(error) = checked {
            return Results::error::<2>(error);
        }
        if size == 0 || size > PACKET as u64 {
            return Results::error::<2>(HypercallError::ARGUMENT_SIZE);
        }
        // Clearing all of a packet would cost more than most requests have bytes.
        let mut packet = Vec::<u8, PACKET>::new();
        let fits = packet.resize_default(size as usize).is_ok();
        assert!(fits, "G7: a packet of checked size does not fit");
        if guest.read(data, &mut packet).is_err() {
            return Results::error::<2>(HypercallError::ADDR_INVALID);
        }
        let ((room, exit), left) = self.enter(caller, |slot| {
            let room = {
                let mut link = self.link(caller.vm).lock(self.machine());
                let room = !link.to_manager.is_full();
                if room {
                    link.to_manager.push(&packet);
                }
                room
            };
            (room, self.pump(caller, slot, &mut Budget::new(caller.step)))
        });
        // To a queue that was full there may be room by now; the interrupt says so.
        let mut results = match room {
            true => Results::new([HypercallError::OK as u64, left.has_room.into()]),
            false => Results::error::<2>(HypercallError::MSGQUEUE_FULL),
        };
        results.exit = exit;
        results
    }

    /// In: queue, address, room there, 0. Out: error, size, whether more packets wait.
    fn receive(
        &self,
        caller: Caller<'_, '_, M>,
        call: &Hypercall,
        guest: &impl GuestMemory,
    ) -> Results {
        let [queue, buffer, room, reserved, _] = call.args;
        let checked = call
            .check_reserved(&[reserved], 0)
            .and_then(|()| check_queue(queue, Object::ReceiveQueue));
        if let Err(error) = checked {
            return Results::error::<3>(error);
        }
        let ((taken, exit), left) = self.enter(caller, |slot| {
            let mut budget = Budget::new(caller.step);
            let mut exit = None;
            if self.link(caller.vm).lock(self.machine()).to_vm.is_empty() {
                exit = self.pump(caller, slot, &mut budget);
            }
            let taken = self.take_packet(caller, (buffer, room), guest);
            if taken.is_ok() && exit.is_none() {
                exit = self.pump(caller, slot, &mut budget);
            }
            (taken, exit)
        });
        let mut results = match taken {
            Ok(size) => Results::new([HypercallError::OK as u64, size, left.has_packets.into()]),
            Err(HypercallError::MSGQUEUE_EMPTY) => {
                Results::error::<3>(HypercallError::MSGQUEUE_EMPTY)
            }
            // The packet is still there.
            Err(error) => Results::new([error as u64, 0, 1]),
        };
        results.exit = exit;
        results
    }

    /// Moves the oldest packet to the guest, which keeps it in its queue if that fails.
    fn take_packet(
        &self,
        caller: Caller<'_, '_, M>,
        (buffer, room): (u64, u64),
        guest: &impl GuestMemory,
    ) -> Result<u64, i64> {
        // The slot is locked, so nobody else takes packets away, and the copy needs no queue's lock.
        let packet = {
            let link = self.link(caller.vm).lock(self.machine());
            link.to_vm.front_copy().ok_or(HypercallError::MSGQUEUE_EMPTY)?
        };
        let size = packet.len();
        if size as u64 > room {
            return Err(HypercallError::ADDR_OVERFLOW);
        }
        // Of a buffer in two pages the first must not be written if the second cannot be.
        if buffer % PAGE_SIZE + size as u64 > PAGE_SIZE {
            guest.writable(buffer, size).map_err(|_| HypercallError::ADDR_INVALID)?;
        }
        guest.write(buffer, &packet).map_err(|_| HypercallError::ADDR_INVALID)?;
        self.link(caller.vm).lock(self.machine()).to_vm.pop();
        Ok(size as u64)
    }

    /// In: queue, 0. Out: error.
    fn flush(&self, caller: Caller<'_, '_, M>, call: &Hypercall) -> Results {
        let [queue, reserved, ..] = call.args;
        let checked = call
            .check_reserved(&[reserved], 0)
            .and_then(|()| check_queue(queue, Object::ReceiveQueue));
        if let Err(error) = checked {
            return Results::error::<1>(error);
        }
        let (exit, _) = self.enter(caller, |slot| {
            let cut = self.link(caller.vm).lock(self.machine()).flush(slot);
            if cut {
                slot.drop_reply(caller);
            }
            self.pump(caller, slot, &mut Budget::new(caller.step))
        });
        Results { exit, ..Results::error::<1>(HypercallError::OK) }
    }

    /// In: queue, threshold, delay, -1. Out: error.
    fn configure_send(&self, caller: Caller<'_, '_, M>, call: &Hypercall) -> Results {
        let [queue, threshold, delay, reserved, _] = call.args;
        let accepted = call
            .check_reserved(&[reserved], KEEP)
            .and_then(|()| check_queue(queue, Object::SendQueue))
            .and_then(|()| threshold_in(threshold, 0..DEPTH as u64));
        call.configured(accepted, delay, |packets| {
            self.link(caller.vm).lock(self.machine()).thresholds.not_full = packets;
        })
    }

    /// In: queue, threshold, delay, -1. Out: error.
    fn configure_receive(&self, caller: Caller<'_, '_, M>, call: &Hypercall) -> Results {
        let [queue, threshold, delay, reserved, _] = call.args;
        let accepted = call
            .check_reserved(&[reserved], KEEP)
            .and_then(|()| check_queue(queue, Object::ReceiveQueue))
            .and_then(|()| match threshold {
                DEEPEST => Ok(Some(DEPTH)),
                _ => threshold_in(threshold, 1..DEPTH as u64 + 1),
            });
        call.configured(accepted, delay, |packets| {
            self.link(caller.vm).lock(self.machine()).thresholds.not_empty = packets;
        })
    }
}

impl Hypercall {
    /// Reserved arguments must have one value, but only the native form looks.
    pub(crate) fn check_reserved(&self, arguments: &[u64], value: u64) -> Result<(), i64> {
        let wrong = self.native && arguments.iter().any(|&argument| argument != value);
        if wrong { Err(HypercallError::ARGUMENT_INVALID) } else { Ok(()) }
    }

    /// Sets a threshold that was accepted, if there is one. Interrupts cannot be delayed.
    fn configured(
        &self,
        accepted: Result<Option<usize>, i64>,
        delay: u64,
        set: impl FnOnce(usize),
    ) -> Results {
        let error = match accepted {
            Ok(_) if delay != KEEP && self.native => UNIMPLEMENTED_NATIVE,
            Ok(_) if delay != KEEP => HypercallError::UNIMPLEMENTED,
            Ok(threshold) => {
                if let Some(packets) = threshold {
                    set(packets);
                }
                HypercallError::OK
            }
            Err(error) => error,
        };
        Results::error::<1>(error)
    }
}

/// Whether a capability names the wanted end of a queue.
fn check_queue(capability: u64, wanted: Object) -> Result<(), i64> {
    match Capability(capability).object() {
        Some(object) if object == wanted => Ok(()),
        Some(Object::SendQueue | Object::ReceiveQueue) => {
            Err(HypercallError::CSPACE_INSUFFICIENT_RIGHTS)
        }
        Some(_) => Err(HypercallError::CSPACE_WRONG_OBJECT_TYPE),
        None => Err(HypercallError::ARGUMENT_INVALID),
    }
}

/// A threshold in packets, `None` to keep the one there is.
fn threshold_in(threshold: u64, range: core::ops::Range<u64>) -> Result<Option<usize>, i64> {
    match threshold {
        KEEP => Ok(None),
        _ if range.contains(&threshold) => Ok(Some(threshold as usize)),
        _ => Err(HypercallError::ARGUMENT_INVALID),
    }
}
