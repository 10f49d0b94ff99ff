//! Lines of VMs that come in parts, put together.
//!
//! EL2 shows an unfinished line, a prompt for example, as soon as its VM waits. So a reader sees the line
//! grow: each part as the line so far, and at last the whole. What a VM has begun and not ended when the
//! stream ends is a line too.

use std::collections::BTreeMap;

use super::Line;

/// Longest line; a longer one is broken.
const LONGEST: usize = 4096;

/// The unfinished lines of one stream, by VM.
#[derive(Debug, Default)]
pub struct Joiner {
    unfinished: BTreeMap<String, Line>,
}

impl Joiner {
    /// Takes a line or a part as it came; gives the line as far as it has come.
    pub fn join(&mut self, new: Line) -> Line {
        let Some(vm) = new.vm.clone() else { return new };
        let mut line = match self.unfinished.remove(&vm) {
            // It began when its first part did.
            Some(begun) => Line { part: new.part, place: new.place, ..begun },
            None => Line { text: String::new(), ..new },
        };
        for character in new.text.chars() {
            // A VM takes back what it wrote on this line, and nothing before it.
            if character == '\u{8}' {
                line.text.pop();
            } else {
                line.text.push(character);
            }
        }
        line.part &= line.text.len() < LONGEST;
        if line.part {
            self.unfinished.insert(vm, line.clone());
        }
        line
    }

    /// The lines that were never ended.
    pub fn finish(&mut self) -> Vec<Line> {
        let unfinished = std::mem::take(&mut self.unfinished);
        unfinished.into_values().map(|line| Line { part: false, ..line }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;

    fn line(vm: &str, text: &str, part: bool) -> Line {
        let (vm, text) = (Some(vm.to_owned()), text.to_owned());
        Line { time: "1".into(), level: Level::Info, vm, text, part, place: None }
    }

    #[test]
    fn a_line_grows_until_its_end_whatever_others_write() {
        let mut joiner = Joiner::default();
        let mut join = |vm, text, part| joiner.join(line(vm, text, part));
        assert_eq!(join("a", "name? ", true), line("a", "name? ", true));
        assert_eq!(join("b", "hello", false), line("b", "hello", false));
        assert_eq!(join("a", "Ada", true), line("a", "name? Ada", true));
        assert_eq!(join("a", "", false), line("a", "name? Ada", false));
        assert_eq!(join("a", "next", false), line("a", "next", false));
    }

    #[test]
    fn a_line_has_the_time_of_its_first_part() {
        let mut joiner = Joiner::default();
        joiner.join(line("a", "> ", true));
        let end = joiner.join(Line { time: "2".into(), ..line("a", "x", false) });
        assert_eq!((end.time.as_str(), end.text.as_str()), ("1", "> x"));
    }

    #[test]
    fn a_backspace_stays_within_the_line() {
        let mut joiner = Joiner::default();
        joiner.join(line("a", "ab", true));
        assert_eq!(joiner.join(line("a", "\u{8} \u{8}c", true)).text, "ac");
        assert_eq!(joiner.join(line("a", "\u{8}\u{8}\u{8}\u{8}d", false)).text, "d");
    }

    #[test]
    fn a_line_without_end_is_broken_and_what_is_left_comes_at_the_end() {
        let mut joiner = Joiner::default();
        let lines = (0..LONGEST / 64).map(|_| joiner.join(line("a", &"x".repeat(64), true)));
        assert_eq!(lines.filter(|line| !line.part).count(), 1);
        joiner.join(line("a", "rest", true));
        assert_eq!(joiner.finish(), [line("a", "rest", false)]);
        assert_eq!(joiner.finish(), []);
    }
}
