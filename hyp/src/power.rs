//! Starting CPUs and switching the machine off, by firmware or without.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::{self, barrier};
use rm::address::Pa;
use spin::Once;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use crate::board::{Board, Power};
use crate::mmio::{self, ReadWrite};
use crate::psci;
use crate::stage1::direct;

register_structs! {
    /// Power management of the BCM2711, as far as its watchdog goes (Linux,
    /// `drivers/watchdog/bcm2835_wdt.c`).
    Watchdog {
        (0x00 => _gap),
        (0x1c => reset_control: ReadWrite<u32>),
        (0x20 => reset_status: ReadWrite<u32>),
        (0x24 => watchdog: ReadWrite<u32>),
        (0x28 => @END),
    }
}

/// Every write to the watchdog's registers carries this.
const PASSWORD: u32 = 0x5a00_0000;
/// Reset control: what resets, and the whole machine.
const RESET_BY: u32 = 0x30;
const RESET_FULL: u32 = 0x20;
/// Reset status: "partition 63", on which the boot loader halts.
const HALT: u32 = 0x555;
/// Ticks until the watchdog acts, a fraction of a millisecond.
const SOON: u32 = 10;

static POWER: Once<Power> = Once::new();

/// Notes how the board is switched, before anything fails.
pub(crate) fn open(board: &Board) {
    POWER.call_once(|| board.power);
}

/// Why a CPU was not started.
#[derive(Debug)]
pub(crate) enum Error {
    /// What firmware says.
    Firmware(#[expect(dead_code, reason = "shown by Debug")] smccc::psci::Error),
    /// The board's table has no word for it.
    NoRelease,
}

/// Starts CPU `index` at a physical address, at EL2 with the MMU off.
///
/// X0 holds the index when firmware starts it. From a table it comes without, and finds its index by its
/// affinity.
pub(crate) fn start_cpu(board: &Board, index: usize, entry: Pa) -> Result<(), Error> {
    match board.power {
        Power::Psci => psci::cpu_on(board.cpus[index], entry, index).map_err(Error::Firmware),
        Power::SpinTable { release, .. } => {
            let word = *release.get(index).ok_or(Error::NoRelease)?;
            // SAFETY: the board says that the CPU's word lies there, in a range that it has mapped as a device.
            let slot = unsafe { &*direct(word).cast::<AtomicU64>() };
            // Mapped as a device: the CPU looks past the caches, and so must this.
            slot.store(entry.0, Ordering::Relaxed);
            barrier::dsb(barrier::SY);
            asm::sev();
            Ok(())
        }
    }
}

/// Switches the machine off.
pub(crate) fn off() -> ! {
    match POWER.get() {
        Some(Power::SpinTable { watchdog, .. }) => off_by_watchdog(*watchdog),
        Some(Power::Psci) => psci::system_off(),
        None => stop(),
    }
}

fn off_by_watchdog(at: Pa) -> ! {
    // SAFETY: the board names these registers, and nobody else uses them.
    let registers: &Watchdog = unsafe { mmio::registers(at) };
    let status = registers.reset_status.get();
    registers.reset_status.set(PASSWORD | status | HALT);
    registers.watchdog.set(PASSWORD | SOON);
    let control = registers.reset_control.get() & !RESET_BY;
    registers.reset_control.set(PASSWORD | control | RESET_FULL);
    stop()
}

fn stop() -> ! {
    loop {
        asm::wfe();
    }
}
