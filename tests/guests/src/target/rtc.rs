//! A device that the VM drives itself: a real-time clock (PL031) with an alarm.
//!
//! Cast: this program, with the machine's clock passed through at [`CLOCK`] and its interrupt as
//! [`INTERRUPT`]; and a VM without it, which faults where the clock would be ([`stranger`]).

use crate::layout::{CLOCK, CLOCK_INTERRUPT as INTERRUPT};
use crate::memory::{read32, write32};
use crate::{cpu, gic, probe, timer};

/// Registers of the PL031 (DDI 0224C, 3.2): seconds, alarm, mask, raw state, clear.
const SECONDS: u64 = CLOCK;
const ALARM: u64 = CLOCK + 0x4;
const MASK: u64 = CLOCK + 0x10;
const RAW: u64 = CLOCK + 0x14;
const CLEAR: u64 = CLOCK + 0x1c;
/// Peripheral ID 0 and 1 of a PL031.
const ID: u64 = CLOCK + 0xfe0;

/// Microseconds after which an alarm that should come counts as lost.
const LOST: u64 = 20_000_000;
/// Microseconds in which one that should not come would.
const QUIET: u64 = 20_000;

/// The program.
pub fn main() {
    let part = read32(ID) | read32(ID + 4) << 8;
    assert!(part & 0xfff == 0x031, "part number {part:#x}");
    gic::enable();
    gic::unmask(INTERRUPT);
    write32(MASK, 1);
    for round in 0..2 {
        set_alarm();
        let slept = sleep_until_it_rings();
        assert!(read32(RAW) == 1, "it rings without a reason");
        // The line is high until the alarm is cleared, so the interrupt comes again. QEMU's GICv2 looks at a
        // line again only when something else happens (10.0, `hw/intc/arm_gic.c`, `gic_deactivate_irq`).
        assert!(
            gic::is_v2() || wait(QUIET) == Some(INTERRUPT),
            "the line is high and nothing comes"
        );
        write32(CLEAR, 1);
        // One more may have been on its way.
        let _ = wait(QUIET);
        expect_quiet();
        println!("alarm {round} rang while I slept ({slept} naps), and ended when I cleared it");
    }
    gic::mask(INTERRUPT);
    set_alarm();
    while read32(RAW) == 0 {}
    expect_quiet();
    gic::unmask(INTERRUPT);
    assert!(wait(QUIET) == Some(INTERRUPT), "an alarm that was masked does not come later");
    write32(CLEAR, 1);
    println!("a masked alarm waited");
}

/// The program of a VM that has no clock.
pub fn stranger() {
    let outcome = probe::read(SECONDS);
    assert!(outcome.is_err(), "I can read a clock that is not mine: {outcome:x?}");
    println!("there is no clock for me");
}

fn set_alarm() {
    write32(ALARM, read32(SECONDS) + 1);
}

/// Sleeps until the interrupt is acknowledged; how often this VM woke.
fn sleep_until_it_rings() -> u32 {
    let start = cpu::now();
    let mut naps = 0;
    loop {
        cpu::wait_for_interrupt();
        naps += 1;
        match gic::acknowledge() {
            Some(INTERRUPT) => return naps,
            Some(other) => panic!("interrupt {other}"),
            None => assert!(!cpu::passed(start, timer::microseconds(LOST)), "the alarm is lost"),
        }
    }
}

fn expect_quiet() {
    let came = wait(QUIET);
    assert!(came.is_none(), "interrupt {came:?} although nothing rings");
}

/// Polls for an interrupt.
fn wait(microseconds: u64) -> Option<u32> {
    let start = cpu::now();
    loop {
        let came = gic::acknowledge();
        if came.is_some() || cpu::passed(start, timer::microseconds(microseconds)) {
            return came;
        }
    }
}
