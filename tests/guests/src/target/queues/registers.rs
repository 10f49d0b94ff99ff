//! Every call on the message queues, and the direct call, in both encodings: its results, and that it
//! changes nothing else.
//!
//! Cast: one VM. All of X0 to X29 and the condition flags are compared after each call, see [`call`](super::call()).

use rm_abi::hypercall::{
    DIRECT_CALL, IDENTIFY, MSGQUEUE_CONFIGURE_RECEIVE, MSGQUEUE_CONFIGURE_SEND, MSGQUEUE_FLUSH,
    MSGQUEUE_RECEIVE, MSGQUEUE_SEND, SMCCC_VERSION, UID, VENDOR_REVISION, VENDOR_UID, smccc,
};
use rm_abi::{Capability, Header, HypercallError, PACKET, message};

use super::call::{FORMS, Form, Registers, by_id, call, registers, trap};
use super::{
    ADDR_INVALID, DEPTH, EMPTY, FULL, OK, PUSH, expect_empty, expect_reply, receive, request, send,
    send_request,
};

/// X0 of a call that does not exist.
const UNKNOWN: u64 = !0;
/// X0 of a setting that does not exist, by the native form: error codes have 32 bits there.
const UNIMPLEMENTED: u64 = 0xffff_ffff;
const ARGUMENT: u64 = HypercallError::ARGUMENT_INVALID as u64;
const SIZE: u64 = HypercallError::ARGUMENT_SIZE as u64;
const RIGHT: u64 = HypercallError::CSPACE_INSUFFICIENT_RIGHTS as u64;
const OVERFLOW: u64 = HypercallError::ADDR_OVERFLOW as u64;

/// An argument that leaves a setting as it is.
const KEEP: u64 = !0;
/// An address that the VM does not have.
const NOWHERE: u64 = 0x6000_0000;
/// Version 1, 64 bits, variant `Q`.
const API_INFO: u64 = 0x5100_0000_0000_8001;

const TX: u64 = Capability::SEND_QUEUE.0;
const RX: u64 = Capability::RECEIVE_QUEUE.0;

/// Makes a call and expects these results.
#[track_caller]
fn expect<const N: usize>(form: Form, number: u16, arguments: &[u64], results: [u64; N]) {
    let found = call::<N>(form, number, arguments);
    assert!(found == results, "{form:?} {number:#x} {arguments:x?}: {found:x?}, not {results:x?}");
}

/// The program.
pub fn main() {
    for form in FORMS {
        identify(form);
        send_and_receive(form);
        send_refuses(form);
        receive_refuses(form);
        a_full_queue_and_a_flush(form);
        thresholds(form);
        reserved_arguments(form);
        capabilities(form);
        direct(form);
    }
    function_ids();
    discovery();
    println!("each call wrote its results and no other register, in {} forms", FORMS.len());
}

fn identify(form: Form) {
    let [info, features, one, two] = call(form, IDENTIFY, &[]);
    assert!([info, one, two] == [API_INFO, 0, 0], "{info:#x} {one:#x} {two:#x}");
    assert!(features & 0b1110 == 0b1110, "doorbells, queues and interrupts: {features:#x}");
}

fn send_and_receive(form: Form) {
    expect_empty(form);
    assert!(send_request(form, 1) == [OK, 1], "a request");
    assert!(send_request(form, 2) == [OK, 1], "a second");
    expect_reply(form, 1, true);
    expect_reply(form, 2, false);
    expect_empty(form);
}

fn send_refuses(form: Form) {
    let request = request(3);
    let at = request.as_ptr() as u64;
    for size in [0, PACKET as u64 + 1, 1 << 32, (1 << 32) + 8, !0] {
        assert!(send(form, size, at) == [SIZE, 0], "a size of {size:#x}");
    }
    assert!(send(form, 8, NOWHERE) == [ADDR_INVALID, 0], "no memory");
    // Of the flags only PUSH has a meaning, and it is not needed.
    expect(form, MSGQUEUE_SEND, &[TX, 8, at, 0, 0], [OK, 1]);
    expect_reply(form, 3, false);
    expect_empty(form);
}

fn receive_refuses(form: Form) {
    let mut packet = [0u8; PACKET];
    let at = packet.as_mut_ptr() as u64;
    // That there is nothing comes before whatever is wrong with the buffer.
    for (buffer, room) in [(at, 0), (NOWHERE, 240), (!0, !0)] {
        assert!(receive(form, buffer, room) == [EMPTY, 0, 0], "{room} bytes at {buffer:#x}");
    }
    assert!(send_request(form, 4) == [OK, 1], "a request");
    for room in [0, 1, 15] {
        assert!(receive(form, at, room) == [OVERFLOW, 0, 1], "{room} bytes");
    }
    assert!(receive(form, NOWHERE, 240) == [ADDR_INVALID, 0, 1], "no memory");
    assert!(packet == [0; PACKET], "a refused receive wrote something");
    // No more than the packet is written, so the buffer's end may be anywhere.
    assert!(receive(form, at, !0) == [OK, super::REPLY, 0], "much room");
    assert!(packet[16..].iter().all(|&byte| byte == 0), "more than the packet was written");
    expect_empty(form);
}

/// Fills the receive queue, the slot and the send queue.
fn fill(form: Form) {
    for sequence in 0..2 * DEPTH {
        assert!(send_request(form, sequence) == [OK, 1], "request {sequence}");
    }
    assert!(send_request(form, 2 * DEPTH) == [OK, 0], "the last that has room");
    assert!(send_request(form, 99) == [FULL, 0], "one too many");
}

fn a_full_queue_and_a_flush(form: Form) {
    fill(form);
    // Receiving lets the next reply in, as long as there are some.
    for sequence in 0..=2 * DEPTH {
        expect_reply(form, sequence, sequence < 2 * DEPTH);
    }
    expect_empty(form);

    fill(form);
    expect(form, MSGQUEUE_FLUSH, &[RX, 0], [OK]);
    // Those that were in the queue are gone, those behind them come.
    for sequence in DEPTH..=2 * DEPTH {
        expect_reply(form, sequence, sequence < 2 * DEPTH);
    }
    expect_empty(form);
    expect(form, MSGQUEUE_FLUSH, &[RX, 0], [OK]);
}

fn thresholds(form: Form) {
    let (send, receive) = (MSGQUEUE_CONFIGURE_SEND, MSGQUEUE_CONFIGURE_RECEIVE);
    for threshold in [0, 7, KEEP] {
        expect(form, send, &[TX, threshold, KEEP, KEEP], [OK]);
    }
    for threshold in [8, 9, 1 << 32, KEEP - 1] {
        expect(form, send, &[TX, threshold, KEEP, KEEP], [ARGUMENT]);
    }
    for threshold in [8, KEEP, KEEP - 1, 1] {
        expect(form, receive, &[RX, threshold, KEEP, KEEP], [OK]);
    }
    for threshold in [0, 9, 1 << 32, KEEP - 2] {
        expect(form, receive, &[RX, threshold, KEEP, KEEP], [ARGUMENT]);
    }
    expect(form, send, &[TX, 7, KEEP, KEEP], [OK]);
    // Interrupts cannot be delayed.
    let unimplemented = if form == Form::Native { UNIMPLEMENTED } else { UNKNOWN };
    for delay in [0, 1, 1 << 40] {
        expect(form, send, &[TX, KEEP, delay, KEEP], [unimplemented]);
        expect(form, receive, &[RX, KEEP, delay, KEEP], [unimplemented]);
    }
}

/// The native form wants reserved arguments as they should be, that of SMCCC does not look.
fn reserved_arguments(form: Form) {
    let native = form == Form::Native;
    let request = request(5);
    let at = request.as_ptr() as u64;
    let mut packet = [0u8; PACKET];
    let to = packet.as_mut_ptr() as u64;
    for wrong in [1, 1 << 63] {
        let sent = if native { [ARGUMENT, 0] } else { [OK, 1] };
        expect(form, MSGQUEUE_SEND, &[TX, 8, at, PUSH, wrong], sent);
        let received = if native { [ARGUMENT, 0, 0] } else { [OK, super::REPLY, 0] };
        expect(form, MSGQUEUE_RECEIVE, &[RX, to, 240, wrong], received);
        let done = if native { [ARGUMENT] } else { [OK] };
        expect(form, MSGQUEUE_FLUSH, &[RX, wrong], done);
        expect(form, MSGQUEUE_CONFIGURE_SEND, &[TX, KEEP, KEEP, wrong], done);
        expect(form, MSGQUEUE_CONFIGURE_RECEIVE, &[RX, KEEP, KEEP, wrong], done);
    }
    expect_empty(form);
}

fn capabilities(form: Form) {
    let request = request(6);
    let at = request.as_ptr() as u64;
    let mut packet = [0u8; PACKET];
    let to = packet.as_mut_ptr() as u64;
    let with = |capability: u64, error: u64, own: u64| {
        if own != TX {
            expect(form, MSGQUEUE_SEND, &[capability, 8, at, PUSH, 0], [error, 0]);
            let arguments = [capability, KEEP, KEEP, KEEP];
            expect(form, MSGQUEUE_CONFIGURE_SEND, &arguments, [error]);
        }
        if own != RX {
            expect(form, MSGQUEUE_RECEIVE, &[capability, to, 240, 0], [error, 0, 0]);
            expect(form, MSGQUEUE_FLUSH, &[capability, 0], [error]);
            let arguments = [capability, KEEP, KEEP, KEEP];
            expect(form, MSGQUEUE_CONFIGURE_RECEIVE, &arguments, [error]);
        }
    };
    // The right queue's wrong end, then what names nothing; all 64 bits count.
    with(TX, RIGHT, TX);
    with(RX, RIGHT, RX);
    for capability in [0, 1, 2, !0, TX | 0x80, TX ^ 1 << 63, TX as u32 as u64, TX - 1] {
        with(capability, ARGUMENT, 0);
    }
    expect_empty(form);
}

/// The direct call: what is done, what is refused, and what is no call at all.
fn direct(form: Form) {
    let mut room = [0u8; 64];
    let to = room.as_mut_ptr() as u64;
    let expect = |request: &[u8], capacity: u64, token: u64, results: [u64; 3]| {
        let (at, length) = (request.as_ptr() as u64, request.len() as u64);
        expect(form, DIRECT_CALL, &[at, length, to, capacity, token], results);
    };
    let whole = request(8);
    expect(&whole, 64, 0, [OK, super::REPLY, 0]);
    // A refusal, and a call that does not exist: an error word each.
    let refusal = Header::SIZE as u64 + 4;
    let mut release = [0; 16];
    release[..8].copy_from_slice(&Header::request(message::MEM_RELEASE, 9).encode());
    release[8..12].fill(0xff);
    expect(&release, 64, 0, [OK, refusal, 0]);
    expect(&Header::request(0x5e00_00ff, 10).encode(), 64, 0, [OK, refusal, 0]);
    // No room for the reply, no request, a token that names nothing.
    expect(&whole, 15, 0, [SIZE, 0, 0]);
    expect(&whole[..7], 64, 0, [SIZE, 0, 0]);
    expect(&whole, 64, 99, [1, 0, 0]);
    let arguments = [NOWHERE, 8, to, 64, 0];
    assert!(call::<3>(form, DIRECT_CALL, &arguments) == [ADDR_INVALID, 0, 0], "no memory");
}

/// What makes a function id another's.
fn function_ids() {
    for number in [0x01, 0x1e, 0x1ff] {
        for form in FORMS {
            expect(form, number, &[1, 2, 3, 4, 5], [UNKNOWN]);
        }
    }
    let id = u64::from(smccc(MSGQUEUE_SEND));
    let request = request(7);
    let arguments = [TX, 8, request.as_ptr() as u64, PUSH, 0];
    for form in [Form::Smccc, Form::SmcccBySmc] {
        // The hint about SVE, and whatever is above W0.
        for id in [id | 1 << 16, id | 0xdead_beef << 32] {
            assert!(by_id(form, id, &arguments) == [OK, 1], "{id:#x}");
            expect_reply(form, 7, false);
        }
        for bit in [9, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 29, 31] {
            let id = id ^ 1 << bit;
            assert!(by_id(form, id, &arguments) == [UNKNOWN], "{id:#x}");
        }
        expect_of_32_bits(form, &registers(&[id ^ 1 << 30]), [UNKNOWN], false);
        expect_empty(form);
    }
}

/// Makes a call whose id has 32 bits: `results`, X1 to X3 cut if the call is `narrow`, as those of the
/// architecture and PSCI are, and the rest kept.
fn expect_of_32_bits<const N: usize>(
    form: Form,
    before: &Registers,
    results: [u64; N],
    narrow: bool,
) {
    let mut expected = *before;
    if narrow {
        expected[1..4].iter_mut().for_each(|value| *value &= 0xffff_ffff);
    }
    expected[..N].copy_from_slice(&results);
    let after = trap(form, 0, before);
    assert!(after == expected, "{:#x}: {after:x?}, not {expected:x?}", before[0]);
}

fn discovery() {
    for form in [Form::Smccc, Form::SmcccBySmc] {
        expect_of_32_bits(form, &registers(&[SMCCC_VERSION.into()]), [0x1_0003], true);
        expect_of_32_bits(form, &registers(&[VENDOR_UID.into()]), UID.map(u64::from), false);
        let revision = registers(&[VENDOR_REVISION.into()]);
        expect_of_32_bits(form, &revision, [API_INFO], false);
    }
}
