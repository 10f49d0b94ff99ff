//! What a build needs beyond cargo: the compiler's target and QEMU. Found, or installed, or named
//! together with the one command that installs it.
//!
//! Looking takes a tenth of a second, so every run does it first. Installing happens only where it
//! is harmless: into the toolchain that is already this workspace's, and on Debian as root by apt.

mod debian;
mod emulator;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};

pub use emulator::Version;

use crate::machine::Machine;
use crate::print::progress;
use crate::scenario;

/// What was found.
#[derive(Clone, Debug)]
pub struct Tools {
    /// QEMU for aarch64.
    pub qemu: PathBuf,
    /// Its version.
    pub version: Version,
    /// The machines that it models.
    models: BTreeSet<String>,
}

impl Tools {
    /// Why this machine cannot be run, if so.
    pub fn lacks(&self, machine: &Machine) -> Option<String> {
        let model = machine.model();
        (!self.models.contains(model)).then(|| format!("{} has no {model}", self.version))
    }
}

/// Finds or installs everything; says what it installs on standard error.
pub fn ensure() -> Result<Tools> {
    target::ensure()?;
    emulator::ensure()
}

/// Finds or installs everything, with a QEMU that has a model of each board that scenarios run on.
pub fn ensure_all_models() -> Result<Tools> {
    target::ensure()?;
    emulator::ensure_models(&scenario::all().map(|scenario| scenario.machine.model()).collect())
}

/// Finds or installs what a build needs, for who runs nothing here.
pub fn ensure_target() -> Result<()> {
    target::ensure()
}

/// Finds or installs a compiler of C++, for who fuzzes.
pub fn ensure_cxx() -> Result<()> {
    let name = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let is_there = || output(Command::new(&name).arg("--version")).is_some();
    if !is_there() && debian::may_install() {
        progress("Installing", "a C++ compiler by apt (once)");
        debian::install_cxx()?;
    }
    ensure!(
        is_there(),
        "there is no {name}, which libFuzzer is compiled by; on Debian type: sudo apt-get install g++"
    );
    Ok(())
}

/// One line for each thing that is needed, installed or not, and for each board.
pub fn report() -> Vec<(&'static str, Result<String>)> {
    let tools = emulator::find();
    let machines: BTreeMap<_, _> =
        scenario::all().map(|scenario| (scenario.machine.board.name(), scenario.machine)).collect();
    let boards: Vec<_> = machines
        .into_iter()
        .filter_map(|(name, machine)| Some((name, model(tools.as_ref().ok()?, &machine))))
        .collect();
    let mut lines = vec![("compiler target", target::find()), ("QEMU", tools.map(describe))];
    lines.extend(boards);
    lines
}

/// Which model of QEMU's is a board.
fn model(tools: &Tools, machine: &Machine) -> Result<String> {
    match tools.lacks(machine) {
        Some(reason) => bail!("{reason}, so its scenarios are skipped; 10.0 has all boards"),
        None => Ok(format!("{} of QEMU", machine.model())),
    }
}

fn describe(tools: Tools) -> String {
    format!("{} ({})", tools.version, tools.qemu.display())
}

/// What a command prints, if it can be run and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use package::Board;

    use super::*;

    #[test]
    fn an_old_qemu_is_told_by_the_boards_that_it_lacks() {
        let models = ["virt", "xlnx-zcu102"].map(str::to_owned).into();
        let tools = Tools { qemu: "qemu".into(), version: Version::OLDEST, models };
        assert_eq!(tools.lacks(&Machine::of(Board::ZCU102)), None);
        let reason = tools.lacks(&Machine::of(Board::RPI4)).unwrap();
        assert_eq!(reason, "QEMU 7.2 has no raspi4b");
        assert!(model(&tools, &Machine::of(Board::RPI4)).is_err());
        assert_eq!(model(&tools, &Machine::TESTS).unwrap(), "virt of QEMU");
    }
}
