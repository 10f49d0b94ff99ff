//! A VM's message queues, register by register and interrupt by interrupt.
//!
//! What a well-behaved client does is in the other programs; these do what the interface allows beside
//! that, in both encodings, and check each answer to the bit.

pub mod buffers;
pub mod call;
pub mod interrupts;
pub mod registers;

use rm_abi::{Header, HypercallError, PACKET, message};

use call::{Form, call};
use rm_abi::Capability;
use rm_abi::hypercall::{MSGQUEUE_RECEIVE, MSGQUEUE_SEND};

/// X0 of a call that was done.
pub(crate) const OK: u64 = HypercallError::OK as u64;
/// X0 when no packet waits.
pub(crate) const EMPTY: u64 = HypercallError::MSGQUEUE_EMPTY as u64;
/// X0 when the queue has no room.
pub(crate) const FULL: u64 = HypercallError::MSGQUEUE_FULL as u64;
/// X0 when the buffer is not memory that the VM may use so.
pub(crate) const ADDR_INVALID: u64 = HypercallError::ADDR_INVALID as u64;

/// Packets that a queue holds.
pub(crate) const DEPTH: u16 = 8;
/// The flag of a send that ends a message.
pub(crate) const PUSH: u64 = 1;

/// A whole request, which is answered at once by [`REPLY`] bytes.
pub(crate) fn request(sequence: u16) -> [u8; Header::SIZE] {
    Header::request(message::VM_GET_VMID, sequence).encode()
}

/// Bytes of the packet that answers [`request`]: header, error, VMID.
pub(crate) const REPLY: u64 = 16;

/// Sends `size` bytes: error, whether there is room for more.
pub(crate) fn send(form: Form, size: u64, data: u64) -> [u64; 2] {
    call(form, MSGQUEUE_SEND, &[Capability::SEND_QUEUE.0, size, data, PUSH, 0])
}

/// Sends a request: error, whether there is room for more.
pub(crate) fn send_request(form: Form, sequence: u16) -> [u64; 2] {
    let request = request(sequence);
    send(form, request.len() as u64, request.as_ptr() as u64)
}

/// Receives into `room` bytes at `buffer`: error, size, whether more wait.
pub(crate) fn receive(form: Form, buffer: u64, room: u64) -> [u64; 3] {
    call(form, MSGQUEUE_RECEIVE, &[Capability::RECEIVE_QUEUE.0, buffer, room, 0])
}

/// Receives a packet, which must be the reply to the request of this number.
pub(crate) fn expect_reply(form: Form, sequence: u16, more: bool) {
    let mut packet = [0u8; PACKET];
    let outcome = receive(form, packet.as_mut_ptr() as u64, PACKET as u64);
    assert!(outcome == [OK, REPLY, more.into()], "reply {sequence}: {outcome:x?}");
    let reply = Header::request(message::VM_GET_VMID, sequence).reply();
    assert!(Header::decode(&packet[..]) == Some(reply), "not the reply {sequence}: {packet:x?}");
}

/// Checks that no packet waits.
pub(crate) fn expect_empty(form: Form) {
    let mut packet = [0u8; PACKET];
    let outcome = receive(form, packet.as_mut_ptr() as u64, PACKET as u64);
    assert!(outcome == [EMPTY, 0, 0], "nothing waits: {outcome:x?}");
}
