//! EL2's console, byte by byte. Who may write when is `log`'s business, and what is read `input`'s.
mod cadence;
mod imx;
mod pl011;

use rm::address::Pa;
use spin::Once;

use crate::board::{self, UartKind};

static UART: Once<(UartKind, Pa)> = Once::new();

/// Damaged bytes that one read passes over.
const DAMAGED: usize = 16;

/// Sets the line up, and lets it interrupt when something comes. Bytes written before go nowhere.
pub(crate) fn open(config: board::Uart) {
    let (kind, at) = *UART.call_once(|| (config.kind, config.base));
    match kind {
        UartKind::Pl011 { clock, baud } => pl011::open(at, clock, baud),
        UartKind::Imx => imx::open(at),
        UartKind::Cadence => cadence::open(at),
    }
}

/// What a read found.
enum Received {
    Nothing,
    Damaged,
    Byte(u8),
}

/// Reads one byte if there is one. Damaged ones are passed over, but not for ever.
pub(crate) fn try_read() -> Option<u8> {
    let (kind, at) = *UART.get()?;
    for _ in 0..DAMAGED {
        let received = match kind {
            UartKind::Pl011 { .. } => pl011::read(at),
            UartKind::Imx => imx::read(at),
            UartKind::Cadence => cadence::read(at),
        };
        match received {
            Received::Nothing => return None,
            Received::Damaged => {}
            Received::Byte(byte) => return Some(byte),
        }
    }
    None
}

/// Writes one byte unless the transmit queue is full.
pub(crate) fn try_write(byte: u8) -> bool {
    let Some(&(kind, at)) = UART.get() else { return true };
    match kind {
        UartKind::Pl011 { .. } => pl011::write(at, byte),
        UartKind::Imx => imx::write(at, byte),
        UartKind::Cadence => cadence::write(at, byte),
    }
}

/// Writes all bytes, waiting for the line.
pub(crate) fn write(bytes: &[u8]) {
    for &byte in bytes {
        while !try_write(byte) {}
    }
}
