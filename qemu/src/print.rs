//! The log on a terminal: when, who, what.

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
    vms: Vec<String>,
    width: usize,
}

impl Printer {
    /// A printer for standard output. Colours only on a terminal whose user has not set NO_COLOR.
    pub fn stdout(vms: impl Iterator<Item = &'static str>, places: bool) -> Self {
        Self::new(vms, places, wants_colour(io::stdout().is_terminal()))
    }

    /// A printer for text that is kept.
    pub fn plain(vms: impl Iterator<Item = &'static str>) -> Self {
        Self::new(vms, true, false)
    }

    fn new(vms: impl Iterator<Item = &'static str>, places: bool, colour: bool) -> Self {
        let vms: Vec<String> = vms.map(str::to_owned).collect();
        let width = vms.iter().map(String::len).max().unwrap_or(0).max("EL2".len());
        Self { colour, places, vms, width }
    }

    /// Gives a VM that was not known before a colour and room for its name.
    pub fn meet(&mut self, name: &str) {
        if !self.vms.iter().any(|vm| vm == name) {
            self.vms.push(name.to_owned());
            self.width = self.width.max(name.len());
        }
    }

    /// Prints a line at once, so that a run can be watched.
    pub fn print(&self, line: &Line) {
        // A reader that has gone away (`| head`) is no reason to panic; the verdict still counts.
        let _ = writeln!(io::stdout(), "{}", self.format(line));
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
        let text = line.text.trim_end().replace('\n', &indent);
        let place = match &line.place {
            Some(place) if self.places => self.paint("2", &format!("  ({place})")),
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
}
