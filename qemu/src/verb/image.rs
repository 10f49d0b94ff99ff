//! `cargo run -- image`: writes the boot image to a file.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{monitor, set_up};
use crate::build::Profile;
use crate::print::progress;
use crate::scenario;

/// Writes the image of a scenario, as firmware loads it.
pub fn run(name: &str, output: &Path) -> Result<ExitCode> {
    let scenario = scenario::named(name)?;
    let (_, programs) = set_up(Profile::Image)?;
    let image = crate::image::compose(scenario, &programs)?;
    fs::write(output, &image.bytes)
        .with_context(|| format!("cannot write {}", output.display()))?;
    monitor::remember(programs.path(scenario.program.name())?)?;
    let size = image.bytes.len() / 1024;
    progress("Wrote", &format!("{} ({size} KiB, nonce {})", output.display(), image.nonce));
    Ok(ExitCode::SUCCESS)
}
