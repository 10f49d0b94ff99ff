//! The objects that a hypercall can name: a VM's message queues and doorbells.
//!
//! A guest takes a capability from its device tree and hands it back; what its bits mean is nobody's
//! business but the manager's. The same number names in each VM that VM's own object, so one VM's
//! number is of no use to another.

/// The name of an object, 64 bits of which all count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Capability(pub u64);

/// What a capability names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    /// The queue from the VM to the manager, with the right to send.
    SendQueue,
    /// The queue from the manager to the VM, with the right to receive.
    ReceiveQueue,
    /// Another VM's doorbell, with the right to ring it.
    DoorbellSend(u8),
    /// The VM's own doorbell, with the right to read it.
    DoorbellReceive(u8),
}

/// Upper half of all capabilities, so that a forgotten or mistaken register names nothing.
const BASE: u64 = 0x6d62_6f78_0000_0000;
const SEND_DOORBELLS: u64 = BASE | 0x100;
const RECEIVE_DOORBELLS: u64 = BASE | 0x200;

impl Capability {
    /// The queue in which the VM's requests go to the manager.
    pub const SEND_QUEUE: Self = Self(BASE | 1);
    /// The queue in which replies and notifications come.
    pub const RECEIVE_QUEUE: Self = Self(BASE | 2);

    /// The doorbell at the other end of the VM's channel `n`.
    pub const fn doorbell_send(n: u8) -> Self {
        Self(SEND_DOORBELLS + n as u64)
    }

    /// The VM's own doorbell of its channel `n`.
    pub const fn doorbell_receive(n: u8) -> Self {
        Self(RECEIVE_DOORBELLS + n as u64)
    }

    /// What this names, whether the VM has it or not. `None`: no VM has such an object.
    pub const fn object(self) -> Option<Object> {
        match (self.0 & !0xff, self.0 as u8) {
            (BASE, 1) => Some(Object::SendQueue),
            (BASE, 2) => Some(Object::ReceiveQueue),
            (SEND_DOORBELLS, n) => Some(Object::DoorbellSend(n)),
            (RECEIVE_DOORBELLS, n) => Some(Object::DoorbellReceive(n)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_names_its_object() {
        assert_eq!(Capability::SEND_QUEUE.object(), Some(Object::SendQueue));
        assert_eq!(Capability::RECEIVE_QUEUE.object(), Some(Object::ReceiveQueue));
        assert_eq!(Capability::doorbell_send(255).object(), Some(Object::DoorbellSend(255)));
        assert_eq!(Capability::doorbell_receive(0).object(), Some(Object::DoorbellReceive(0)));
    }

    #[test]
    fn a_capability_with_one_other_bit_names_another_object_or_none() {
        for bit in 0..64 {
            let other = Capability(Capability::SEND_QUEUE.0 ^ 1 << bit);
            assert_ne!(other.object(), Some(Object::SendQueue), "bit {bit}");
        }
    }
}
