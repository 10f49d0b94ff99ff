//! The log on a terminal: when, who, what.
//!
//! A line that its VM has not ended, a prompt for example, stands at the bottom of a terminal and grows;
//! what others write is put above it. Where there is no terminal, only whole lines are written.

use std::env;
use std::io::{self, IsTerminal, Write};

use crate::log::{Level, Line};

/// Colours that are readable on black and on white. Red and yellow are left for errors and warnings.
const VM_COLOURS: [&str; 5] = ["36", "35", "32", "34", "96"];

/// What says that nothing special is meant.
const PLAIN: &str = "0";

/// Writes lines for people.
#[derive(Clone, Debug)]
pub struct Printer {
    colour: bool,
    places: bool,
    /// The output is a terminal.
    live: bool,
    /// The unfinished line at the bottom: whose it is, and what is printed of it.
    open: Option<(Option<String>, String)>,
    vms: Vec<String>,
    width: usize,
}

impl Printer {
    /// A printer for standard output. Colours only on a terminal whose user has not set NO_COLOR.
    pub fn stdout(vms: impl Iterator<Item = &'static str>, places: bool) -> Self {
        let live = io::stdout().is_terminal();
        Self { live, ..Self::new(vms, places, wants_colour(live)) }
    }

    /// A printer without colours for something that understands a terminal's escapes.
    pub fn live(vms: impl Iterator<Item = &'static str>) -> Self {
        Self { live: true, ..Self::new(vms, false, false) }
    }

    /// A printer for text that is kept.
    pub fn plain(vms: impl Iterator<Item = &'static str>) -> Self {
        Self::new(vms, true, false)
    }

    fn new(vms: impl Iterator<Item = &'static str>, places: bool, colour: bool) -> Self {
        let vms: Vec<String> = vms.map(str::to_owned).collect();
        let width = vms.iter().map(String::len).max().unwrap_or(0).max("EL2".len());
        Self { colour, places, live: false, open: None, vms, width }
    }

    /// Gives a VM that was not known before a colour and room for its name.
    pub fn meet(&mut self, name: &str) {
        if !self.vms.iter().any(|vm| vm == name) {
            self.vms.push(name.to_owned());
            self.width = self.width.max(name.len());
        }
    }

    /// Prints a line at once, so that a run can be watched.
    pub fn print(&mut self, line: &Line) {
        let text = self.advance(line);
        put(&text);
    }

    /// Ends the line at the bottom, as [`close`](Self::close), at once.
    pub fn finish(&mut self) {
        put(self.close());
    }

    /// What ends the line at the bottom. To be written before anybody else writes to the terminal.
    pub fn close(&mut self) -> &'static str {
        if self.open.take().is_some() { "\n" } else { "" }
    }

    /// What is to be written so that the line is seen.
    pub fn advance(&mut self, line: &Line) -> String {
        if !self.live {
            return if line.part { String::new() } else { self.format(line) + "\n" };
        }
        let text = self.format(line);
        let end = if line.part { "" } else { "\n" };
        let bottom = match self.open.take() {
            None => format!("{text}{end}"),
            Some((vm, open)) if vm == line.vm => match text.strip_prefix(&open) {
                Some(more) => format!("{more}{end}"),
                None => format!("{AGAIN}{text}{end}"),
            },
            // The last one to ask is at the bottom.
            Some(_) if line.part => format!("\n{text}"),
            Some((vm, open)) => {
                let bottom = format!("{AGAIN}{text}\n{open}");
                self.open = Some((vm, open));
                bottom
            }
        };
        if line.part {
            self.open = Some((line.vm.clone(), text));
        }
        bottom
    }

    /// The line as it is printed.
    pub fn format(&self, line: &Line) -> String {
        let who = line.vm.as_deref().unwrap_or("EL2");
        let name = self.paint(self.colour_of(line), &format!("{who:<width$}", width = self.width));
        let urgency = match line.level {
            Level::Error => self.paint("1;31", "error: "),
            Level::Warn => self.paint("33", "warning: "),
            Level::Info | Level::Debug => String::new(),
        };
        let margin = format!("{:>10}  {name}  ", line.time);
        let indent = format!("\n{}", " ".repeat(10 + 2 + self.width + 2));
        let text = if line.part { &line.text } else { line.text.trim_end() };
        let text = text.replace('\n', &indent);
        let place = match &line.place {
            Some(place) if self.places && !line.part => self.paint("2", &format!("  ({place})")),
            _ => String::new(),
        };
        format!("{margin}{urgency}{text}{place}")
    }

    /// A colour of its own for each VM, as long as there are enough.
    fn colour_of(&self, line: &Line) -> &'static str {
        let position = line.vm.as_ref().and_then(|name| self.vms.iter().position(|vm| vm == name));
        position.map_or(PLAIN, |at| VM_COLOURS[at % VM_COLOURS.len()])
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && colour != PLAIN {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// To the begin of the line, which is wiped.
const AGAIN: &str = "\r\x1b[K";

fn put(text: &str) {
    let mut output = io::stdout();
    // A reader that has gone away (`| head`) is no reason to panic; the verdict still counts.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Whether to write colours: only to a terminal, and if the user has not set NO_COLOR.
pub fn wants_colour(terminal: bool) -> bool {
    terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Tells on standard error what the tool is doing, in the form that cargo uses.
pub fn progress(verb: &str, what: &str) {
    let _ = writeln!(io::stderr(), "{verb:>12} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(vm: Option<&str>, level: Level) -> Line {
        Line {
            time: "0.001".into(),
            level,
            vm: vm.map(str::to_owned),
            text: "one\ntwo".into(),
            part: false,
            place: Some("a.rs:7".into()),
        }
    }

    #[test]
    fn plain_text_has_columns_and_places_and_no_escapes() {
        let printer = Printer::plain(["a", "keeper"].into_iter());
        let printed = printer.format(&line(Some("a"), Level::Warn));
        assert_eq!(printed, "     0.001  a       warning: one\n                    two  (a.rs:7)");
    }

    #[test]
    fn a_vm_that_comes_later_gets_room_and_a_colour() {
        let mut printer = Printer::new([].into_iter(), false, true);
        printer.meet("keeper");
        printer.meet("keeper");
        assert!(
            printer.format(&line(Some("keeper"), Level::Info)).contains("\x1b[36mkeeper\x1b[0m  ")
        );
        assert!(printer.format(&line(None, Level::Info)).contains("EL2     "));
    }

    #[test]
    fn each_vm_has_its_colour_and_el2_none() {
        let printer = Printer::new(["a", "b"].into_iter(), false, true);
        let of = |vm| printer.format(&line(vm, Level::Info));
        assert!(of(Some("a")).contains("\x1b[36ma  \x1b[0m"));
        assert!(of(Some("b")).contains("\x1b[35mb  \x1b[0m"));
        assert!(!of(None).contains('\x1b'));
    }

    /// What a terminal shows in the end, as far as these lines are concerned.
    fn shown(lines: &[(&str, &str, bool)]) -> String {
        let mut printer = Printer { live: true, ..Printer::plain(["a", "b"].into_iter()) };
        let mut screen = String::new();
        for &(vm, text, part) in lines {
            let line = Line {
                vm: Some(vm.into()),
                text: text.into(),
                part,
                place: None,
                ..line(None, Level::Info)
            };
            for piece in printer.advance(&line).split_inclusive(AGAIN) {
                screen += piece.strip_suffix(AGAIN).unwrap_or(piece);
                if piece.ends_with(AGAIN) {
                    screen.truncate(screen.rfind('\n').map_or(0, |end| end + 1));
                }
            }
        }
        screen.replace("     0.001  ", "")
    }

    #[test]
    fn a_prompt_stays_at_the_bottom_and_grows() {
        let typed = [("a", "> ", true), ("a", "> l", true), ("a", "> ls", true)];
        assert_eq!(shown(&typed), "a    > ls");
        let corrected = [("a", "> lx", true), ("a", "> l", true), ("a", "> ls", false)];
        assert_eq!(shown(&corrected), "a    > ls\n");
        let beside = [("a", "> ", true), ("b", "hello", false), ("a", "> ls", false)];
        assert_eq!(shown(&beside), "b    hello\na    > ls\n");
        let two = [("a", "> ", true), ("b", "$ ", true), ("a", "> ls", false)];
        assert_eq!(shown(&two), "a    > \na    > ls\nb    $ ");
    }

    #[test]
    fn where_there_is_no_terminal_only_whole_lines_are_written() {
        let mut printer = Printer::plain(["a"].into_iter());
        let part = Line { part: true, ..line(Some("a"), Level::Info) };
        assert_eq!(printer.advance(&part), "");
        assert!(printer.advance(&line(Some("a"), Level::Info)).ends_with('\n'));
    }
}
