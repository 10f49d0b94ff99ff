//! The registers of a VM's PL011, as its manual has them (DDI 0183G, chapter 3).
//!
//! What the VM sends leaves at once, so its transmitter is always empty and never busy. What is sent to
//! the VM waits in a queue whose first 32 bytes are the receive FIFO; the rest is still on the line,
//! as it were, and follows as the VM reads. Whether the guest has enabled the receiver is not looked
//! at: early printers and loaders often do not.
//!
//! The interrupts follow the manual's 2.8: RX is set when a byte arrives that brings the FIFO to its
//! trigger level, RT when something lies in the FIFO for a while, TX when the transmitter has become
//! empty. All stay until they are cleared, RX and RT also until the reason is gone. Here "for a while"
//! is at once, which costs a VM at worst an interrupt for each byte.

use heapless::Deque;

/// Bytes that wait for a VM to read them.
pub const QUEUE: usize = 256;

/// Data register.
pub(super) const DR: u64 = 0x000;
/// Receive status, and where a write clears it.
const RSR: u64 = 0x004;
/// Flag register: transmit FIFO empty, receive FIFO full, receive FIFO empty.
const FR: u64 = 0x018;
const FR_TXFE: u64 = 1 << 7;
const FR_RXFF: u64 = 1 << 6;
const FR_RXFE: u64 = 1 << 4;
/// Interrupts as they are, those that are not masked, and where a write clears them.
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;

/// Registers that keep what is written to them, and which of their bits do: ILPR, IBRD, FBRD, LCR_H, CR,
/// IFLS, IMSC and DMACR.
const KEPT: [(u64, u16); 8] = [
    (0x020, 0x00ff),
    (0x024, 0xffff),
    (0x028, 0x003f),
    (0x02c, 0x00ff),
    (0x030, 0xff87),
    (0x034, 0x003f),
    (0x038, 0x07ff),
    (0x048, 0x0007),
];
/// Their places in [`KEPT`].
const LCR_H: usize = 3;
const CR: usize = 4;
const IFLS: usize = 5;
const IMSC: usize = 6;
/// LCR_H: the FIFOs are on.
const FEN: u16 = 1 << 4;
/// After a reset: transmitter and receiver enabled, triggers at one half.
const CR_RESET: u16 = 0x0300;
const IFLS_RESET: u16 = 0x12;

/// Interrupts, as bits of RIS, MIS, IMSC and ICR: received, sent, received and left, overrun.
const RX: u16 = 1 << 4;
const TX: u16 = 1 << 5;
const RT: u16 = 1 << 6;
const OE: u16 = 1 << 10;
/// The overrun, as DR and RSR show it.
const DR_OE: u64 = 1 << 11;
const RSR_OE: u64 = 1 << 3;

/// UARTPeriphID0..3 and UARTPCellID0..3 of a PL011 r1p5, whose FIFOs have 32 bytes (3.3.13 and
/// following).
const IDS: u64 = 0xfe0;
const ID_BYTES: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
const FIFO: usize = 32;

/// A VM's PL011, but for where its output goes.
#[derive(Debug)]
pub(super) struct Pl011 {
    received: Deque<u8, QUEUE>,
    /// A byte was lost since the queue last had room, and since RSR was last cleared.
    overrun: bool,
    status: u64,
    interrupts: u16,
    kept: [u16; KEPT.len()],
}

impl Pl011 {
    /// The registers after a reset.
    pub(super) const fn new() -> Self {
        let mut kept = [0; KEPT.len()];
        (kept[CR], kept[IFLS]) = (CR_RESET, IFLS_RESET);
        Self { received: Deque::new(), overrun: false, status: 0, interrupts: 0, kept }
    }

    /// A guest's read.
    pub(super) fn read(&mut self, offset: u64) -> u64 {
        match offset {
            DR => self.take(),
            RSR => self.status,
            FR => self.flags(),
            RIS => self.interrupts.into(),
            MIS => self.signalled().into(),
            IDS.. => ID_BYTES.get((offset - IDS) as usize / 4).map_or(0, |&id| id.into()),
            _ => kept(offset).map_or(0, |n| self.kept[n].into()),
        }
    }

    /// A guest's write to any register but DR.
    pub(super) fn write(&mut self, offset: u64, value: u64) {
        match offset {
            RSR => self.status = 0,
            ICR => self.interrupts &= !(value as u16),
            _ => {
                if let Some(n) = kept(offset) {
                    self.kept[n] = value as u16 & KEPT[n].1;
                }
            }
        }
    }

    /// A byte has been sent: the transmitter is empty again.
    pub(super) fn sent(&mut self) {
        self.interrupts |= TX;
    }

    /// A byte comes in. False if there was no room for it.
    pub(super) fn receive(&mut self, byte: u8) -> bool {
        let fits = self.received.push_back(byte).is_ok();
        if !fits {
            self.overrun = true;
            self.status |= RSR_OE;
            self.interrupts |= OE;
        } else if self.received.len() <= self.depth() {
            self.arrive();
        }
        fits
    }

    /// Whether the interrupt line is high.
    pub(super) fn line(&self) -> bool {
        self.signalled() != 0
    }

    fn signalled(&self) -> u16 {
        self.interrupts & self.kept[IMSC]
    }

    fn flags(&self) -> u64 {
        let full = if self.received.len() >= self.depth() { FR_RXFF } else { 0 };
        let empty = if self.received.is_empty() { FR_RXFE } else { 0 };
        FR_TXFE | full | empty
    }

    fn take(&mut self) -> u64 {
        let more_on_the_line = self.received.len() > self.depth();
        let Some(byte) = self.received.pop_front() else { return 0 };
        if self.received.is_empty() {
            self.interrupts &= !(RX | RT);
        } else {
            self.interrupts |= RT;
            if self.received.len() < self.trigger() {
                self.interrupts &= !RX;
            }
            if more_on_the_line {
                self.arrive();
            }
        }
        let overrun = if core::mem::take(&mut self.overrun) { DR_OE } else { 0 };
        overrun | u64::from(byte)
    }

    /// A byte has come into the FIFO.
    fn arrive(&mut self) {
        self.interrupts |= RT;
        if self.received.len() >= self.trigger() {
            self.interrupts |= RX;
        }
    }

    /// Bytes that the FIFO holds.
    fn depth(&self) -> usize {
        if self.kept[LCR_H] & FEN == 0 { 1 } else { FIFO }
    }

    /// Bytes from which on RX is set: what IFLS says, in eighths.
    fn trigger(&self) -> usize {
        let eighths = match self.kept[IFLS] >> 3 & 7 {
            0 => 1,
            1 => 2,
            3 => 6,
            4 => 7,
            _ => 4,
        };
        (self.depth() * eighths / 8).max(1)
    }
}

/// The register that lies at `offset`, among those that are kept.
fn kept(offset: u64) -> Option<usize> {
    KEPT.iter().position(|&(register, _)| register == offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const IFLS_AT: u64 = 0x034;
    const IMSC_AT: u64 = 0x038;
    const LCR_H_AT: u64 = 0x02c;

    /// As Linux sets it up: FIFOs on, interrupts for what is received.
    fn opened() -> Pl011 {
        let mut uart = Pl011::new();
        uart.write(LCR_H_AT, 0x70);
        uart.write(ICR, 0x7ff);
        uart.write(IMSC_AT, (RX | RT).into());
        uart
    }

    fn type_in(uart: &mut Pl011, text: &[u8]) -> usize {
        text.iter().filter(|&&byte| uart.receive(byte)).count()
    }

    /// What a driver's interrupt handler does: reads until nothing is left.
    fn drain(uart: &mut Pl011) -> Vec<u8> {
        let mut bytes = Vec::new();
        while uart.read(FR) & FR_RXFE == 0 {
            bytes.push(uart.read(DR) as u8);
        }
        bytes
    }

    #[test]
    fn a_driver_finds_a_pl011_r1p5_that_is_idle() {
        let mut uart = Pl011::new();
        assert_eq!(uart.read(FR), FR_TXFE | FR_RXFE);
        let id = (0..4).fold(0, |id, n| id | uart.read(IDS + 4 * n) << (8 * n));
        assert_eq!((id & 0xfff, id >> 12 & 0xff, id >> 20 & 0xf), (0x011, 0x41, 3));
        let cell = (0..4).fold(0, |id, n| id | uart.read(IDS + 0x10 + 4 * n) << (8 * n));
        assert_eq!(cell, 0xb105_f00d, "AMBA's mark");
        assert_eq!((uart.read(IFLS_AT), uart.read(0x030)), (0x12, 0x300));
        assert!((0..0x1000).all(|offset| uart.read(offset) <= 0xffff));
    }

    #[test]
    fn what_is_typed_is_read_in_order() {
        let mut uart = opened();
        assert_eq!(uart.read(DR), 0, "nothing was typed");
        type_in(&mut uart, b"ls -l\r");
        assert_eq!(drain(&mut uart), b"ls -l\r");
        assert!(!uart.line());
    }

    #[test]
    fn one_byte_interrupts_and_reading_it_ends_that() {
        let mut uart = opened();
        type_in(&mut uart, b"x");
        assert_eq!(uart.read(MIS), RT.into());
        assert!(uart.line());
        assert_eq!(uart.read(DR), b'x'.into());
        assert_eq!((uart.read(RIS), uart.line()), (0, false));
    }

    #[test]
    fn rx_comes_at_the_trigger_level_and_goes_below_it() {
        for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
            let mut uart = opened();
            uart.write(IFLS_AT, select << 3);
            type_in(&mut uart, &[b'x'; FIFO][..level - 1]);
            assert_eq!(uart.read(RIS), RT.into());
            type_in(&mut uart, b"x");
            assert_eq!(uart.read(RIS), (RX | RT).into());
            uart.read(DR);
            assert_eq!(uart.read(RIS), RT.into());
        }
    }

    #[test]
    fn without_fifos_each_byte_is_a_full_fifo() {
        let mut uart = opened();
        uart.write(LCR_H_AT, 0x60);
        type_in(&mut uart, b"ab");
        for byte in *b"ab" {
            assert_eq!(uart.read(FR), FR_TXFE | FR_RXFF);
            assert_eq!(uart.read(RIS), (RX | RT).into());
            assert_eq!(uart.read(DR), byte.into());
        }
        assert_eq!((uart.read(FR), uart.read(RIS)), (FR_TXFE | FR_RXFE, 0));
    }

    #[test]
    fn a_masked_interrupt_is_seen_and_does_not_signal() {
        let mut uart = opened();
        uart.write(IMSC_AT, 0);
        type_in(&mut uart, b"x");
        assert_eq!((uart.read(RIS), uart.read(MIS), uart.line()), (RT.into(), 0, false));
        uart.write(IMSC_AT, RT.into());
        assert!(uart.line(), "it is a level");
    }

    #[test]
    fn a_cleared_interrupt_comes_again_with_the_next_byte() {
        let mut uart = opened();
        type_in(&mut uart, &[b'x'; 20]);
        uart.write(ICR, (RX | RT).into());
        assert!(!uart.line());
        type_in(&mut uart, b"x");
        assert_eq!(uart.read(MIS), (RX | RT).into());
        uart.write(ICR, (RX | RT).into());
        uart.read(DR);
        assert_eq!(uart.read(MIS), RT.into(), "what is left in the FIFO times out");
    }

    #[test]
    fn the_transmitter_interrupts_after_a_byte_and_not_before() {
        let mut uart = opened();
        uart.write(IMSC_AT, TX.into());
        assert!(!uart.line(), "nothing was sent yet");
        uart.sent();
        assert_eq!((uart.read(MIS), uart.read(FR) & FR_TXFE), (TX.into(), FR_TXFE));
        uart.write(ICR, TX.into());
        assert!(!uart.line());
        uart.sent();
        assert!(uart.line());
    }

    #[test]
    fn more_than_a_fifo_waits_and_more_than_the_queue_is_lost() {
        let mut uart = opened();
        let text: Vec<u8> = (0..QUEUE).map(|n| n as u8).collect();
        assert_eq!(type_in(&mut uart, &text), QUEUE);
        assert_eq!(uart.read(FR), FR_TXFE | FR_RXFF);
        assert_eq!(type_in(&mut uart, b"lost"), 0);
        assert_eq!(uart.read(RIS), (RX | RT | OE).into());
        assert_eq!(uart.read(RSR), RSR_OE);
        uart.write(RSR, 0);
        uart.write(ICR, OE.into());
        assert_eq!((uart.read(RSR), uart.read(RIS)), (0, (RX | RT).into()));
        assert_eq!(uart.read(DR), DR_OE, "the first byte says that others were lost");
        assert_eq!(drain(&mut uart), text[1..]);
    }

    /// Linux clears what was there before it listens, and reads at most two FIFOs of it.
    #[test]
    fn a_driver_that_begins_with_a_long_queue_still_hears_of_its_rest() {
        for typed in 1..=QUEUE {
            let mut uart = Pl011::new();
            uart.write(LCR_H_AT, 0x70);
            type_in(&mut uart, &[b'x'; QUEUE][..typed]);
            uart.write(ICR, (RX | RT).into());
            for _ in 0..2 * FIFO {
                if uart.read(FR) & FR_RXFE == 0 {
                    uart.read(DR);
                }
            }
            uart.write(IMSC_AT, (RX | RT).into());
            assert_eq!(uart.line(), typed > 2 * FIFO);
        }
    }

    #[test]
    fn registers_keep_the_bits_that_they_have() {
        let mut uart = Pl011::new();
        for (at, bits) in KEPT {
            uart.write(at, u64::MAX);
            assert_eq!(uart.read(at), bits.into());
        }
        uart.write(FR, u64::MAX);
        uart.write(RIS, u64::MAX);
        assert_eq!((uart.read(FR), uart.read(RIS)), (FR_TXFE | FR_RXFE, 0));
    }
}
