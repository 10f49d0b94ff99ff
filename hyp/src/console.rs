//! A VM's console: a virtual PL011 whose output goes to the log, line by line.
//!
//! A guest writes bytes to the data register; a whole line is logged under the VM's name. The
//! transmitter is always ready, there is no input yet, and no interrupt, so drivers that poll work.
//! Since the rings of the log are shared, a VM may print [`BURST`] lines at once and [`RATE`] a second
//! on average. Further lines are dropped and counted, and the count is logged with the next line.

use heapless::String;

/// Guest address of the console.
pub const CONSOLE: u64 = 0x0900_0000;
/// Bytes of its register page.
pub const CONSOLE_SIZE: u64 = 0x1000;
/// Longest line; a longer one is broken.
pub const LINE: usize = 120;
/// Lines a VM may print at once.
pub const BURST: u32 = 128;
/// Lines a second that a VM may print on average.
pub const RATE: u32 = 256;

/// Data register.
const DR: u64 = 0x000;
/// Flag register.
const FR: u64 = 0x018;
/// Transmit FIFO empty, receive FIFO empty.
const FR_IDLE: u64 = 1 << 7 | 1 << 4;
/// Registers that keep what was written to them, for drivers that read back: IBRD, FBRD, LCR_H, CR,
/// IFLS and IMSC.
const KEPT: [u64; 6] = [0x024, 0x028, 0x02c, 0x030, 0x034, 0x038];
/// Control register after a reset: transmitter and receiver enabled.
const CR_RESET: u16 = 0x0300;
const CR: usize = 3;
/// UARTPeriphID0..3 and UARTPCellID0..3 of a PL011 r1p5 (DDI 0183G, 3.3.13 and following).
const IDS: u64 = 0xfe0;
const ID_BYTES: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// A line that is due for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The text, printable ASCII and tabs; anything else a guest sent is a question mark.
    pub text: String<LINE>,
    /// Lines of this VM that were dropped before it.
    pub dropped: u32,
}

/// One VM's console.
#[derive(Debug)]
pub struct Console {
    line: String<LINE>,
    kept: [u16; KEPT.len()],
    /// What the VM may still print, in ticks of the counter: a line costs 1/[`RATE`] of a second's.
    credit: u64,
    since: u64,
    dropped: u32,
}

impl Console {
    /// A console with an empty line.
    pub const fn new() -> Self {
        let mut kept = [0; KEPT.len()];
        kept[CR] = CR_RESET;
        Self { line: String::new(), kept, credit: u64::MAX, since: 0, dropped: 0 }
    }

    /// A guest's read of the register page.
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            FR => FR_IDLE,
            IDS.. => ID_BYTES.get((offset - IDS) as usize / 4).map_or(0, |&id| id.into()),
            _ => kept(offset).map_or(0, |n| self.kept[n].into()),
        }
    }

    /// A guest's write to the register page at time `now`, both in ticks of a counter that makes
    /// `frequency` of them a second. Gives the line that it ends.
    pub fn write(&mut self, offset: u64, value: u64, now: u64, frequency: u64) -> Option<Line> {
        if offset == DR {
            return self.put(value as u8, now, frequency);
        }
        if let Some(n) = kept(offset) {
            self.kept[n] = value as u16;
        }
        None
    }

    fn put(&mut self, byte: u8, now: u64, frequency: u64) -> Option<Line> {
        match byte {
            b'\n' => return self.end_line(now, frequency),
            b'\r' => return None,
            // Nothing that a terminal would obey leaves the VM.
            byte => {
                let is_plain = byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
                let _ = self.line.push(if is_plain { byte.into() } else { '?' });
            }
        }
        if self.line.len() == LINE { self.end_line(now, frequency) } else { None }
    }

    fn end_line(&mut self, now: u64, frequency: u64) -> Option<Line> {
        let text = core::mem::take(&mut self.line);
        if !self.pay(now, frequency) {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        Some(Line { text, dropped: core::mem::take(&mut self.dropped) })
    }

    /// Takes the price of a line from the credit, which grows with time.
    fn pay(&mut self, now: u64, frequency: u64) -> bool {
        let price = frequency / u64::from(RATE);
        let earned = now.saturating_sub(self.since);
        self.since = now;
        self.credit = self.credit.saturating_add(earned).min(price * u64::from(BURST));
        let payable = self.credit >= price;
        if payable {
            self.credit -= price;
        }
        payable
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// The register that lies at `offset`, among those that are kept.
fn kept(offset: u64) -> Option<usize> {
    KEPT.iter().position(|&register| register == offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn print(console: &mut Console, text: &str, now: u64) -> Option<Line> {
        text.bytes().filter_map(|byte| console.write(DR, byte.into(), now, SECOND)).last()
    }

    #[test]
    fn a_whole_line_goes_to_the_log() {
        let mut console = Console::new();
        assert_eq!(print(&mut console, "half a ", 0), None);
        let line = print(&mut console, "line\r\n", 0).unwrap();
        assert_eq!((line.text.as_str(), line.dropped), ("half a line", 0));
    }

    #[test]
    fn a_guest_cannot_play_with_the_terminal() {
        let line = print(&mut Console::new(), "\x1b[2J\u{e9}\n", 0).unwrap();
        assert_eq!(line.text.as_str(), "?[2J??");
    }

    #[test]
    fn a_long_line_is_broken() {
        let mut console = Console::new();
        let first = print(&mut console, &"x".repeat(LINE + 3), 0).unwrap();
        assert_eq!(first.text.len(), LINE);
        assert_eq!(print(&mut console, "\n", 0).unwrap().text.as_str(), "xxx");
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let mut console = Console::new();
        let printed = (0..1000).filter(|_| print(&mut console, "flood\n", 5).is_some()).count();
        assert_eq!(printed, BURST as usize);
        let line = print(&mut console, "later\n", 5 + SECOND / 2).unwrap();
        assert_eq!(line.dropped, 1000 - BURST);
    }

    #[test]
    fn drivers_that_poll_find_an_idle_pl011() {
        let mut console = Console::new();
        assert_eq!(console.read(FR), FR_IDLE);
        let part = console.read(0xfe0) | console.read(0xfe4) << 8;
        assert_eq!(part & 0xfff, 0x011);
        console.write(0x038, 0x7ff, 0, SECOND);
        assert_eq!(console.read(0x038), 0x7ff);
        assert!((0..CONSOLE_SIZE).all(|offset| console.read(offset) <= 0xffff));
    }
}
