//! `cargo bench`
use anyhow::Result;
use std::process::ExitCode;
/// x
pub fn run() -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
