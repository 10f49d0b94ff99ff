//! `cargo run -- list` and `cargo run -- --example`: which scenarios and examples there are.

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

/// Prints name and meaning of every example.
pub fn examples() -> Result<ExitCode> {
    for (name, scenario) in scenario::examples() {
        println!("{name:<26}{}", scenario.about);
    }
    Ok(ExitCode::SUCCESS)
}
