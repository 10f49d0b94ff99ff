//! EL2's log: defmt frames in, lines out.
//!
//! A frame holds numbers only; the texts stand in the program's ELF file. A line that a VM wrote on
//! its console comes as `[name] text`, with a name from the boot configuration, and a part of a line
//! that goes on as `[name]+text`.

mod joiner;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use defmt_decoder::{DecodeError, Frame, Location, Locations, StreamDecoder, Table};

use crate::build::workspace;
pub use joiner::Joiner;

/// Frames end with this byte and contain no other.
const FRAME_END: u8 = 0;

/// Who wrote a line, and how urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for something.
    Debug,
    /// The usual course of things.
    Info,
    /// Something was refused or lost.
    Warn,
    /// Something is wrong.
    Error,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Time since power-on as the program printed it; may be empty.
    pub time: String,
    /// How urgent it is.
    pub level: Level,
    /// The VM whose console it comes from; none for EL2 itself.
    pub vm: Option<String>,
    /// The message. Of a line that goes on, what there is of it.
    pub text: String,
    /// Whether the line goes on.
    pub part: bool,
    /// File and line of the statement.
    pub place: Option<String>,
}

/// The texts of one program.
pub struct Texts {
    table: Option<Table>,
    places: Locations,
}

impl Texts {
    /// Reads the texts out of an ELF file. A program without any is fine.
    pub fn of(path: &Path) -> Result<Self> {
        let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let table = Table::parse(&file)
            .with_context(|| format!("the log format of {} is unknown", path.display()))?;
        let places = match &table {
            Some(table) => table.get_locations(&file)?,
            None => BTreeMap::new(),
        };
        Ok(Self { table, places })
    }

    /// A decoder for one run whose VMs have these names.
    pub fn decoder(&self, vms: impl Iterator<Item = &'static str>) -> Decoder<'_> {
        Decoder {
            stream: self.table.as_ref().map(Table::new_stream_decoder),
            places: &self.places,
            vms: Names::These(vms.map(str::to_owned).collect()),
            joiner: Joiner::default(),
        }
    }

    /// The line of one frame, given without its end, of a run whose VMs are unknown. `None` if it is
    /// no frame of this program: damaged, or of a program with other texts.
    pub fn line(&self, frame: &[u8]) -> Option<Line> {
        let bytes = unpack(frame)?;
        let (frame, used) = self.table.as_ref()?.decode(&bytes).ok()?;
        // The last block is filled up with zeros. Anything else is more than the text asks for.
        let rest = &bytes[used..];
        let fits = rest.len() <= BLOCK && rest.iter().all(|&byte| byte == 0);
        fits.then(|| line(&frame, &self.places, &Names::Any))
    }

    /// Whether the program has any texts.
    pub fn is_empty(&self) -> bool {
        self.table.as_ref().is_none_or(Table::is_empty)
    }
}

/// Bytes of a block whose zeros are left out.
const BLOCK: usize = 7;

/// Undoes rzCOBS: read from its end, a byte below 0x80 says which of the seven before it are zeros
/// that were left out; 0x80 + n, that n + 7 follow as they are and a zero ends them; 0xff, 134 bytes.
fn unpack(frame: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(frame.len() * 2);
    let mut packed = frame.iter().rev().copied();
    while let Some(code) = packed.next() {
        match code {
            0 => return None,
            1..0x80 => {
                for bit in (0..BLOCK).rev() {
                    bytes.push(if code >> bit & 1 == 1 { 0 } else { packed.next()? });
                }
            }
            _ => {
                let run = if code == 0xff { 134 } else { usize::from(code - 0x80) + BLOCK };
                if code != 0xff {
                    bytes.push(0);
                }
                for _ in 0..run {
                    bytes.push(packed.next()?);
                }
            }
        }
    }
    bytes.reverse();
    Some(bytes)
}

/// VMs whose lines are told apart from EL2's.
enum Names {
    /// Only these.
    These(Vec<String>),
    /// Whatever looks like the name of one.
    Any,
}

impl Names {
    fn contain(&self, name: &str) -> bool {
        match self {
            Self::These(names) => names.iter().any(|vm| vm == name),
            // The rules of `package::Name`.
            Self::Any => {
                (1..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
            }
        }
    }
}

/// Turns the bytes of one run into lines.
pub struct Decoder<'t> {
    stream: Option<Box<dyn StreamDecoder + Send + Sync + 't>>,
    places: &'t Locations,
    vms: Names,
    joiner: Joiner,
}

impl Decoder<'_> {
    /// The lines that these bytes complete. Damaged frames are skipped and reported as a line.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let Some(stream) = &mut self.stream else { return lines };
        stream.received(bytes);
        loop {
            match stream.decode() {
                Ok(frame) => lines.push(self.joiner.join(line(&frame, self.places, &self.vms))),
                Err(DecodeError::UnexpectedEof) => return lines,
                Err(DecodeError::Malformed) => lines.push(damaged()),
            }
        }
    }

    /// The lines that were never ended. To be called at the end of the stream.
    pub fn finish(&mut self) -> Vec<Line> {
        self.joiner.finish()
    }
}

fn line(frame: &Frame<'_>, places: &Locations, vms: &Names) -> Line {
    let text = frame.display_message().to_string();
    let (vm, text, part) = sender(&text, vms);
    let level = match frame.level().map(|level| level.as_str()) {
        Some("error") => Level::Error,
        Some("warn") => Level::Warn,
        Some("debug" | "trace") => Level::Debug,
        _ => Level::Info,
    };
    Line {
        time: frame.display_timestamp().map(|time| time.to_string()).unwrap_or_default(),
        level,
        vm: vm.map(str::to_owned),
        text: text.to_owned(),
        part,
        place: places.get(&frame.index()).map(place),
    }
}

/// File and line, inside the workspace without the way to it.
fn place(at: &Location) -> String {
    let file = at.file.strip_prefix(workspace()).unwrap_or(&at.file);
    format!("{}:{}", file.display(), at.line)
}

/// Splits `[name] text` and `[name]+text` where the name is a VM's; the latter is a part of a line.
fn sender<'a>(text: &'a str, vms: &Names) -> (Option<&'a str>, &'a str, bool) {
    let found = text.strip_prefix('[').and_then(|rest| {
        rest.match_indices(']').find_map(|(end, _)| {
            let (name, text) = (&rest[..end], &rest[end + 1..]);
            let part = text.starts_with('+');
            let known = (part || text.starts_with(' ')) && vms.contain(name);
            known.then(|| (Some(name), &text[1..], part))
        })
    });
    found.unwrap_or((None, text, false))
}

fn damaged() -> Line {
    Line {
        time: String::new(),
        level: Level::Warn,
        vm: None,
        text: "(a damaged frame of the log)".into(),
        part: false,
        place: None,
    }
}

/// Separates plain text from frames on a wire that carries both: a UART.
///
/// EL2 writes a text between two frame ends, and every text ends with a line end. No frame does: the
/// last byte of an rzCOBS frame has one of its two high bits set.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes bytes off the wire; gives those of whole frames, and appends text to `text`.
    pub fn split(&mut self, bytes: &[u8], text: &mut String) -> Vec<u8> {
        let mut frames = Vec::new();
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == FRAME_END) {
            let segment: Vec<u8> = self.pending.drain(..=end).collect();
            match segment[..end] {
                [] => {}
                [.., b'\n'] => text.push_str(&String::from_utf8_lossy(&segment[..end])),
                _ => frames.extend(segment),
            }
        }
        frames
    }

    /// What is left when the wire is cut: text as far as it came.
    pub fn finish(&mut self, text: &mut String) {
        if self.pending.contains(&b'\n') {
            text.push_str(&String::from_utf8_lossy(&self.pending));
        }
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(wire: &[u8], chunk: usize) -> (Vec<u8>, String) {
        let (mut splitter, mut text, mut frames) = (Splitter::default(), String::new(), Vec::new());
        for bytes in wire.chunks(chunk) {
            frames.extend(splitter.split(bytes, &mut text));
        }
        splitter.finish(&mut text);
        (frames, text)
    }

    #[test]
    fn a_console_line_names_its_vm() {
        let vms = Names::These(vec!["a".to_owned(), "sensor".to_owned(), "x]y".to_owned()]);
        assert_eq!(sender("[sensor] 12 C", &vms), (Some("sensor"), "12 C", false));
        assert_eq!(sender("[sensor]+12 ", &vms), (Some("sensor"), "12 ", true));
        assert_eq!(sender("[x]y] 12 C", &vms), (Some("x]y"), "12 C", false));
        assert_eq!(sender("[sensor] ", &vms), (Some("sensor"), "", false));
        for text in ["[other] 12 C", "[other]+12 C", "[sensor]12 C", "[sensor]", "2 VMs"] {
            assert_eq!(sender(text, &vms), (None, text, false));
        }
    }

    #[test]
    fn without_a_configuration_whatever_can_be_a_name_is_one() {
        assert_eq!(sender("[other] 12 C", &Names::Any), (Some("other"), "12 C", false));
        for text in ["[] x", "[two words] x", "[a-name-of-17-byte] x", "[a]x", "2 VMs"] {
            assert_eq!(sender(text, &Names::Any), (None, text, false));
        }
    }

    #[test]
    fn what_was_left_out_of_a_frame_is_put_back() {
        // Seven bytes of which the last four are zeros; a run of seven and a zero.
        assert_eq!(unpack(&[1, 2, 3, 0b111_1000]).unwrap(), [1, 2, 3, 0, 0, 0, 0]);
        assert_eq!(unpack(&[1, 2, 3, 4, 5, 6, 7, 0x80]).unwrap(), [1, 2, 3, 4, 5, 6, 7, 0]);
        let run = [[9; 134].as_slice(), &[0xff]].concat();
        assert_eq!(unpack(&run).unwrap(), [9; 134]);
        assert_eq!(unpack(&[1, 0b111_0000]), None, "cut short");
        assert_eq!(unpack(&[0xff]), None);
    }

    #[test]
    fn text_between_frames_is_told_apart_however_the_bytes_arrive() {
        let wire = b"\0\x05\x0a\x7f\0\0\nVERDICT 00 pass\n\0\0x0 1\n\0\x0a\x42\0\0last\n";
        for chunk in 1..wire.len() {
            let (frames, text) = split(wire, chunk);
            assert_eq!(frames, b"\x05\x0a\x7f\0\x0a\x42\0");
            assert_eq!(text, "\nVERDICT 00 pass\nx0 1\nlast\n");
        }
    }
}
