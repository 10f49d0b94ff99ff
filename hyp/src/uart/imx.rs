//! The UART of NXP's i.MX (i.MX 8M Plus reference manual, IMX8MPRM, chapter "UART", memory map).
//!
//! Clock, pins and rate stay as the boot loader has set them up for its own console.

use rm::address::Pa;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use super::Received;
use crate::mmio::{self, ReadOnly, ReadWrite, WriteOnly};

register_structs! {
    Registers {
        (0x00 => receive: ReadOnly<u32>),
        (0x04 => _gap0),
        (0x40 => transmit: WriteOnly<u32>),
        (0x44 => _gap1),
        (0x80 => control1: ReadWrite<u32>),
        (0x84 => control2: ReadWrite<u32>),
        (0x88 => control3: ReadWrite<u32>),
        (0x8c => control4: ReadWrite<u32>),
        (0x90 => fifo_control: ReadWrite<u32>),
        (0x94 => status1: ReadWrite<u32>),
        (0x98 => status2: ReadWrite<u32>),
        (0x9c => _gap2),
        (0xb4 => test: ReadOnly<u32>),
        (0xb8 => @END),
    }
}

/// UART_UCR1: the UART works.
const ENABLED: u32 = 1;
/// UART_UCR2: no reset, receiver and transmitter on.
const RUNNING: u32 = 1 | 1 << 1 | 1 << 2;
/// UART_UCR4: an interrupt while there is something to receive.
const DATA_READY: u32 = 1;
/// UART_UTS: the transmit queue is full.
const FULL: u32 = 1 << 4;
/// UART_URXD: there is a byte, and something was wrong with it.
const READY: u32 = 1 << 15;
const WRONG: u32 = 1 << 14;

pub(super) fn open(at: Pa) {
    let registers = registers(at);
    registers.control1.set(registers.control1.get() | ENABLED);
    registers.control2.set(registers.control2.get() | RUNNING);
    registers.control4.set(registers.control4.get() | DATA_READY);
}

pub(super) fn read(at: Pa) -> Received {
    let received = registers(at).receive.get();
    if received & READY == 0 {
        Received::Nothing
    } else if received & WRONG != 0 {
        Received::Damaged
    } else {
        Received::Byte(received as u8)
    }
}

pub(super) fn write(at: Pa, byte: u8) -> bool {
    let registers = registers(at);
    let room = registers.test.get() & FULL == 0;
    if room {
        registers.transmit.set(byte.into());
    }
    room
}

fn registers(at: Pa) -> &'static Registers {
    // SAFETY: the board names a UART of this kind there. Who writes when is as with the PL011.
    unsafe { mmio::registers(at) }
}
