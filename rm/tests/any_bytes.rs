//! Every byte: whatever a VM sends, EL2 neither panics nor loses anything (G7, G8).
//!
//! Three ways lead in: a direct request, packets of the message queues, the arguments of a hypercall. For
//! each there is a corpus of lines in `corpus/` (a name and bytes in hexadecimal; requests are those of the
//! cells, made when a parcel is held). Each line is played as it is, then mutations and mixtures of them, by a VM that owns
//! a parcel, one that holds it and a stranger, in large steps and in small ones. Between them everything settles
//! and is audited; at the end of a run all VMs end, and all must be where boot put it. Then come the stories of
//! `corpus/found/` (`stage/bytes.rs`), each against a system of its own, which `cargo run -- fuzz` finds by what they
//! reach, and mutations of those. `RM_EFFORT` scales the number of mutations; a failure prints the seed, the way and the
//! bytes, which can be added to the corpus. `RM_SEED` replays a run.

mod stage;

use std::fmt::Write;

use rm::machine::fake::effort::{effort, few, some};
use rm::operation::STEP;
use rm_abi::Header;
use stage::bytes::{Way, all_is_back, held, play, story};
use stage::calls::CALLS;
use stage::{Role, settle};

/// The lines for each way, and stories that were found by `cargo run -- fuzz`.
const CORPUS: [(Way, &str, &str); 3] = [
    (Way::Requests, include_str!("corpus/requests.txt"), include_str!("corpus/found/requests.txt")),
    (Way::Packets, include_str!("corpus/packets.txt"), include_str!("corpus/found/packets.txt")),
    (
        Way::Hypercalls,
        include_str!("corpus/hypercalls.txt"),
        include_str!("corpus/found/hypercalls.txt"),
    ),
];

/// xorshift64*, as elsewhere.
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
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    0x80,
    0xff,
    0x200,
    0x201,
    0xffff,
    0x1000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 44,
    !0xfff,
    u64::MAX,
];

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=dice.roll(4) {
        let at = if bytes.is_empty() { 0 } else { dice.roll(bytes.len()) };
        match dice.roll(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 if !bytes.is_empty() => bytes[at] = dice.roll(256) as u8,
            2 => bytes.truncate(at),
            3 => bytes.extend(std::iter::repeat_n(dice.roll(256) as u8, dice.roll(64))),
            4 => {
                let edge = EDGES[dice.roll(EDGES.len())].to_le_bytes();
                let (at, width) = (at & !3, [1, 2, 4, 8][dice.roll(4)]);
                for (place, byte) in bytes.iter_mut().skip(at).zip(&edge[..width]) {
                    *place = *byte;
                }
            }
            5 if !other.is_empty() => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[dice.roll(other.len())..]);
            }
            _ => {
                let part = bytes[at..].to_vec();
                bytes.extend_from_slice(&part[..part.len().min(64)]);
            }
        }
    }
    bytes.truncate(16_000);
}

fn parse(text: &str) -> Vec<Vec<u8>> {
    let line = |line: &str| {
        let (_, hex) = line.split_once(": ")?;
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        Some((0..hex.len()).step_by(2).map(byte).collect())
    };
    text.lines().filter_map(line).collect()
}

/// Plays inputs against one system, and looks whether all is there in the end.
fn against_one_system(way: Way, inputs: impl Iterator<Item = Vec<u8>>, dice: &mut Dice) -> usize {
    let scene = held();
    let seed = dice.0;
    let mut played = 0;
    for bytes in inputs {
        let role = [Role::Owner, Role::Borrower, Role::Outsider][dice.roll(3)];
        let guest = scene.caller(role);
        guest.step.set([1, 40, STEP][dice.roll(3)]);
        let shown: String = bytes.iter().take(64).fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string grows");
            text
        });
        let note = Note(format!("seed {seed}, {way}, {} bytes: {shown}", bytes.len()));
        play(&guest, way, &bytes);
        if usize::is_multiple_of(played, 8) {
            settle(&scene.world);
            scene.world.check();
        }
        core::mem::forget(note);
        played += 1;
    }
    let note = Note(format!("seed {seed}, {way}: the end"));
    all_is_back(&scene.world);
    core::mem::forget(note);
    played
}

/// Tells what was played when it is dropped by a panic.
struct Note(String);

impl Drop for Note {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

/// Plays what was found, and mutations of it.
fn stories(way: Way, found: &[Vec<u8>], dice: &mut Dice) -> (usize, usize) {
    let tell = |bytes: &[u8]| {
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let note = Note(format!("{way}, a story: {shown}"));
        story(way, bytes);
        core::mem::forget(note);
    };
    some(found, 400).for_each(|bytes| tell(bytes));
    let changed = few(100, 1) * effort::<usize>();
    for _ in 0..changed {
        let mut bytes = found[dice.roll(found.len())].clone();
        let other = &found[dice.roll(found.len())];
        mutate(dice, &mut bytes, other);
        tell(&bytes);
    }
    (some(found, 400).len(), changed)
}

fn any_bytes(way: Way) {
    let (_, lines, found) =
        CORPUS.iter().find(|(name, ..)| *name == way).expect("a way has a corpus");
    let corpus = parse(lines);
    let seed = std::env::var("RM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(41);
    let mut dice = Dice(seed);
    let lines = against_one_system(way, some(corpus.iter().cloned(), 150), &mut dice);
    let mut played = 0;
    for _ in 0..few(20, 1) * effort::<u32>() {
        let mut own = Dice(dice.0 ^ 0x5555);
        let mutated = (0..few(400, 2)).map(|_| {
            let mut bytes = corpus[own.roll(corpus.len())].clone();
            let other = corpus[own.roll(corpus.len())].clone();
            mutate(&mut own, &mut bytes, &other);
            bytes
        });
        played += against_one_system(way, mutated, &mut dice);
        dice.roll(2);
    }
    let (stories, changed) = stories(way, &parse(found), &mut dice);
    println!(
        "{way}: {lines} lines of the corpus, {played} mutations of them; {stories} stories, {changed} mutations of them"
    );
}

#[test]
fn g7_any_direct_request() {
    any_bytes(Way::Requests);
}

#[test]
fn g7_any_packets() {
    any_bytes(Way::Packets);
}

#[test]
fn g7_any_hypercall() {
    any_bytes(Way::Hypercalls);
}

/// The requests of the cells, as the corpus has them.
fn requests() -> Vec<(String, Vec<u8>)> {
    let scene = held();
    let line = |call: &stage::calls::Call| {
        let (message, payload) = (call.request)(&scene, Role::Owner);
        let request = [&Header::request(message, 1).encode()[..], &payload].concat();
        (call.name.to_owned(), request)
    };
    CALLS.iter().map(line).collect()
}

#[test]
fn the_corpus_has_every_call_of_the_cells() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/requests.txt");
    if std::env::var_os("RM_BLESS").is_some() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text: String =
            requests().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
        std::fs::write(path, text).expect("the corpus can be written");
        return;
    }
    let corpus = parse(CORPUS[0].1);
    let missing: Vec<_> =
        requests().into_iter().filter(|(_, request)| !corpus.contains(request)).collect();
    assert!(missing.is_empty(), "RM_BLESS=1 adds {missing:?}");
}
