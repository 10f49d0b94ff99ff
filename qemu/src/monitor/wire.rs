//! Text and frames, told apart.

/// Ends a frame, and stands on both sides of EL2's text.
const SEPARATOR: u8 = 0;
/// What is text from its first byte to its last and this long is no frame: EL2's message numbers have
/// a high byte below 32 (its ELF file would need 8,192 messages otherwise).
const CERTAINLY_TEXT: usize = 256;

/// A part of what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text, as it was written.
    Text(String),
    /// Something that ended with a 0 and is no text: a frame, without the 0.
    Frame(Vec<u8>),
}

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pending: Vec<u8>,
}

impl Wire {
    /// The pieces that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.pending.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(end) = self.pending.iter().position(|&byte| byte == SEPARATOR) {
            let mut piece: Vec<u8> = self.pending.drain(..=end).collect();
            piece.pop();
            pieces.extend(whole(piece));
        }
        // Firmware that writes without a pause ends with no 0.
        if self.pending.len() >= CERTAINLY_TEXT && is_text(&self.pending) {
            let end = self.pending.iter().rposition(|&byte| byte == b'\n');
            let lines = self.pending.drain(..end.map_or(0, |end| end + 1)).collect::<Vec<_>>();
            if !lines.is_empty() {
                pieces.push(Piece::Text(plain(&lines)));
            }
        }
        pieces
    }

    /// Unfinished text.
    pub(super) fn quiet(&mut self) -> Option<String> {
        let is_text = !self.pending.is_empty() && is_text(&self.pending);
        is_text.then(|| plain(&std::mem::take(&mut self.pending)))
    }

    /// What is left when no more comes: text, or a frame that was cut off.
    pub(super) fn finish(&mut self) -> Option<Piece> {
        let rest = std::mem::take(&mut self.pending);
        if is_text(&rest) && !rest.is_empty() {
            return Some(Piece::Text(plain(&rest)));
        }
        whole(rest)
    }
}

/// What stood before a 0. A frame never ends with a line end: its last byte is above 63.
fn whole(piece: Vec<u8>) -> Option<Piece> {
    match piece[..] {
        [] => None,
        [.., b'\n'] => Some(Piece::Text(plain(&piece))),
        _ => Some(Piece::Frame(piece)),
    }
}

/// Splits lines of text off what is no frame as a whole.
pub(super) fn text_before(piece: &[u8]) -> Option<(String, Vec<u8>)> {
    // A few bytes may look like text by chance.
    const SHORTEST: usize = 8;
    let text = piece.iter().position(|&byte| !is_text(&[byte])).unwrap_or(piece.len());
    let end = piece[..text].iter().rposition(|&byte| byte == b'\n')? + 1;
    (end >= SHORTEST).then(|| (plain(&piece[..end]), piece[end..].to_vec()))
}

/// ASCII that a terminal is meant to get: printable, line ends, tabs, bell, backspace, escape.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| matches!(byte, 0x20..0x7f | b'\n' | b'\r' | b'\t' | 7 | 8 | 0x1b))
}

/// As text, with line ends as they are here. A board writes CR LF.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace("\n\r", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    fn frame(bytes: &[u8]) -> Piece {
        Piece::Frame(bytes.into())
    }

    #[test]
    fn frames_and_text_are_told_apart_however_they_arrive() {
        let bytes = b"\0\x05\x0a\x7f\0\0\nVERDICT 00 pass\n\0\0x0 1\n\0\x0a\x42\0";
        for chunk in 1..bytes.len() {
            let mut wire = Wire::default();
            let pieces: Vec<_> = bytes.chunks(chunk).flat_map(|bytes| wire.feed(bytes)).collect();
            let wanted = [
                frame(b"\x05\x0a\x7f"),
                text("\nVERDICT 00 pass\n"),
                text("x0 1\n"),
                frame(b"\x0a\x42"),
            ];
            assert_eq!(pieces, wanted);
            assert_eq!(wire.finish(), None);
        }
    }

    #[test]
    fn firmware_that_waits_for_a_key_is_seen() {
        let mut wire = Wire::default();
        assert_eq!(wire.feed(b"U-Boot 2023.01\r\n=> "), []);
        assert_eq!(wire.quiet(), Some("U-Boot 2023.01\n=> ".into()));
        assert_eq!(wire.quiet(), None);
    }

    #[test]
    fn firmware_that_never_pauses_is_seen_line_by_line() {
        let mut wire = Wire::default();
        let pieces = wire.feed("loading more and more of it\r\n".repeat(10).as_bytes());
        assert_eq!(pieces, [text(&"loading more and more of it\n".repeat(10))]);
    }

    #[test]
    fn a_frame_that_pauses_halfway_stays_whole() {
        let mut wire = Wire::default();
        assert_eq!(wire.feed(b"\x41\x05\x10abc"), []);
        assert_eq!(wire.quiet(), None);
        assert_eq!(wire.feed(b"def\x7f\0"), [frame(b"\x41\x05\x10abcdef\x7f")]);
    }

    #[test]
    fn what_is_left_at_the_end_is_shown() {
        let mut wire = Wire::default();
        wire.feed(b"the last li");
        assert_eq!(wire.finish(), Some(text("the last li")));
        wire.feed(b"\x05\x0a\xff");
        assert_eq!(wire.finish(), Some(frame(b"\x05\x0a\xff")));
    }

    #[test]
    fn the_last_words_of_firmware_are_split_off_a_frame() {
        let piece = b"Starting kernel ...\r\n\r\n\x05\x01\x7f";
        let (before, rest) = text_before(piece).unwrap();
        assert_eq!(
            (before.as_str(), rest.as_slice()),
            ("Starting kernel ...\n\n", &b"\x05\x01\x7f"[..])
        );
        assert_eq!(text_before(b"\x05\x01\x7f"), None);
        assert_eq!(text_before(b"ab\n\x05\x7f"), None);
    }
}
