//! Calls by `hvc`, for programs at EL1: the direct one, and those on the message queues.
//!
//! Buffers are named by the addresses that the caller's own translation gives them. With the MMU on
//! they are best mapped write-back; otherwise EL2 maintains the caches around its accesses.
#![expect(
    unsafe_code,
    reason = "the trap itself is one line of assembly; the crate denies it elsewhere"
)]

use core::arch::asm;

use aarch64_cpu::asm::wfi;
use aarch64_cpu::registers::{DAIF, ReadWriteable, Readable, Writeable};
use rm_abi::{Capability, PACKET, hypercall};

use crate::queue::{QueueTrap, Queues, Received, Sent, Wait};
use crate::transport::{Direct, DirectCall, DirectResult, Trap};

/// The direct call with its number in the instruction.
pub type Hvc = Direct<Native>;

/// The direct call with its number in W0, as SMCCC has it.
pub type Smccc = Direct<SmcccTrap>;

/// One call with its number in the instruction: X0 to X4 in, X0 to X2 out.
fn by_immediate<const NUMBER: u16>(x: [u64; 5]) -> [u64; 3] {
    let [x0, x1, x2];
    // SAFETY: EL2 reads and writes only the buffers that the arguments lend to it, and the registers
    // declared here: the native form may change X0 to X17.
    unsafe {
        asm!(
            "hvc {number}",
            number = const hypercall::native(NUMBER),
            inout("x0") x[0] => x0, inout("x1") x[1] => x1, inout("x2") x[2] => x2,
            inout("x3") x[3] => _, inout("x4") x[4] => _,
            out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
            out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _,
            options(nostack),
        );
    }
    [x0, x1, x2]
}

/// One call with its number in W0, as SMCCC has it: X1 to X5 in, X0 to X2 out.
fn by_function_id(number: u16, x: [u64; 5]) -> [u64; 3] {
    let [x0, x1, x2];
    // SAFETY: as in `by_immediate`; SMCCC 1.1 preserves all registers but results.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") u64::from(hypercall::smccc(number)) => x0,
            inout("x1") x[0] => x1, inout("x2") x[1] => x2,
            in("x3") x[2], in("x4") x[3], in("x5") x[4],
            options(nostack),
        );
    }
    [x0, x1, x2]
}

/// Traps by `hvc` with an immediate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

/// Traps by `hvc #0` with a function id.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmcccTrap;

const fn to_direct(call: &DirectCall) -> [u64; 5] {
    [call.request(), call.length(), call.reply(), call.capacity(), call.token()]
}

const fn done([error, length, token]: [u64; 3]) -> DirectResult {
    DirectResult { error: error as i64, length, token }
}

impl Trap for Native {
    fn trap(&mut self, call: &DirectCall) -> DirectResult {
        done(by_immediate::<{ hypercall::DIRECT_CALL }>(to_direct(call)))
    }
}

impl Trap for SmcccTrap {
    fn trap(&mut self, call: &DirectCall) -> DirectResult {
        done(by_function_id(hypercall::DIRECT_CALL, to_direct(call)))
    }
}

/// The message queues with the call's number in the instruction.
pub type HvcQueues<W, const INBOX: usize = 1024> = Queues<Native, W, INBOX>;

/// The message queues with the call's number in W0.
pub type SmcccQueues<W, const INBOX: usize = 1024> = Queues<SmcccTrap, W, INBOX>;

/// The arguments of a send.
fn to_send(packet: &[u8], push: bool) -> [u64; 5] {
    let queue = Capability::SEND_QUEUE.0;
    [queue, packet.len() as u64, packet.as_ptr() as u64, push.into(), 0]
}

/// The arguments of a receive.
fn to_receive(into: &mut [u8; PACKET]) -> [u64; 5] {
    [Capability::RECEIVE_QUEUE.0, into.as_mut_ptr() as u64, PACKET as u64, 0, 0]
}

/// What a send came to. Codes have 32 bits: "no such feature" comes as 0xffff_ffff.
const fn sent([error, not_full, _]: [u64; 3]) -> Sent {
    Sent { error: error as i32 as i64, not_full: not_full != 0 }
}

const fn received([error, size, not_empty]: [u64; 3]) -> Received {
    Received { error: error as i32 as i64, size: size as usize, not_empty: not_empty != 0 }
}

impl QueueTrap for Native {
    fn send(&mut self, packet: &[u8], push: bool) -> Sent {
        sent(by_immediate::<{ hypercall::MSGQUEUE_SEND }>(to_send(packet, push)))
    }

    fn receive(&mut self, into: &mut [u8; PACKET]) -> Received {
        received(by_immediate::<{ hypercall::MSGQUEUE_RECEIVE }>(to_receive(into)))
    }
}

impl QueueTrap for SmcccTrap {
    fn send(&mut self, packet: &[u8], push: bool) -> Sent {
        sent(by_function_id(hypercall::MSGQUEUE_SEND, to_send(packet, push)))
    }

    fn receive(&mut self, into: &mut [u8; PACKET]) -> Received {
        received(by_function_id(hypercall::MSGQUEUE_RECEIVE, to_receive(into)))
    }
}

/// Sleeps by WFI until the queues interrupt.
///
/// The program enables the two interrupts of its mailbox and takes them; a handler that only
/// acknowledges and ends them is enough. They are masked in the CPU between the last look at the queues
/// and the sleep, so an interrupt in between ends the sleep at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleep {
    masked: u64,
}

impl Wait for Sleep {
    fn enter(&mut self) {
        self.masked = DAIF.get();
        DAIF.modify(DAIF::I::Masked);
    }

    fn wait(&mut self) {
        wfi();
    }

    /// Interrupts that wait are taken here, unless the program had masked them before.
    fn leave(&mut self) {
        DAIF.set(self.masked);
    }
}
