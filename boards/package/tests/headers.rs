//! Every byte of a package's header and section table: what EL2 says of it before it believes anything.
//!
//! A line of `corpus/headers.txt` is a name, what is said, and the first bytes of a package in hexadecimal. They take the
//! place of those of a whole package and are sealed again, so that no digest hides the rules behind it; then
//! they are changed at random, `RM_EFFORT` times as often as by default. `RM_BLESS=1` writes what is said.

mod common;
mod head;

use std::fmt::Write;

use common::{read_all, two_vms};
use head::with_head;

const CORPUS: &str = include_str!("corpus/headers.txt");

/// A line of the corpus.
struct Line {
    name: &'static str,
    said: &'static str,
    bytes: Vec<u8>,
}

fn lines() -> Vec<Line> {
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(digits, 16).expect("a byte in hexadecimal")
    };
    let line = |line: &'static str| {
        let mut parts = line.splitn(3, " | ");
        let mut part = || parts.next().expect("a name, what is said, and bytes");
        let (name, said, digits) = (part(), part(), part());
        Line { name, said, bytes: digits.as_bytes().chunks(2).map(byte).collect() }
    };
    CORPUS.lines().map(line).collect()
}

fn said(bytes: &[u8]) -> String {
    read_all(bytes).map_or_else(|error| error.to_string(), |()| "a package".into())
}

#[test]
fn every_header_of_the_corpus_is_answered_as_it_says() {
    let whole = two_vms().write().expect("it can be written");
    let mut text = String::new();
    for Line { name, bytes, .. } in lines() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let said = said(&with_head(&whole, &bytes));
        writeln!(text, "{name} | {said} | {hex}").expect("a string takes it");
    }
    if std::env::var_os("RM_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/headers.txt");
        return std::fs::write(path, text).expect("the corpus can be written");
    }
    for (is, was) in text.lines().zip(CORPUS.lines()) {
        assert_eq!(is, was);
    }
    let refused = lines().iter().filter(|line| line.said != "a package").count();
    assert!(
        refused > 20 && refused < lines().len(),
        "some are packages and most are not: {refused}"
    );
}

/// xorshift64*, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % sides as u64) as usize
    }
}

/// Numbers that are the last or first of something.
const EDGES: [u64; 10] =
    [0, 1, 143, 144, 4095, 4096, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

#[test]
fn no_header_like_those_of_the_corpus_makes_the_reader_panic() {
    let effort = std::env::var("RM_EFFORT").ok().and_then(|effort| effort.parse().ok());
    let whole = two_vms().write().expect("it can be written");
    let (lines, mut dice) = (lines(), Dice(7));
    let (mut packages, mut all) = (0, 0);
    for _ in 0..2000 * effort.unwrap_or(1) {
        let mut head = lines[dice.roll(lines.len())].bytes.clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(head.len());
            let (edge, width) = (EDGES[dice.roll(EDGES.len())].to_le_bytes(), 1 << dice.roll(4));
            match dice.roll(3) {
                0 => head[at] ^= 1 << dice.roll(8),
                1 => {
                    let field = head.iter_mut().skip(at & !3).zip(&edge[..width]);
                    field.for_each(|(byte, edge)| *byte = *edge);
                }
                _ => {
                    let other = &lines[dice.roll(lines.len())].bytes;
                    let end = head.len().min(other.len());
                    if at < end {
                        head[at..end].copy_from_slice(&other[at..end]);
                    }
                }
            }
        }
        let bytes = with_head(&whole, &head);
        // Cut short, it is as little a reason to panic.
        let _ = read_all(&bytes[..dice.roll(bytes.len())]);
        packages += u32::from(read_all(&bytes).is_ok());
        all += 1;
    }
    println!(
        "headers: {} lines of the corpus, {all} mutations, {packages} still packages",
        lines.len()
    );
    assert!(packages > 0, "some changes are of no importance");
}
