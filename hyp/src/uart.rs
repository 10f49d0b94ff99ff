//! EL2's console, byte by byte. Who may write when is `log`'s business, and what is read `input`'s.

use core::ptr::NonNull;

use arm_pl011_uart::{
    DataBits, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer,
};
use spin::Once;

use crate::board;
use crate::stage1::direct;

static REGISTERS: Once<usize> = Once::new();

const LINE: LineConfig =
    LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };

/// Damaged bytes that one read passes over.
const DAMAGED: usize = 16;

/// Sets the line up. Bytes written before go nowhere.
pub(crate) fn open(config: board::Uart) {
    let registers = REGISTERS.call_once(|| direct(config.base) as usize);
    // A rate that the clock cannot make leaves what firmware has set.
    let mut uart = claim(*registers);
    let _ = uart.enable(LINE, config.baud, config.clock);
    uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
}

/// Reads one byte if there is one. Damaged ones are passed over, but not for ever.
pub(crate) fn try_read() -> Option<u8> {
    let mut uart = claim(*REGISTERS.get()?);
    (0..DAMAGED).find_map(|_| uart.read_word().ok()).flatten()
}

/// Writes one byte unless the transmit queue is full.
pub(crate) fn try_write(byte: u8) -> bool {
    let Some(&registers) = REGISTERS.get() else { return true };
    let mut uart = claim(registers);
    let room = !uart.is_tx_fifo_full();
    if room {
        uart.write_word(byte);
    }
    room
}

/// Writes all bytes, waiting for the line.
pub(crate) fn write(bytes: &[u8]) {
    for &byte in bytes {
        while !try_write(byte) {}
    }
}

fn claim(registers: usize) -> Uart<'static> {
    let registers = NonNull::new(registers as *mut PL011Registers).expect("no device lies at 0");
    // SAFETY: `open` got the address from the board, whose PL011 is mapped as a device for good.
    // `log` lets one CPU at a time write; on the fatal path two may, which mixes their text at worst.
    // Reading, which one CPU does, takes from another queue.
    Uart::new(unsafe { UniqueMmioPointer::new(registers) })
}
