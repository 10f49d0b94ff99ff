//! QEMU for aarch64.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Tools, debian, output};
use crate::print::progress;

const PROGRAM: &str = "qemu-system-aarch64";
/// Major and minor version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// The oldest that is known to work. It lacks boards, and CPU features that `max` has since 8.
    pub(super) const OLDEST: Self = Self { major: 7, minor: 2 };

    /// Out of `QEMU emulator version 10.0.2 (...)`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}.{}", self.major, self.minor)
    }
}

/// The QEMU on the path, if it is new enough.
pub(super) fn find() -> Result<Tools> {
    let text = output(Command::new(PROGRAM).arg("--version"))
        .with_context(|| format!("{PROGRAM} is not installed; {}", advice()))?;
    let version = Version::parse(&text).with_context(|| format!("{PROGRAM} says {text:?}"))?;
    if version < Version::OLDEST {
        bail!("{version} is too old, {} is needed; {}", Version::OLDEST, advice());
    }
    let models = output(Command::new(PROGRAM).args(["-M", "help"])).unwrap_or_default();
    Ok(Tools { qemu: PathBuf::from(PROGRAM), version, models: models_in(&models) })
}

/// The names out of `-M help`, which has one line for each under a title.
fn models_in(help: &str) -> BTreeSet<String> {
    let lines = help.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    lines.map(str::to_owned).collect()
}

pub(super) fn ensure() -> Result<Tools> {
    find().or_else(|missing| {
        if !debian::may_install() {
            return Err(missing);
        }
        progress("Installing", "QEMU by apt (once)");
        debian::install_qemu().context(missing)?;
        find()
    })
}

/// Brings a QEMU that has all these models, if there is one to be had.
pub(super) fn ensure_models(wanted: &BTreeSet<&str>) -> Result<Tools> {
    let tools = ensure()?;
    let lacks = |tools: &Tools| {
        let missing = wanted.iter().filter(|model| !tools.models.contains(**model));
        missing.copied().collect::<Vec<_>>().join(", ")
    };
    if lacks(&tools).is_empty() {
        return Ok(tools);
    }
    let reason = format!("{} has no {}", tools.version, lacks(&tools));
    if !debian::may_install() {
        bail!("{reason}; install a newer one (10.0 has all)");
    }
    progress("Installing", &format!("a newer QEMU by apt: {reason}"));
    debian::install_qemu().context(reason)?;
    let tools = find()?;
    let still = lacks(&tools);
    anyhow::ensure!(still.is_empty(), "{} from apt has no {still}; 10.0 has all", tools.version);
    Ok(tools)
}

fn advice() -> &'static str {
    match std::env::consts::OS {
        "macos" => "type: brew install qemu",
        _ if debian::is_debian() => "type: sudo apt-get install qemu-system-arm",
        _ => "install your system's package of QEMU for Arm, for example qemu-system-aarch64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let ten = Version::parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n").unwrap();
        assert_eq!(ten, Version { major: 10, minor: 0 });
        assert!(ten > Version::OLDEST);
        assert!(Version::parse("QEMU emulator version 7.1.9").unwrap() < Version::OLDEST);
        assert_eq!(Version::parse("command not found"), None);
    }

    #[test]
    fn models_are_the_first_words_of_the_lines() {
        let help = "Supported machines are:\nraspi4b              Raspberry Pi 4B\n\
                    virt                 QEMU 10.0 ARM Virtual Machine (alias of virt-10.0)\n";
        let models: Vec<_> = models_in(help).into_iter().collect();
        assert_eq!(models, ["raspi4b", "virt"]);
    }
}
