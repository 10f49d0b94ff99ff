//! `cargo run -- list`: which scenarios there are.

use std::process::ExitCode;

use anyhow::Result;

use crate::scenario;

/// Prints name and meaning of every scenario.
pub fn run() -> Result<ExitCode> {
    for scenario in scenario::all().chain(scenario::console::BY_HAND) {
        println!("{:<26}{}", scenario.name, scenario.about);
    }
    Ok(ExitCode::SUCCESS)
}
