//! A VM's console between its guest, the log, the keyboard and the interrupt controller.
//!
//! A line that stands unfinished is shown when a vCPU of the VM waits, or else by the timer of the CPU
//! on which it was begun. The parts of a line go through that CPU's ring, so they keep their order as
//! long as the VM prints on one CPU at a time.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::mutex::SpinMutex;

use super::Vm;
use crate::console::{Console, Input, Line, Time};
use crate::vgic::{self, VcpuSet};
use crate::{schedule, timer};

/// An unfinished line stands for a fiftieth of a second before it is shown.
const PATIENCE: u64 = 50;
/// When there is nothing to show.
const NEVER: u64 = u64::MAX;

/// A console, and when its unfinished line is to be shown.
pub(super) struct Terminal {
    console: SpinMutex<Console, crate::Relax>,
    due: AtomicU64,
}

impl Terminal {
    pub(super) const fn new() -> Self {
        Self { console: SpinMutex::new(Console::new()), due: AtomicU64::new(NEVER) }
    }
}

impl Vm {
    /// A guest's access to the register page.
    pub(super) fn console(&self, offset: u64, write: Option<u64>) -> u64 {
        self.with_console(|console, time| match write {
            Some(value) => (0, console.write(offset, value, time)),
            None => (console.read(offset), None),
        })
    }

    /// A byte of the keyboard for the VM.
    pub(crate) fn type_in(&self, byte: u8) -> Input {
        self.with_console(|console, _| (console.receive(byte), None))
    }

    /// When the unfinished line is to be shown.
    #[inline]
    pub(crate) fn line_due(&self) -> Option<u64> {
        Some(self.terminal.due.load(Ordering::Relaxed)).filter(|&due| due != NEVER)
    }

    /// Shows the unfinished line, if there is one.
    #[inline]
    pub(crate) fn show_line(&self) {
        if self.line_due().is_some() {
            self.with_console(|console, time| ((), console.part(time)));
        }
    }

    /// Ends the line of the VM, which has ended.
    pub(super) fn close_line(&self) {
        self.with_console(|console, time| ((), console.close(time)));
    }

    /// A new console for a new life. Nothing of the VM runs.
    pub(super) fn reset_console(&self) {
        *self.terminal.console.lock() = Console::new();
    }

    fn with_console<T>(&self, action: impl FnOnce(&mut Console, Time) -> (T, Option<Line>)) -> T {
        let time = Time { now: timer::now(), frequency: timer::frequency() };
        let mut console = self.terminal.console.lock();
        let (value, line) = action(&mut console, time);
        // Under the lock, so that the controller hears of changes in their order.
        if let Some(high) = console.line_change() {
            let vcpus = self.vgic.set_line(self.machine(), vgic::CONSOLE, high);
            self.kick_others(vcpus);
        }
        let was_due = self.terminal.due.load(Ordering::Relaxed);
        let due = match console.is_waiting() {
            false => NEVER,
            true if time.now < was_due && was_due != NEVER => was_due,
            true => time.now + time.frequency / PATIENCE,
        };
        self.terminal.due.store(due, Ordering::Relaxed);
        drop(console);
        if due != was_due {
            schedule::rearm();
        }
        if let Some(line) = line {
            self.print(&line);
        }
        value
    }

    fn print(&self, line: &Line) {
        if line.dropped > 0 {
            defmt::warn!("{=str}: {=u32} lines were dropped", self.name(), line.dropped);
        }
        // The host tool takes the name in brackets for the sender, and a plus for a line that goes on.
        if line.part {
            defmt::info!("[{=str}]+{=str}", self.name(), line.text.as_str());
        } else {
            defmt::info!("[{=str}] {=str}", self.name(), line.text.as_str());
        }
    }

    /// Makes the CPUs of these vCPUs look around, but for the one that is loaded here: its interrupts
    /// are brought up to date on its way back into the guest.
    pub(super) fn kick_others(&self, vcpus: VcpuSet) {
        self.kick(match schedule::loaded() {
            Some(vcpu) if vcpu.vm().index() == self.index => vcpus.without(vcpu.index()),
            _ => vcpus,
        });
    }
}
