//! `cargo run -- doctor`: is everything there that a build and a run need?

use std::process::ExitCode;

use anyhow::Result;

/// Installs what can be installed and reports all of it.
pub fn run() -> Result<ExitCode> {
    let installed = crate::doctor::ensure();
    for (what, found) in crate::doctor::report() {
        match found {
            Ok(version) => println!("{what:>16}  {version}"),
            Err(missing) => println!("{what:>16}  missing: {missing}"),
        }
    }
    installed?;
    println!("{:>16}  type `cargo run` to see the demo", "all is there:");
    Ok(ExitCode::SUCCESS)
}
