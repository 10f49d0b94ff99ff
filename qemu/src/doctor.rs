//! What a build needs beyond cargo: the compiler's target and QEMU. Found, or installed, or named
//! together with the one command that installs it.
//!
//! Looking takes a tenth of a second, so every run does it first. Installing happens only where it
//! is harmless: into the toolchain that is already this workspace's, and on Debian as root by apt.

mod debian;
mod emulator;
mod target;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

pub use emulator::Version;

/// What was found.
#[derive(Clone, Debug)]
pub struct Tools {
    /// QEMU for aarch64.
    pub qemu: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Finds or installs everything; says what it installs on standard error.
pub fn ensure() -> Result<Tools> {
    target::ensure()?;
    emulator::ensure()
}

/// Finds or installs what a build needs, for who runs nothing here.
pub fn ensure_target() -> Result<()> {
    target::ensure()
}

/// One line for each thing that is needed, installed or not.
pub fn report() -> Vec<(&'static str, Result<String>)> {
    vec![("compiler target", target::find()), ("QEMU", emulator::find().map(describe))]
}

fn describe(tools: Tools) -> String {
    format!("{} ({})", tools.version, tools.qemu.display())
}

/// What a command prints, if it can be run and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
