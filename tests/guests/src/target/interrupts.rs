//! The virtual GIC and timer as a guest expects them.
//!
//! Cast: one VM. Nothing here asks for a hypervisor: it passes on the bare machine as well.

use crate::gic::{SPI_RX, SPI_TX};
use crate::{cpu, gic, timer};

/// Microseconds after which an interrupt that should come counts as lost.
const LOST: u64 = 2_000_000;
/// Microseconds in which one that should not come would.
const QUIET: u64 = 2_000;

/// The program.
pub fn main() {
    gic::enable();
    cpu::unmask_interrupts();
    software_interrupts_arrive();
    the_timer_interrupts_once_it_is_unmasked();
    a_masked_cpu_is_not_interrupted_but_woken();
    for interrupt in [SPI_TX, SPI_RX] {
        an_spi_arrives_when_it_is_made_pending(interrupt);
    }
    the_more_urgent_interrupt_comes_first();
    the_priority_mask_keeps_interrupts_away();
    a_storm_of_timer_interrupts_loses_none();
}

/// Waits until `interrupt` was taken `times` times.
fn expect_taken(interrupt: u32, times: u32) {
    let start = cpu::now();
    while gic::taken(interrupt) < times {
        let late = cpu::passed(start, timer::microseconds(LOST));
        assert!(!late, "interrupt {interrupt} was taken {} times", gic::taken(interrupt));
    }
    assert!(gic::taken(interrupt) == times, "interrupt {interrupt} came too often");
}

/// Waits long enough to see that `interrupt` is not taken.
fn expect_quiet(interrupt: u32) {
    let (start, before) = (cpu::now(), gic::taken(interrupt));
    while !cpu::passed(start, timer::microseconds(QUIET)) {}
    assert!(gic::taken(interrupt) == before, "interrupt {interrupt} came although it was masked");
}

fn software_interrupts_arrive() {
    gic::unmask(1);
    gic::send(1, cpu::index() as u64);
    expect_taken(1, 1);
    println!("a software interrupt to myself arrives");
}

fn the_timer_interrupts_once_it_is_unmasked() {
    timer::after(timer::microseconds(100));
    expect_quiet(timer::INTERRUPT);
    gic::unmask(timer::INTERRUPT);
    expect_taken(timer::INTERRUPT, 1);
    gic::mask(timer::INTERRUPT);
    timer::after(0);
    expect_quiet(timer::INTERRUPT);
    timer::stop();
    gic::unmask(timer::INTERRUPT);
    expect_quiet(timer::INTERRUPT);
    println!("the timer interrupts when it is unmasked, and not otherwise");
}

fn a_masked_cpu_is_not_interrupted_but_woken() {
    let before = gic::taken(timer::INTERRUPT);
    cpu::mask_interrupts();
    let start = cpu::now();
    timer::after(timer::microseconds(3_000));
    while !cpu::passed(start, timer::microseconds(3_000)) {
        cpu::wait_for_interrupt();
    }
    expect_quiet(timer::INTERRUPT);
    cpu::unmask_interrupts();
    expect_taken(timer::INTERRUPT, before + 1);
    println!("WFI wakes for an interrupt that is masked in the CPU");
}

fn an_spi_arrives_when_it_is_made_pending(interrupt: u32) {
    gic::pend(interrupt);
    expect_quiet(interrupt);
    assert!(gic::is_pending(interrupt), "interrupt {interrupt} is not pending");
    gic::unpend(interrupt);
    assert!(!gic::is_pending(interrupt), "interrupt {interrupt} is still pending");
    gic::unmask(interrupt);
    expect_quiet(interrupt);
    gic::pend(interrupt);
    expect_taken(interrupt, 1);
    gic::mask(interrupt);
    gic::pend(interrupt);
    expect_quiet(interrupt);
    gic::unmask(interrupt);
    expect_taken(interrupt, 2);
    println!("SPI {interrupt} is pended, taken back, masked and unmasked");
}

fn the_more_urgent_interrupt_comes_first() {
    for (first, second) in [(SPI_TX, SPI_RX), (SPI_RX, SPI_TX)] {
        let taken = [gic::taken(first), gic::taken(second)];
        cpu::mask_interrupts();
        gic::set_priority(first, 0x20);
        gic::set_priority(second, 0xa0);
        gic::pend(second);
        gic::pend(first);
        cpu::unmask_interrupts();
        expect_taken(first, taken[0] + 1);
        expect_taken(second, taken[1] + 1);
        let order = [gic::last_taken(1), gic::last_taken(0)];
        assert!(order == [first, second], "taken in the order {order:?}");
    }
    println!("of two pending interrupts the more urgent one comes first");
}

fn the_priority_mask_keeps_interrupts_away() {
    let before = gic::taken(SPI_TX);
    gic::set_priority(SPI_TX, 0xa0);
    gic::set_priority_mask(0x80);
    gic::pend(SPI_TX);
    expect_quiet(SPI_TX);
    gic::set_priority_mask(0xff);
    expect_taken(SPI_TX, before + 1);
    println!("the priority mask keeps a less urgent interrupt away");
}

fn a_storm_of_timer_interrupts_loses_none() {
    let before = gic::taken(timer::INTERRUPT);
    for count in 1..=200 {
        timer::after(timer::microseconds(10));
        expect_taken(timer::INTERRUPT, before + count);
    }
    println!("200 timer interrupts came, one for each time that it was set");
}
