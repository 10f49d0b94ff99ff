//! Arm's PL011 (DDI 0183G).

use core::ptr::NonNull;

use arm_pl011_uart::{
    DataBits, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer,
};
use rm::address::Pa;

use super::Received;
use crate::stage1::direct;

const LINE: LineConfig =
    LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };

pub(super) fn open(at: Pa, clock: u32, baud: u32) {
    let mut uart = claim(at);
    // A rate that the clock cannot make leaves what firmware has set.
    let _ = uart.enable(LINE, baud, clock);
    uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
}

pub(super) fn read(at: Pa) -> Received {
    match claim(at).read_word() {
        Ok(None) => Received::Nothing,
        Ok(Some(byte)) => Received::Byte(byte),
        Err(_) => Received::Damaged,
    }
}

pub(super) fn write(at: Pa, byte: u8) -> bool {
    let mut uart = claim(at);
    let room = !uart.is_tx_fifo_full();
    if room {
        uart.write_word(byte);
    }
    room
}

fn claim(at: Pa) -> Uart<'static> {
    let registers = NonNull::new(direct(at).cast::<PL011Registers>());
    let registers = registers.expect("the direct map does not start at 0");
    // SAFETY: the address is the board's, whose PL011 is mapped as a device for good. `log` lets one CPU at
    // a time write; on the fatal path two may, which mixes their text at worst. Reading, which one CPU
    // does, takes from another queue.
    Uart::new(unsafe { UniqueMmioPointer::new(registers) })
}
