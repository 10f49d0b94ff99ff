//! What a VM prints, line by line.
//!
//! A line goes to the log when it is whole. One that is not is shown as a *part* when its VM waits or
//! has left it standing for a while: a prompt. What follows is then a part too, or the end of the line.
//!
//! Nothing that a terminal would obey leaves the VM but tabs and backspaces: sequences that begin with
//! Escape are left out, as are bells, and any other byte that is not printable is a question mark.
//!
//! Since the rings of the log are shared, a VM may print [`BURST`] lines at once and [`RATE`] a second on
//! average. Further lines are dropped and counted, and the count is logged with the next line. A part
//! costs as much as a line; the first of a line pays for the line's end, too, so that a line that was
//! begun is always ended. A part that cannot be paid for waits.

use heapless::String;

/// Longest line; a longer one is broken.
pub const LINE: usize = 120;
/// Lines a VM may print at once.
pub const BURST: u32 = 128;
/// Lines a second that a VM may print on average.
pub const RATE: u32 = 256;

const BACKSPACE: char = '\u{8}';
const ESCAPE: u8 = 0x1b;
/// Longest sequence that is left out. What is longer shows.
const SEQUENCE: u8 = 32;

/// Text that is due for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The text: printable ASCII, tabs and backspaces.
    /// It continues the part that came before it, if one did.
    pub text: String<LINE>,
    /// Whether the line goes on.
    pub part: bool,
    /// Lines of this VM that were dropped before it.
    pub dropped: u32,
}

/// The moment, in ticks of a counter.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// What the counter says.
    pub now: u64,
    /// How many ticks a second has.
    pub frequency: u64,
}

/// Where in a sequence for a terminal the VM is (ECMA-48, 5.3 and 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    /// In none.
    Outside,
    /// Behind its Escape.
    Begun,
    /// Behind Escape and `[`, and as many bytes of the sequence.
    Control(u8),
}

impl Sequence {
    /// Takes a byte; whether it belongs to a sequence.
    fn take(&mut self, byte: u8) -> bool {
        let (next, inside) = match (*self, byte) {
            (_, ESCAPE) => (Self::Begun, true),
            (Self::Begun, b'[') => (Self::Control(0), true),
            // One byte names what is wanted, intermediate ones may come before.
            (Self::Begun, 0x20..=0x2f) => (Self::Begun, true),
            (Self::Begun, 0x30..=0x7e) => (Self::Outside, true),
            (Self::Control(length), 0x20..=0x3f) if length < SEQUENCE => {
                (Self::Control(length + 1), true)
            }
            (Self::Control(_), 0x40..=0x7e) => (Self::Outside, true),
            _ => (Self::Outside, false),
        };
        *self = next;
        inside
    }
}

/// A VM's unfinished line, and what it may still print.
#[derive(Debug)]
pub(super) struct Output {
    line: String<LINE>,
    sequence: Sequence,
    /// A part of the line was shown, and its end is paid for.
    begun: bool,
    /// What the VM may still print, in ticks of the counter: a line costs 1/[`RATE`] of a second's.
    credit: u64,
    since: u64,
    dropped: u32,
}

impl Output {
    pub(super) const fn new() -> Self {
        Self {
            line: String::new(),
            sequence: Sequence::Outside,
            begun: false,
            credit: u64::MAX,
            since: 0,
            dropped: 0,
        }
    }

    /// Whether there is text that was not shown.
    pub(super) fn is_waiting(&self) -> bool {
        !self.line.is_empty()
    }

    /// Takes a byte. Gives the line that it ends.
    pub(super) fn put(&mut self, byte: u8, time: Time) -> Option<Line> {
        if self.sequence.take(byte) {
            return None;
        }
        match byte {
            b'\n' => return self.end(time),
            // Carriage return, bell and nothing.
            b'\r' | 0x07 | 0 => return None,
            0x08 => self.back(),
            byte => {
                let is_plain = byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
                let _ = self.line.push(if is_plain { byte.into() } else { '?' });
            }
        }
        if self.line.len() == LINE { self.end(time) } else { None }
    }

    /// The line as far as it has come; `None` if all of it was shown or it cannot be paid for.
    pub(super) fn part(&mut self, time: Time) -> Option<Line> {
        let lines = if self.begun { 1 } else { 2 };
        if self.line.is_empty() || !self.pay(lines, time) {
            return None;
        }
        self.begun = true;
        Some(self.take(true))
    }

    /// Ends the line, if there is one.
    pub(super) fn close(&mut self, time: Time) -> Option<Line> {
        if self.begun || !self.line.is_empty() { self.end(time) } else { None }
    }

    fn end(&mut self, time: Time) -> Option<Line> {
        if !core::mem::take(&mut self.begun) && !self.pay(1, time) {
            self.line.clear();
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        Some(self.take(false))
    }

    fn take(&mut self, part: bool) -> Line {
        let text = core::mem::take(&mut self.line);
        Line { text, part, dropped: core::mem::take(&mut self.dropped) }
    }

    /// Takes the last character back: here, or from what was shown.
    fn back(&mut self) {
        if self.line.chars().last().is_none_or(|last| last == BACKSPACE) {
            let _ = self.line.push(BACKSPACE);
        } else {
            self.line.pop();
        }
    }

    /// Takes the price of some lines from the credit, which grows with time.
    fn pay(&mut self, lines: u64, Time { now, frequency }: Time) -> bool {
        let line = frequency / u64::from(RATE);
        let earned = now.saturating_sub(self.since);
        self.since = now;
        self.credit = self.credit.saturating_add(earned).min(line * u64::from(BURST));
        let payable = self.credit >= lines * line;
        if payable {
            self.credit -= lines * line;
        }
        payable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    const fn at(now: u64) -> Time {
        Time { now, frequency: SECOND }
    }

    fn print(output: &mut Output, text: &str, now: u64) -> Option<Line> {
        text.bytes().filter_map(|byte| output.put(byte, at(now))).last()
    }

    #[test]
    fn a_whole_line_goes_to_the_log() {
        let mut output = Output::new();
        assert_eq!(print(&mut output, "half a ", 0), None);
        let line = print(&mut output, "line\r\n", 0).unwrap();
        assert_eq!((line.text.as_str(), line.part, line.dropped), ("half a line", false, 0));
    }

    #[test]
    fn a_guest_cannot_play_with_the_terminal() {
        let mut output = Output::new();
        let mut printed = |text| print(&mut output, text, 0).unwrap().text;
        assert_eq!(printed("a\x1b[2Jb\x1b[1;31mc\x1b[0m\x07\n"), "abc");
        assert_eq!(printed("a\x1bcb\x1b(Bc\x1b\x1b[Jd\n"), "abcd");
        assert_eq!(printed("\u{e9}\x7f\u{9b}2J\n"), "?????2J");
        assert_eq!(printed("\x1b[1\nafter\n"), "after", "a sequence ends with its line");
    }

    #[test]
    fn what_looks_like_a_sequence_hides_little() {
        let mut output = Output::new();
        let text = print(&mut output, &format!("\x1b[{}end\n", "1".repeat(40)), 0).unwrap().text;
        assert_eq!(text.as_str(), &format!("{}end", "1".repeat(40 - usize::from(SEQUENCE))));
    }

    #[test]
    fn a_long_line_is_broken() {
        let mut output = Output::new();
        let first = print(&mut output, &"x".repeat(LINE + 3), 0).unwrap();
        assert_eq!(first.text.len(), LINE);
        assert_eq!(print(&mut output, "\n", 0).unwrap().text.as_str(), "xxx");
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let mut output = Output::new();
        let printed = (0..1000).filter(|_| print(&mut output, "flood\n", 5).is_some()).count();
        assert_eq!(printed, BURST as usize);
        let line = print(&mut output, "later\n", 5 + SECOND / 2).unwrap();
        assert_eq!(line.dropped, 1000 - BURST);
    }

    #[test]
    fn a_prompt_is_shown_and_what_follows_continues_it() {
        let mut output = Output::new();
        print(&mut output, "name? ", 0);
        let prompt = output.part(at(0)).unwrap();
        assert_eq!((prompt.text.as_str(), prompt.part), ("name? ", true));
        assert_eq!(output.part(at(0)), None, "shown once");
        let rest = print(&mut output, "Ada\n", 0).unwrap();
        assert_eq!((rest.text.as_str(), rest.part), ("Ada", false));
    }

    #[test]
    fn a_flood_of_parts_waits_and_a_line_that_was_begun_is_ended() {
        let mut output = Output::new();
        let shown = (0..BURST + LINE as u32 / 2).filter(|_| {
            print(&mut output, ".", 5);
            output.part(at(5)).is_some()
        });
        assert_eq!(shown.count(), BURST as usize - 1);
        assert!(print(&mut output, "\n", 5).is_some(), "its end was paid for");
        assert_eq!(print(&mut output, "next\n", 5), None);
    }

    #[test]
    fn a_backspace_takes_back_what_was_not_shown_and_goes_out_after_what_was() {
        let mut output = Output::new();
        print(&mut output, "ab\x08c", 0);
        assert_eq!(output.part(at(0)).unwrap().text.as_str(), "ac");
        print(&mut output, "\x08\x08 \x08", 0);
        assert_eq!(output.part(at(0)).unwrap().text.as_str(), "\x08\x08");
    }

    #[test]
    fn a_vm_that_ends_ends_its_line() {
        let mut output = Output::new();
        assert_eq!(output.close(at(0)), None);
        print(&mut output, "last wor", 0);
        assert_eq!(output.close(at(0)).unwrap().text.as_str(), "last wor");
        print(&mut output, "> ", 0);
        output.part(at(0));
        assert_eq!(output.close(at(0)).unwrap().text.as_str(), "");
    }
}
