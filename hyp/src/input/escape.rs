//! What a byte from the keyboard means.

/// Ctrl-A: the next key is for EL2.
const ESCAPE: u8 = 0x01;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// This byte goes to the VM that has the keyboard.
    Type(u8),
    /// The VM with this index gets the keyboard.
    Switch(usize),
    /// The VM after the one that has it gets it.
    Next,
    /// To know who there is and who has it.
    List,
    /// The key means nothing.
    Unknown,
}

/// Whether the last byte was Ctrl-A.
#[derive(Debug)]
pub(super) struct Escape(bool);

impl Escape {
    pub(super) const fn new() -> Self {
        Self(false)
    }

    /// Takes a byte; nothing comes of Ctrl-A alone.
    pub(super) fn take(&mut self, byte: u8) -> Option<Wish> {
        let is_escaped = self.0;
        self.0 = !is_escaped && byte == ESCAPE;
        match byte {
            _ if !is_escaped => (byte != ESCAPE).then_some(Wish::Type(byte)),
            // People count VMs from one.
            b'1'..=b'9' => Some(Wish::Switch(usize::from(byte - b'1'))),
            b'n' => Some(Wish::Next),
            b'l' => Some(Wish::List),
            b'a' => Some(Wish::Type(ESCAPE)),
            _ => Some(Wish::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn wishes(bytes: &[u8]) -> Vec<Wish> {
        let mut escape = Escape::new();
        bytes.iter().filter_map(|&byte| escape.take(byte)).collect()
    }

    #[test]
    fn what_is_typed_goes_to_the_vm_whatever_it_is() {
        for byte in (0..=u8::MAX).filter(|&byte| byte != ESCAPE) {
            assert_eq!(wishes(&[byte]), [Wish::Type(byte)]);
        }
    }

    #[test]
    fn ctrl_a_and_a_key_are_for_el2() {
        assert_eq!(wishes(b"\x01"), []);
        assert_eq!(
            wishes(b"\x012x\x01n\x01l"),
            [Wish::Switch(1), Wish::Type(b'x'), Wish::Next, Wish::List]
        );
        assert_eq!(wishes(b"\x010\x01!"), [Wish::Unknown, Wish::Unknown]);
    }

    #[test]
    fn ctrl_a_itself_can_be_typed() {
        assert_eq!(wishes(b"\x01aa"), [Wish::Type(ESCAPE), Wish::Type(b'a')]);
        assert_eq!(wishes(b"\x01\x01n"), [Wish::Unknown, Wish::Type(b'n')]);
    }
}
