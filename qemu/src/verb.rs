//! What a user types: one file each.

pub mod bench;
pub mod check;
pub mod coverage;
pub mod doctor;
pub mod flash;
pub mod fuzz;
pub mod image;
pub mod list;
pub mod map;
pub mod miri;
pub mod monitor;
pub mod mutate;
pub mod run;

use std::path::PathBuf;

use anyhow::Result;

use crate::build::{self, Profile, Programs, workspace};
use crate::doctor::Tools;

/// Brings everything that a run needs: tools, then programs.
fn set_up(profile: Profile) -> Result<(Tools, Programs)> {
    let tools = crate::doctor::ensure()?;
    let programs = build::programs(profile)?;
    Ok((tools, programs))
}

/// Brings what is put on a board, for which no emulator is needed.
fn programs(profile: Profile) -> Result<Programs> {
    crate::doctor::ensure_target()?;
    build::programs(profile)
}

/// The folder of cargo's target directory that holds a run's files.
fn directory(programs: &Programs, name: &str) -> PathBuf {
    let target = programs.target_directory().map(ToOwned::to_owned);
    target.unwrap_or_else(|| workspace().join("target")).join("qemu").join(name)
}
