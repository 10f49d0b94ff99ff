//! Commands that were run back to back inside a guest.
//!
//! `C` an instruction and its registers, `W` bytes to an address, `Y` give the CPU away so often,
//! `I` acknowledge all interrupts, `L` and `l` load and store 32 bits, `K` and `k` the same with 64
//! bits and faults, `X` send packets without reading, `N` drain the queue, `Q` one request and its
//! reply. What a command prints is compared as text.

use core::fmt::Write;

use rm_abi::PACKET;

use crate::registers::{Call, Registers, filled};
use crate::replay::{Access, System};
use crate::{Boot, Vm, hex, registers};

/// The original's interrupts of the send and the receive queue, as the text prints them.
const INTERRUPTS: [&str; 2] = ["3c0", "3c1"];
/// Longer than anything that a batch printed.
const ROOM: usize = 4096;

/// Text of bounded length.
#[derive(Clone, Debug)]
pub struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Text {
    /// No text.
    pub const fn new() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// A separator, unless nothing stands before it.
    fn begin(&mut self) {
        if self.length > 0 {
            let _ = self.write_str(", ");
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        let into = self.bytes.get_mut(self.length..end).ok_or(core::fmt::Error)?;
        into.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Runs commands and collects what they print. `None`: this system lacks what one of them needs.
pub fn run<S: System>(
    system: &mut S,
    boot: &Boot,
    vm: Vm,
    commands: &str,
    text: &mut Text,
) -> Option<()> {
    *text = Text::new();
    for command in commands.split(", ") {
        let (name, arguments) = command.split_once(' ').unwrap_or((command, ""));
        one(system, boot, vm, (name, arguments), text)?;
    }
    Some(())
}

fn one<S: System>(
    system: &mut S,
    boot: &Boot,
    vm: Vm,
    (name, arguments): (&str, &str),
    text: &mut Text,
) -> Option<()> {
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let mut word = || words.next().map(hex::word);
    let _ = match name {
        "C" => {
            let call = call(system, boot, vm, word()? as u32, core::iter::from_fn(word))?;
            text.begin();
            write!(text, "c {:x} {:x} {:x} {:x}", call[0], call[1], call[2], call[3])
        }
        "W" => {
            let at = word()?;
            let mut bytes = [0; PACKET];
            let length = words.next().map_or(0, |digits| hex::bytes(digits, &mut bytes));
            system.write(vm, at, &bytes[..length]);
            Ok(())
        }
        "Y" => {
            (0..word()?).for_each(|_| system.wait(vm));
            Ok(())
        }
        "I" => acknowledge(system, vm, text),
        "L" | "l" => {
            let (at, value) = (word()?, word());
            let loaded = system.registers(vm, at, value)?;
            if value.is_none() {
                text.begin();
                write!(text, "l {loaded:x}")
            } else {
                Ok(())
            }
        }
        "K" | "k" => {
            let (at, value) = (word()?, word());
            access(system.access(vm, at, value)?, value, text)
        }
        "X" => words.enumerate().try_for_each(|(index, digits)| {
            let (error, room) = send(system, vm, digits);
            text.begin();
            write!(text, "x {index} {error:x} {}", u8::from(room))
        }),
        "N" => drain(system, vm, text),
        "Q" => {
            words.next();
            words.for_each(|digits| {
                send(system, vm, digits);
            });
            system.wait(vm);
            drain(system, vm, text)
        }
        _ => panic!("a command that means nothing: {name}"),
    };
    Some(())
}

/// Makes a hypercall. Registers that have no meaning afterwards come back as the original left them.
fn call<S: System>(
    system: &mut S,
    boot: &Boot,
    vm: Vm,
    instruction: u32,
    arguments: impl Iterator<Item = u64>,
) -> Option<Registers> {
    let theirs = filled(arguments);
    let (call, mut after) = make(system, boot, vm, instruction, &theirs)?;
    for (index, register) in after.iter_mut().enumerate().take(8) {
        if !call.defines(index) {
            *register = 0;
        }
    }
    Some(after)
}

/// Makes a hypercall with the original's registers. A register that still holds our capability or
/// address comes back with the original's.
pub fn make<S: System>(
    system: &mut S,
    boot: &Boot,
    vm: Vm,
    instruction: u32,
    theirs: &Registers,
) -> Option<(Call, Registers)> {
    let call = Call::decode(instruction, theirs);
    let mut ours = *theirs;
    let first = usize::from(!call.native);
    if call.number.is_some() {
        let own = |queue: &str| system.capability(queue);
        if let Some(id) = registers::capability(boot, vm, theirs[first], own) {
            ours[first] = id;
        }
        if let Some(index) = call.buffer() {
            ours[index] = system.address(vm, theirs[index]);
        }
    }
    let before = ours;
    if !system.hypercall(vm, &call, &mut ours) {
        return None;
    }
    for (index, register) in ours.iter_mut().enumerate() {
        if *register == before[index] {
            *register = theirs[index];
        }
    }
    Some((call, ours))
}

fn acknowledge<S: System>(system: &mut S, vm: Vm, text: &mut Text) -> core::fmt::Result {
    text.begin();
    write!(text, "i")?;
    // The one that was raised last was acknowledged first.
    for (index, name) in INTERRUPTS.iter().enumerate().rev() {
        if system.acknowledge(vm, index) {
            write!(text, " {name}")?;
        }
    }
    Ok(())
}

/// Prints an access as the original's guest did: whether it faulted, the value, and where.
fn access(access: Access, stored: Option<u64>, text: &mut Text) -> core::fmt::Result {
    text.begin();
    match access {
        Access::Done { value } => write!(text, "k 0 {:x}", stored.unwrap_or(value)),
        Access::Fault { at: Some((syndrome, address)) } => {
            write!(text, "k 1 {syndrome:x} {address:x}")
        }
        Access::Fault { at: None } => write!(text, "k 1"),
    }
}

fn send<S: System>(system: &mut S, vm: Vm, digits: &str) -> (i64, bool) {
    let mut packet = [0; PACKET];
    let length = hex::bytes(digits, &mut packet);
    system.send(vm, &packet[..length])
}

fn drain<S: System>(system: &mut S, vm: Vm, text: &mut Text) -> core::fmt::Result {
    let mut packet = [0; PACKET];
    while let Some(length) = system.receive(vm, &mut packet) {
        text.begin();
        write!(text, "p {}", hex::Hex(&packet[..length]))?;
    }
    Ok(())
}

/// Whether what was printed is what is expected. Of an access, the original printed old values of
/// what was not written; they are passed over, and so is where it faulted if the system cannot tell.
pub fn agrees(printed: &str, expected: &str) -> bool {
    if printed.is_empty() || expected.is_empty() {
        return printed.is_empty() && expected.is_empty();
    }
    printed.split(", ").count() == expected.split(", ").count()
        && printed.split(", ").zip(expected.split(", ")).all(|(ours, theirs)| line(ours, theirs))
}

fn line(ours: &str, theirs: &str) -> bool {
    let mut captured = theirs.split(' ');
    if captured.next() != Some("k") {
        return ours == theirs;
    }
    let (faulted, value) = (captured.next(), captured.next());
    let mut printed = ours.split(' ').skip(1);
    if printed.next() != faulted {
        return false;
    }
    match faulted {
        Some("0") => printed.next() == value,
        _ => printed.zip(captured).all(|(ours, theirs)| ours == theirs),
    }
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn only_what_an_access_tells_is_compared() {
        assert!(agrees("k 0 5555", "k 0 5555 96000010 90000000"));
        assert!(!agrees("k 0 5555", "k 0 5556 96000010 90000000"));
        assert!(!agrees("k 0 5555", "k 1 5555 96000010 90000000"));
        assert!(agrees("k 1", "k 1 77 96000010 60000000"));
        assert!(agrees("k 1 96000010 60000000", "k 1 77 96000010 60000000"));
        assert!(!agrees("k 1 96000010 60000008", "k 1 77 96000010 60000000"));
    }

    #[test]
    fn all_that_was_printed_counts() {
        assert!(agrees("c 0 1 0 0, i 3c1", "c 0 1 0 0, i 3c1"));
        assert!(!agrees("c 0 1 0 0", "c 0 1 0 0, i 3c1"));
        assert!(!agrees("c 0 1 0 0, i", "c 0 1 0 0, i 3c1"));
        assert!(agrees("", ""));
        assert!(!agrees("i", ""));
    }
}
