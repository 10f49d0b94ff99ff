//! What comes from a board's UART, as lines for people.
//!
//! The wire carries three things: text of the firmware before EL2 starts, EL2's frames of the log, and
//! EL2's plain text (verdict, fatal report). A 0 byte ends each frame and stands on both sides of
//! EL2's text; firmware knows nothing of that and may even ask for keys, so text is shown as well when
//! it is nothing but text and the line has been quiet for a moment.

mod wire;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::elf;
use crate::log::{Joiner, Level, Line, Texts};
use crate::print::Printer;
use crate::symbols;
use wire::{Piece, Wire};

/// How long a line must be quiet before unfinished text is shown.
pub const QUIET: std::time::Duration = std::time::Duration::from_millis(150);
/// What EL2 says of its build, before its first frame.
const BUILD: &str = "EL2 build ";
/// Damaged frames after which it is said that the log does not fit, if they are the most.
const MANY: u32 = 8;

/// One wire, from its first byte on.
pub struct Monitor {
    texts: Texts,
    program: PathBuf,
    /// What EL2 says of its build if it is this program.
    build: Option<String>,
    wire: Wire,
    joiner: Joiner,
    printer: Printer,
    /// Addresses of a trace that is being printed.
    trace: Vec<u64>,
    /// Frames that were decoded since the wire was connected.
    good: u32,
    /// Frames that were not.
    damaged: u32,
    /// Of them, those that nothing was said of yet.
    unreported: u32,
    told: bool,
    /// Whether the last byte shown was no line end.
    open_line: bool,
}

impl Monitor {
    /// For a wire on which this program is expected, with lines in this form.
    pub fn new(program: &Path, printer: Printer) -> Result<Self> {
        let texts = Texts::of(program)?;
        anyhow::ensure!(
            !texts.is_empty(),
            "{} has no texts of a log; name the ELF file of the hypervisor",
            program.display()
        );
        Ok(Self {
            texts,
            program: program.to_owned(),
            build: elf::build(program)?,
            wire: Wire::default(),
            joiner: Joiner::default(),
            printer,
            trace: Vec::new(),
            good: 0,
            damaged: 0,
            unreported: 0,
            told: false,
            open_line: false,
        })
    }

    /// Shows what these bytes complete.
    pub fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        for piece in self.wire.feed(bytes) {
            self.show(piece, out)?;
        }
        out.flush()
    }

    /// Shows what can be shown before it is complete: nothing has come for a while.
    pub fn quiet(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(text) = self.wire.quiet() {
            self.show(Piece::Text(text), out)?;
        }
        self.report_damage(out)?;
        self.print_trace(out)?;
        out.flush()
    }

    /// Shows what is left at the end of a wire. The next byte may be the first of another one.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(piece) = self.wire.finish() {
            self.show(piece, out)?;
        }
        self.report_damage(out)?;
        self.print_trace(out)?;
        self.end_line(out)?;
        for line in self.joiner.finish() {
            write!(out, "{}", self.printer.advance(&line))?;
        }
        (self.good, self.damaged, self.told) = (0, 0, false);
        out.flush()
    }

    fn show(&mut self, piece: Piece, out: &mut dyn Write) -> io::Result<()> {
        match piece {
            Piece::Text(text) => self.text(&text, out),
            Piece::Frame(frame) => match self.texts.line(&frame) {
                Some(line) => self.line(line, out),
                None => match wire::text_before(&frame) {
                    // A frame that follows firmware's last words without a 0 between.
                    Some((text, rest)) => {
                        self.text(&text, out)?;
                        self.show(Piece::Frame(rest), out)
                    }
                    None => self.count_damage(out),
                },
            },
        }
    }

    fn line(&mut self, line: Line, out: &mut dyn Write) -> io::Result<()> {
        self.good += 1;
        self.report_damage(out)?;
        self.print_trace(out)?;
        self.end_line(out)?;
        let starting = line.vm.is_none().then(|| line.text.split_once(": VMID ")).flatten();
        if let Some(name) = line.vm.as_deref().or(starting.map(|(name, _)| name)) {
            self.printer.meet(name);
        }
        let line = self.joiner.join(line);
        write!(out, "{}", self.printer.advance(&line))
    }

    fn text(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let addresses = symbols::addresses(text);
        if addresses.is_empty() {
            self.print_trace(out)?;
        }
        write!(out, "{}{text}", self.printer.close())?;
        self.open_line = !text.ends_with('\n');
        self.trace.extend(addresses);
        self.check_build(text, out)
    }

    /// Says so if EL2 names another build than that of the texts.
    fn check_build(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let named = text.lines().find_map(|line| line.strip_prefix(BUILD));
        match (named, &self.build) {
            (Some(named), Some(build)) if named != build && !self.told => {
                let reason = format!("it is of another build ({named}, not {build})");
                self.tell("this log", &reason, out)
            }
            _ => Ok(()),
        }
    }

    /// Says, once for each wire, that the texts are not those of the log.
    fn tell(&mut self, what: &str, reason: &str, out: &mut dyn Write) -> io::Result<()> {
        self.told = true;
        self.unreported = 0;
        self.end_line(out)?;
        let program = self.program.display();
        let text = format!(
            "{what} does not fit {program}: {reason}. Name the ELF file that was written beside the \
             image: --elf <dir>/hypervisor.elf"
        );
        write!(out, "{}", self.printer.advance(&own(Level::Error, text)))
    }

    /// Ends a line that firmware has left open.
    fn end_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.open_line) { writeln!(out) } else { Ok(()) }
    }

    /// Names the functions of a trace, once it is complete.
    fn print_trace(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let addresses = std::mem::take(&mut self.trace);
        if addresses.is_empty() {
            return Ok(());
        }
        writeln!(out, "--- trace, innermost first")?;
        for function in symbols::functions(&self.program, &addresses) {
            writeln!(out, "{function}")?;
        }
        Ok(())
    }

    fn count_damage(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.damaged += 1;
        self.unreported += 1;
        if self.damaged >= MANY && self.damaged > self.good && !self.told {
            let reason = "it is of another build, or the line is disturbed";
            return self.tell("most of this log", reason, out);
        }
        Ok(())
    }

    /// Says how many frames were damaged, in one line for all that came in a row.
    fn report_damage(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let count = std::mem::take(&mut self.unreported);
        if count == 0 || self.told {
            return Ok(());
        }
        self.end_line(out)?;
        let text = match count {
            1 => "(a damaged frame of the log)".into(),
            _ => format!("({count} damaged frames of the log)"),
        };
        write!(out, "{}", self.printer.advance(&own(Level::Warn, text)))
    }
}

/// A line of our own.
fn own(level: Level, text: String) -> Line {
    Line { time: String::new(), level, vm: None, text, part: false, place: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_texts_is_refused() {
        let this = std::env::current_exe().unwrap();
        let error = Monitor::new(&this, Printer::plain([].into_iter())).err().unwrap().to_string();
        assert!(error.contains("has no texts of a log"), "{error}");
        assert!(Monitor::new(Path::new("/nonexistent"), Printer::plain([].into_iter())).is_err());
    }
}
