//! Direct calls whose addresses, lengths, tokens and headers are wrong.

use rm_abi::{Header, HypercallError, Kind, message};
use rm_client::Vmid;

use super::Attacker;
use crate::demo::granted;
use crate::layout::{CONSOLE, DISTRIBUTOR, MEMORY, RAM, WINDOW};
use crate::raw;

/// Bytes of the reply to VM_GET_VMID.
const REPLY: u64 = 16;
/// An address that the VM's own tables do not map.
const UNMAPPED: u64 = 1 << 40;

/// Makes a direct call and expects this error, and no token.
pub(super) fn expect(request: u64, length: u64, reply: u64, capacity: u64, error: i64) {
    let [found, size, token] = raw::direct(request, length, reply, capacity, 0);
    assert!(
        [found, size, token] == [error as u64, 0, 0],
        "request {request:#x}+{length:#x}, reply {reply:#x}+{capacity:#x}: error {}",
        found as i64
    );
}

/// A request that is in order.
fn request() -> [u8; Header::SIZE] {
    Header::request(message::VM_GET_VMID, 1).encode()
}

/// Asks for a reply at an address that must not be written to.
pub(super) fn refuse_reply_at(reply: u64) {
    let request = request();
    let error = HypercallError::ADDR_INVALID;
    expect(request.as_ptr() as u64, request.len() as u64, reply, REPLY, error);
}

/// Sends a request from an address that must not be read from.
pub(super) fn refuse_request_at(at: u64) {
    let mut reply = [0u8; 64];
    let error = HypercallError::ADDR_INVALID;
    expect(at, Header::SIZE as u64, reply.as_mut_ptr() as u64, reply.len() as u64, error);
}

pub(super) fn attack(attacker: &mut Attacker) {
    addresses();
    lengths();
    headers();
    tokens();
    let me = attacker.session.vmid();
    assert!(granted("asking who I am", me) != Vmid(0), "nobody");
}

fn addresses() {
    let end = RAM + MEMORY;
    let forbidden =
        [0, RAM - 8, end - 4, end, WINDOW, CONSOLE, DISTRIBUTOR, UNMAPPED, !0, !3, 1 << 63];
    for at in forbidden {
        refuse_request_at(at);
        refuse_reply_at(at);
    }
}

fn lengths() {
    let (request, mut reply) = (request(), [0u8; 64]);
    let (from, to) = (request.as_ptr() as u64, reply.as_mut_ptr() as u64);
    let error = HypercallError::ARGUMENT_SIZE;
    for length in [0, 1, 7, 14_625, 1 << 32, (1 << 32) + 8, 1 << 63, !0] {
        expect(from, length, to, reply.len() as u64, error);
    }
    for capacity in [0, 1, 11, REPLY - 1] {
        expect(from, request.len() as u64, to, capacity, error);
    }
    // A buffer that is said to be longer than the memory behind it.
    let last = RAM + MEMORY - REPLY;
    expect(from, request.len() as u64, last, !0, HypercallError::ADDR_INVALID);
}

fn headers() {
    let good = Header::request(message::VM_GET_VMID, 1);
    let kinds = [Kind::Continuation, Kind::Reply, Kind::Notification];
    let wrong_kinds = kinds.map(|kind| Header { kind, ..good }.encode());
    let mut others = [good.encode(); 4];
    others[0][0] = 0x22;
    others[1][0] = 0x11;
    others[2][1] |= 1 << 2;
    others[3][1] |= 63 << 2;
    let mut reply = [0u8; 64];
    for header in wrong_kinds.iter().chain(&others) {
        let (to, capacity) = (reply.as_mut_ptr() as u64, reply.len() as u64);
        let error = HypercallError::ARGUMENT_INVALID;
        expect(header.as_ptr() as u64, header.len() as u64, to, capacity, error);
    }
}

fn tokens() {
    let (request, mut reply) = (request(), [0u8; 64]);
    let (from, to) = (request.as_ptr() as u64, reply.as_mut_ptr() as u64);
    for token in [1, 2, 0x1234, 1 << 32, !0] {
        let [error, size, token] = raw::direct(from, 8, to, reply.len() as u64, token);
        let expected = [HypercallError::ARGUMENT_INVALID as u64, 0, 0];
        assert!([error, size, token] == expected, "a token that nobody gave: error {error}");
    }
}
