//! Cadence's UART in AMD's Zynq UltraScale+ (UG1085, chapter "UART Controller"; registers in UG1087,
//! module UART).
//!
//! Clock, pins and rate stay as the boot loader has set them up for its own console.

use rm::address::Pa;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use super::Received;
use crate::mmio::{self, ReadOnly, ReadWrite, WriteOnly};

register_structs! {
    Registers {
        (0x00 => control: ReadWrite<u32>),
        (0x04 => mode: ReadWrite<u32>),
        (0x08 => enable: WriteOnly<u32>),
        (0x0c => disable: WriteOnly<u32>),
        (0x10 => mask: ReadOnly<u32>),
        (0x14 => interrupts: ReadWrite<u32>),
        (0x18 => _rate),
        (0x20 => receive_level: ReadWrite<u32>),
        (0x24 => _modem),
        (0x2c => status: ReadOnly<u32>),
        (0x30 => queue: ReadWrite<u32>),
        (0x34 => @END),
    }
}

/// Control: receiver and transmitter on, neither of them off.
const RUNNING: u32 = 1 << 2 | 1 << 4;
/// Interrupt: as many bytes as the level says have come.
const RECEIVED: u32 = 1;
/// Status: nothing has come; the transmit queue is full.
const EMPTY: u32 = 1 << 1;
const FULL: u32 = 1 << 4;

pub(super) fn open(at: Pa) {
    let registers = registers(at);
    registers.control.set(RUNNING);
    registers.receive_level.set(1);
    registers.disable.set(u32::MAX);
    registers.interrupts.set(u32::MAX);
    registers.enable.set(RECEIVED);
}

pub(super) fn read(at: Pa) -> Received {
    let registers = registers(at);
    if registers.status.get() & EMPTY == 0 {
        return Received::Byte(registers.queue.get() as u8);
    }
    // The status stays until it is cleared, which must come after the last byte was taken; one that came
    // in between is seen by looking again.
    registers.interrupts.set(RECEIVED);
    if registers.status.get() & EMPTY == 0 {
        return Received::Byte(registers.queue.get() as u8);
    }
    Received::Nothing
}

pub(super) fn write(at: Pa, byte: u8) -> bool {
    let registers = registers(at);
    let room = registers.status.get() & FULL == 0;
    if room {
        registers.queue.set(byte.into());
    }
    room
}

fn registers(at: Pa) -> &'static Registers {
    // SAFETY: the board names a UART of this kind there. Who writes when is as with the PL011.
    unsafe { mmio::registers(at) }
}
