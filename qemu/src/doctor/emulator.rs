//! QEMU for aarch64.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Tools, debian, output};
use crate::print::progress;

const PROGRAM: &str = "qemu-system-aarch64";
/// The oldest that is known to work. It lacks CPU features that `max` has since 8, not more.
const OLDEST: Version = Version { major: 7, minor: 2 };

/// Major and minor version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
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
    if version < OLDEST {
        bail!("{version} is too old, {OLDEST} is needed; {}", advice());
    }
    Ok(Tools { qemu: PathBuf::from(PROGRAM), version })
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
        assert!(ten > OLDEST);
        assert!(Version::parse("QEMU emulator version 7.1.9").unwrap() < OLDEST);
        assert_eq!(Version::parse("command not found"), None);
    }
}
