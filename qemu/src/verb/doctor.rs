//! `cargo run -- doctor`: is everything there that a build and a run need?

use std::process::ExitCode;

use anyhow::Result;

/// Installs what can be installed and reports all of it. With `all_boards` a QEMU that lacks a board is
/// not good enough.
pub fn run(all_boards: bool) -> Result<ExitCode> {
    let installed = match all_boards {
        true => crate::doctor::ensure_all_models(),
        false => crate::doctor::ensure(),
    };
    let report = crate::doctor::report();
    let there = if report.iter().all(|(_, found)| found.is_ok()) { "all" } else { "enough" };
    for (what, found) in report {
        match found {
            Ok(version) => println!("{what:>16}  {version}"),
            Err(missing) => println!("{what:>16}  missing: {missing}"),
        }
    }
    installed?;
    println!("{:>16}  type `cargo run` to see the demo", format!("{there} is there:"));
    Ok(ExitCode::SUCCESS)
}
