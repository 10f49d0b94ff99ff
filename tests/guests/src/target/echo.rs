//! A VM with a keyboard: it sleeps until its console interrupts, and answers line by line.
//!
//! Cast: this program once in each VM. It greets who gives a name, stops reading for a while at `doze`,
//! and ends at `quit`.

use crate::demo::granted;
use crate::layout::{CONSOLE, VMID_A};
use crate::memory::{read32, write32};
use crate::{console, cpu, gic, life, timer};

// Registers of the PL011, and their bits.
const DATA: u64 = CONSOLE;
const STATUS: u64 = CONSOLE + 0x04;
const STATUS_OVERRUN: u32 = 1 << 3;
const FLAGS: u64 = CONSOLE + 0x18;
const FULL: u32 = 1 << 6;
const EMPTY: u32 = 1 << 4;
const LINE: u64 = CONSOLE + 0x2c;
const EIGHT_BITS_AND_FIFOS: u32 = 0x70;
const MASK: u64 = CONSOLE + 0x38;
const RAW: u64 = CONSOLE + 0x3c;
const SIGNALLED: u64 = CONSOLE + 0x40;
const CLEAR: u64 = CONSOLE + 0x44;
/// Something was received: a FIFO half full, or less and nothing more for a while.
const RECEIVED: u32 = 1 << 4 | 1 << 6;
/// The transmitter has room.
const SENT: u32 = 1 << 5;
/// Something was lost.
const OVERRUN: u32 = 1 << 10;

/// What the VM with the lowest VMID calls itself.
const FIRST: &str = "first";
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
/// Longest line.
const LONGEST: usize = 64;
/// Microseconds after which an interrupt that should come counts as lost.
const LOST: u64 = 2_000_000;

/// The program of a VM that sleeps until its console interrupts.
pub fn main() {
    gic::enable();
    gic::unmask(gic::SPI_CONSOLE);
    write32(LINE, EIGHT_BITS_AND_FIFOS);
    what_is_sent_interrupts();
    let me = who_am_i();
    write32(MASK, RECEIVED);
    if me == FIRST {
        prompt(me, "press a key");
        a_prompt_is_seen_while_its_vm_spins();
    }
    answer(me, || {
        // Interrupts are masked in the CPU, and end the wait nevertheless.
        cpu::wait_for_interrupt();
        gic::acknowledge().is_some()
    });
}

/// The program of a VM that asks again and again, for a machine on which no VM is interrupted.
pub fn polling() {
    write32(LINE, EIGHT_BITS_AND_FIFOS);
    answer(who_am_i(), || {
        cpu::relax();
        true
    });
}

fn who_am_i() -> &'static str {
    let vmid = granted("asking who I am", life::session().vmid());
    if vmid.0 == VMID_A { FIRST } else { "second" }
}

/// Answers line by line. `wait` says whether to look at the console.
fn answer(me: &str, wait: fn() -> bool) {
    loop {
        prompt(me, "your name");
        let mut line = [0; LONGEST];
        let length = read_line(&mut line, wait);
        match core::str::from_utf8(&line[..length]) {
            Ok("quit") => return,
            Ok("doze") => doze(),
            Ok(name) => println!("hello {name}, says the {me} VM"),
            Err(_) => println!("that is no text, says the {me} VM"),
        }
    }
}

fn prompt(me: &str, what: &str) {
    use core::fmt::Write;
    // The console cannot fail.
    let _ = write!(console::Console, "{me} VM: {what}? ");
}

/// The transmitter interrupts once it has room again, and not when nothing was sent.
fn what_is_sent_interrupts() {
    write32(CLEAR, !0);
    write32(MASK, SENT);
    assert!(gic::acknowledge().is_none(), "nothing was sent");
    println!("I am awake");
    expect_interrupt();
    assert!(read32(SIGNALLED) == SENT);
    // It stays until it is cleared.
    expect_interrupt();
    write32(CLEAR, SENT);
    assert!(gic::acknowledge().is_none(), "it was cleared");
}

fn expect_interrupt() {
    let start = cpu::now();
    loop {
        match gic::acknowledge() {
            Some(gic::SPI_CONSOLE) => return,
            Some(other) => panic!("interrupt {other}"),
            None => assert!(!cpu::passed(start, timer::microseconds(LOST)), "no interrupt"),
        }
    }
}

/// Waits for a key without an instruction that EL2 sees.
fn a_prompt_is_seen_while_its_vm_spins() {
    while crate::read_register!("isr_el1") == 0 {}
    expect_interrupt();
    let key = read().expect("a key was pressed");
    assert!(read().is_none() && gic::acknowledge().is_none(), "the line is low when all is read");
    console::put(key);
    println!();
}

/// Reads nothing until bytes were lost, and notices that they were.
fn doze() {
    println!("I doze");
    while read32(RAW) & OVERRUN == 0 {
        cpu::relax();
    }
    assert!(read32(STATUS) == STATUS_OVERRUN && read32(FLAGS) & FULL != 0);
    write32(STATUS, 0);
    write32(CLEAR, OVERRUN);
    while read().is_some() {}
    println!("I was overrun");
}

/// Waits until a line was typed, which it echoes. Gives its length.
fn read_line(line: &mut [u8; LONGEST], wait: fn() -> bool) -> usize {
    let mut length = 0;
    loop {
        if !wait() {
            continue;
        }
        while let Some(key) = read() {
            match key {
                b'\r' | b'\n' => {
                    println!();
                    return length;
                }
                BACKSPACE | DELETE if length > 0 => {
                    length -= 1;
                    [BACKSPACE, b' ', BACKSPACE].into_iter().for_each(console::put);
                }
                BACKSPACE | DELETE => {}
                key if length < LONGEST => {
                    line[length] = key;
                    length += 1;
                    console::put(key);
                }
                _ => {}
            }
        }
    }
}

fn read() -> Option<u8> {
    (read32(FLAGS) & EMPTY == 0).then(|| read32(DATA) as u8)
}
