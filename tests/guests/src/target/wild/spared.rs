//! What the VM must not do, lest its own run end: by its right, not by a hole.
//!
//! * The functions of PSCI by which a VM switches itself or a vCPU off, resets itself or suspends, and the
//!   call by which it ends ([`call`], [`message`]): nobody would make the steps that are left. For the same
//!   reason it does not execute WFI: it may have masked every interrupt that would wake it.
//! * Its program, data and stacks ([`address`], [`bytes`]). They lie in the first block of its memory, which
//!   is therefore neither written to, nor given away, nor the place of a reply. All the rest of its memory is.
//! * Fetching from its own memory ([`fetch`]): what is there is random, so it would be these instructions
//!   that run, in place of the program.
//! * The registers that hold its own translation, vectors and stack, those that unmask interrupts, for
//!   which it has no handlers, and the one by which its waits end ([`register`]).
//! * The data register of its console ([`address`]): what it prints there would be its log.

use core::ops::Range;

use rm_abi::message::VM_EXIT;

use crate::instruction::System;
use crate::layout::{BLOCK, CONSOLE, MEMORY, PAGES, RAM};

/// PSCI's CPU_SUSPEND, CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, SYSTEM_SUSPEND and SYSTEM_RESET2 (DEN 0022F, 5.1), in
/// the form of either 32 or 64 bits.
const POWER: [u32; 6] =
    [0x8400_0001, 0x8400_0002, 0x8400_0008, 0x8400_0009, 0x8400_000e, 0x8400_0012];
/// Bit of a function id: the form of 64 bits.
const WIDE: u32 = 1 << 30;

/// Bytes that one access may reach in front of or behind its address: those of a cache line.
const REACH: u64 = 64;

/// The program's block, and what could run into it.
const PROGRAM: Range<u64> = RAM - REACH..PAGES;
/// What could run into the console's data register.
const DATA_REGISTER: Range<u64> = CONSOLE - REACH..CONSOLE + 4;

/// The registers that keep the program going.
const REGISTERS: [System; 8] = [
    System([3, 0, 1, 0, 0]),  // SCTLR_EL1
    System([3, 0, 2, 0, 0]),  // TTBR0_EL1
    System([3, 0, 2, 0, 2]),  // TCR_EL1
    System([3, 0, 10, 2, 0]), // MAIR_EL1
    System([3, 0, 12, 0, 0]), // VBAR_EL1
    System([3, 0, 4, 2, 0]),  // SPSel
    System([3, 3, 4, 2, 1]),  // DAIF
    System([3, 0, 14, 1, 0]), // CNTKCTL_EL1
];

/// Another function id in place of one that ends something.
pub(super) fn call(id: u64) -> u64 {
    if POWER.contains(&(id as u32 & !WIDE)) { id ^ 0x80 } else { id }
}

/// Another message id in place of the one that ends the VM.
pub(super) const fn message(id: u32) -> u32 {
    if id == VM_EXIT { VM_EXIT + 1 } else { id }
}

/// Another address in place of one of the program's, or where the console prints.
pub(super) fn address(at: u64) -> u64 {
    if PROGRAM.contains(&at) {
        at + BLOCK + REACH
    } else if DATA_REGISTER.contains(&at) {
        at + 2 * REACH
    } else {
        at
    }
}

/// Another address in place of one from which something of the VM's own would be fetched.
pub(super) fn fetch(at: u64) -> u64 {
    if (RAM..RAM + MEMORY).contains(&at) { at + MEMORY } else { at }
}

/// Whether a register may be written.
pub(super) fn register(register: System) -> bool {
    !REGISTERS.contains(&register)
}

/// Makes another message of one that could end the VM or name its program's block, wherever in it the
/// address is: its low half becomes that of no memory.
pub(super) fn bytes(message: &mut [u8]) {
    if let Some(id) = message.get_mut(4..8) {
        let spared = self::message(u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
        id.copy_from_slice(&spared.to_le_bytes());
    }
    let body = message.get_mut(8..).unwrap_or_default();
    for at in 3..body.len() {
        let low = u32::from_le_bytes([body[at - 3], body[at - 2], body[at - 1], body[at]]);
        if (RAM..PAGES).contains(&low.into()) {
            body[at] = 0xff;
        }
    }
}
