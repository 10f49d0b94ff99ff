//! The end of a run: the verdict, then the exit code or the power switch.

use crate::{log, power, semihosting};

/// How a run ends. The numbers are QEMU's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// All went well.
    Pass = 0,
    /// A check failed.
    Fail = 1,
    /// EL2 took an exception of its own.
    Exception = 3,
    /// EL2 panicked.
    Panic = 101,
}

/// Writes the log and the verdict and ends the machine.
pub fn exit(how: Exit, reason: &str) -> ! {
    log::close();
    end(how, reason)
}

/// As [`exit`], without waiting for other CPUs.
pub(crate) fn end(how: Exit, reason: &str) -> ! {
    log::verdict(how == Exit::Pass, reason);
    if log::hlt_allowed() {
        semihosting::exit(how as u32);
    }
    power::off()
}
