//! A VM's console: a virtual PL011 whose output goes to the log, and whose input is the keyboard's.
//!
//! The registers are in `pl011`, what becomes of the bytes that the VM sends in `output`. The interrupt
//! is a level: whoever changes the console tells the VM's interrupt controller when it has changed.

mod output;
mod pl011;

use output::Output;
pub use output::{BURST, LINE, Line, RATE, Time};
pub use pl011::QUEUE;
use pl011::{DR, Pl011};

/// Guest address of the console.
pub const CONSOLE: u64 = 0x0900_0000;
/// Bytes of its register page.
pub const CONSOLE_SIZE: u64 = 0x1000;

/// One VM's console.
#[derive(Debug)]
pub struct Console {
    uart: Pl011,
    output: Output,
    /// What was last said of the interrupt line.
    line: bool,
    /// Bytes that did not fit since one last did.
    lost: u32,
}

/// What became of a byte for the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The VM can read it.
    Taken {
        /// Bytes before it that were lost.
        lost: u32,
    },
    /// There was no room, for the first time since there was.
    Full,
    /// There is still no room.
    Lost,
}

impl Console {
    /// A console as after a reset, with an empty line.
    pub const fn new() -> Self {
        Self { uart: Pl011::new(), output: Output::new(), line: false, lost: 0 }
    }

    /// A guest's read of the register page.
    pub fn read(&mut self, offset: u64) -> u64 {
        self.uart.read(offset)
    }

    /// A guest's write to the register page. Gives the line that it ends.
    pub fn write(&mut self, offset: u64, value: u64, time: Time) -> Option<Line> {
        if offset == DR {
            self.uart.sent();
            return self.output.put(value as u8, time);
        }
        self.uart.write(offset, value);
        None
    }

    /// A byte from the keyboard.
    pub fn receive(&mut self, byte: u8) -> Input {
        if self.uart.receive(byte) {
            return Input::Taken { lost: core::mem::take(&mut self.lost) };
        }
        self.lost = self.lost.saturating_add(1);
        if self.lost == 1 { Input::Full } else { Input::Lost }
    }

    /// What the interrupt line says now, if that has changed since the last call.
    pub fn line_change(&mut self) -> Option<bool> {
        let line = self.uart.line();
        (core::mem::replace(&mut self.line, line) != line).then_some(line)
    }

    /// Whether text of an unfinished line waits to be shown.
    pub fn is_waiting(&self) -> bool {
        self.output.is_waiting()
    }

    /// The unfinished line as far as it has come, unless it was shown or must wait.
    pub fn part(&mut self, time: Time) -> Option<Line> {
        self.output.part(time)
    }

    /// Ends the line of a VM that has ended.
    pub fn close(&mut self, time: Time) -> Option<Line> {
        self.output.close(time)
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time { now: 0, frequency: 1000 };
    const IMSC: u64 = 0x38;

    #[test]
    fn the_line_is_told_when_it_changes() {
        let mut console = Console::new();
        assert_eq!(console.line_change(), None);
        console.write(IMSC, 0x50, NOW);
        console.receive(b'x');
        assert_eq!(console.line_change(), Some(true));
        console.receive(b'y');
        assert_eq!(console.line_change(), None);
        console.read(DR);
        assert_eq!(console.line_change(), None);
        console.read(DR);
        assert_eq!(console.line_change(), Some(false));
    }

    #[test]
    fn what_is_sent_is_printed_and_interrupts() {
        let mut console = Console::new();
        console.write(IMSC, 0x20, NOW);
        assert_eq!(console.write(DR, b'h'.into(), NOW), None);
        assert_eq!(console.line_change(), Some(true));
        assert!(console.is_waiting());
        assert_eq!(console.write(DR, b'\n'.into(), NOW).unwrap().text.as_str(), "h");
        assert!(!console.is_waiting());
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_count_told_once() {
        let mut console = Console::new();
        for _ in 0..QUEUE {
            assert_eq!(console.receive(b'x'), Input::Taken { lost: 0 });
        }
        let lost = [console.receive(b'x'), console.receive(b'x'), console.receive(b'x')];
        assert_eq!(lost, [Input::Full, Input::Lost, Input::Lost]);
        console.read(DR);
        assert_eq!(console.receive(b'x'), Input::Taken { lost: 3 });
        console.read(DR);
        assert_eq!(console.receive(b'x'), Input::Taken { lost: 0 });
    }
}
