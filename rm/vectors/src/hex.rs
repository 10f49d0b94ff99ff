//! Bytes and words written as hex digits.

/// The number that `digits` name.
///
/// # Panics
/// If they are not hex digits: the text is part of the tree.
pub fn word(digits: &str) -> u64 {
    match u64::from_str_radix(digits, 16) {
        Ok(word) => word,
        Err(_) => panic!("no hex number in the captured text: {digits}"),
    }
}

/// Writes the bytes that `digits` name to the front of `into`, and tells how many they are.
pub fn bytes(digits: &str, into: &mut [u8]) -> usize {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "half a byte in the captured text: {digits}");
    for (pair, byte) in pairs.iter().zip(into.iter_mut()) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    assert!(pairs.len() <= into.len(), "a long packet in the captured text");
    pairs.len()
}

fn digit(character: u8) -> u8 {
    match (character as char).to_digit(16) {
        Some(digit) => digit as u8,
        None => panic!("no hex digit in the captured text: {character}"),
    }
}

/// Bytes as hex digits.
#[derive(Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn digits_come_back_as_they_were() {
        let mut packet = [0; 4];
        assert_eq!(bytes("2101ffa0", &mut packet), 4);
        assert_eq!(packet, [0x21, 1, 0xff, 0xa0]);
        assert_eq!(std::format!("{}", Hex(&packet)), "2101ffa0");
    }
}
