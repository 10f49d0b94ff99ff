//! Doorbells: 64 flags that one VM sets and another reads, with an interrupt.
//!
//! Each channel between two VMs has one doorbell at each end. What a VM sends goes to its peer's; what
//! it receives, masks and resets is its own. Flags that nobody has read are joined with new ones, so
//! ringing needs no memory and never fails.

use core::sync::atomic::{AtomicU32, Ordering};

use rm_abi::hypercall::{DOORBELL_MASK, DOORBELL_RECEIVE, DOORBELL_RESET, DOORBELL_SEND};
use rm_abi::{Capability, HypercallError, Object};

use crate::address::VmIndex;
use crate::hypercall::{Hypercall, Results};
use crate::lock::{self, Lock, Rank};
use crate::machine::{Line, Machine};
use crate::manager::Manager;

/// Doorbells that a VM can have.
pub const MAX_DOORBELLS: usize = 8;

/// A VM's end of a channel.
#[derive(Debug)]
pub(crate) struct Doorbell<R> {
    /// What the peer has rung.
    flags: Lock<Flags, R>,
    /// Whose doorbell the VM rings: that VM's index and the doorbell's number there, plus one; 0 while
    /// the channel is not connected.
    peer: AtomicU32,
}

#[derive(Debug)]
struct Flags {
    set: u64,
    /// Those that interrupt.
    enable: u64,
    /// Those that clear themselves when they do.
    acknowledge: u64,
}

impl Flags {
    const RESET: Self = Self { set: 0, enable: u64::MAX, acknowledge: 0 };

    /// Whether the flags that are set interrupt now. Those that acknowledge themselves are clear then.
    const fn assert(&mut self) -> bool {
        let asserted = self.set & self.enable != 0;
        if asserted {
            self.set &= !self.acknowledge;
        }
        asserted
    }
}

impl<R: lock::Strategy> Doorbell<R> {
    pub(crate) const fn new() -> Self {
        Self { flags: Lock::new(Rank::Doorbell, Flags::RESET), peer: AtomicU32::new(0) }
    }

    fn peer(&self) -> Option<(VmIndex, u8)> {
        let [vm, number, ..] = self.peer.load(Ordering::Relaxed).checked_sub(1)?.to_le_bytes();
        Some((VmIndex(vm), number))
    }

    fn connect(&self, (vm, number): (VmIndex, u8)) {
        self.peer.store(u32::from_le_bytes([vm.0, number, 0, 0]) + 1, Ordering::Relaxed);
    }
}

impl<M: Machine> Manager<'_, M> {
    /// Connects doorbells at boot: what one VM sends to its doorbell of this number rings at the other,
    /// and the other way round.
    ///
    /// # Panics
    ///
    /// If a number is not below [`MAX_DOORBELLS`].
    pub fn connect_doorbells(&self, one: (VmIndex, u8), other: (VmIndex, u8)) {
        self.doorbell(one).expect("a VM has so many doorbells").connect(other);
        self.doorbell(other).expect("a VM has so many doorbells").connect(one);
    }

    /// Clears the doorbells of a VM that has ended. They stay connected.
    pub(crate) fn reset_doorbells(&self, vm: VmIndex) {
        for doorbell in &self.link(vm).doorbells {
            *doorbell.flags.lock(self.machine()) = Flags::RESET;
        }
    }

    fn doorbell(&self, (vm, number): (VmIndex, u8)) -> Option<&Doorbell<M::Relax>> {
        self.link(vm).doorbells.get(usize::from(number))
    }

    /// Serves a call on a doorbell. `None`: the number is not one of those.
    pub(crate) fn ring(&self, vm: VmIndex, call: &Hypercall) -> Option<Results> {
        let [capability, first, second, third, _] = call.args;
        let (reserved, sends) = match call.number {
            DOORBELL_SEND => (second, true),
            DOORBELL_RECEIVE => (second, false),
            DOORBELL_RESET => (first, false),
            DOORBELL_MASK => (third, false),
            _ => return None,
        };
        let number =
            call.check_reserved(&[reserved], 0).and_then(|()| self.named(vm, capability, sends));
        // Those that tell flags tell none when they fail.
        let tells = matches!(call.number, DOORBELL_SEND | DOORBELL_RECEIVE);
        let outcome = number.and_then(|bell| match call.number {
            DOORBELL_SEND => Ok(self.send_flags(bell, first)),
            DOORBELL_RECEIVE if first == 0 => Err(HypercallError::ARGUMENT_INVALID),
            DOORBELL_RECEIVE => Ok(self.change(bell, |flags| {
                let before = flags.set;
                flags.set &= !first;
                before
            })),
            DOORBELL_RESET => Ok(self.change(bell, |flags| {
                *flags = Flags::RESET;
                0
            })),
            _ => Ok(self.set_masks(bell, first, second)),
        });
        Some(match (outcome, tells) {
            (Ok(flags), true) => Results::new([HypercallError::OK as u64, flags]),
            (Ok(_), false) => Results::new([HypercallError::OK as u64]),
            (Err(error), true) => Results::error::<2>(error),
            (Err(error), false) => Results::error::<1>(error),
        })
    }

    /// The doorbell that a capability of the VM names: the peer's to send, its own for the rest.
    fn named(&self, vm: VmIndex, capability: u64, sends: bool) -> Result<(VmIndex, u8), i64> {
        let object = Capability(capability).object();
        let (number, may_send) = match object.ok_or(HypercallError::ARGUMENT_INVALID)? {
            Object::SendQueue | Object::ReceiveQueue => {
                return Err(HypercallError::CSPACE_WRONG_OBJECT_TYPE);
            }
            Object::DoorbellSend(number) => (number, true),
            Object::DoorbellReceive(number) => (number, false),
        };
        let own = (vm, number);
        let peer = self.doorbell(own).and_then(Doorbell::peer);
        // Without a peer the VM has neither end.
        let peer = peer.ok_or(HypercallError::ARGUMENT_INVALID)?;
        match (sends, may_send) {
            (true, true) => Ok(peer),
            (false, false) => Ok(own),
            _ => Err(HypercallError::CSPACE_INSUFFICIENT_RIGHTS),
        }
    }

    /// Whether the VM has a channel with this number, whose other end it can ring.
    pub(crate) fn can_ring(&self, bell: (VmIndex, u8)) -> bool {
        self.doorbell(bell).and_then(Doorbell::peer).is_some()
    }

    /// Rings the other end of a channel of the VM, which was connected at boot, on the VM's behalf.
    pub(crate) fn ring_peer(&self, bell: (VmIndex, u8), flags: u64) {
        let peer = self.doorbell(bell).and_then(Doorbell::peer);
        self.send_flags(peer.expect("a channel stays connected"), flags);
    }

    fn send_flags(&self, bell: (VmIndex, u8), new: u64) -> u64 {
        self.change(bell, |flags| {
            let before = flags.set;
            flags.set |= new;
            if flags.assert() {
                self.machine().interrupt(bell.0, Line::Doorbell(bell.1));
            }
            before
        })
    }

    /// Sets the masks. Flags that waited for being enabled interrupt now.
    fn set_masks(&self, bell: (VmIndex, u8), enable: u64, acknowledge: u64) -> u64 {
        self.change(bell, |flags| {
            let was_asserted = flags.set & flags.enable != 0;
            flags.enable = enable;
            flags.acknowledge = acknowledge;
            if !was_asserted && flags.assert() {
                self.machine().interrupt(bell.0, Line::Doorbell(bell.1));
            }
            0
        })
    }

    fn change(&self, bell: (VmIndex, u8), work: impl FnOnce(&mut Flags) -> u64) -> u64 {
        let doorbell = self.doorbell(bell).expect("a channel is connected to doorbells that exist");
        work(&mut doorbell.flags.lock(self.machine()))
    }
}
