//! `cargo run -- miri`: tests of `rm` and `rm-abi` under Miri, the interpreter that notices undefined behaviour.
//!
//! `rm` has no `unsafe` of its own, but it runs over types whose safety others have argued (its lock, its vectors,
//! its atomics), and Miri sees data races, too. An interpreter is a thousand times slower than what is compiled, and
//! most tests over the strict fake take it minutes: what is run are the tests of parts, two of doorbells over small worlds,
//! and the example of an embedder, which carries a lend over a machine of its own from the boot to the reclaim. Miri is in nightly compilers only.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::workspace;
use crate::print::progress;

/// Tests that are run: package, program, and what their names contain.
const TESTS: [(&str, &str, &[&str]); 5] = [
    ("rm-abi", "--lib", &[]),
    // Of random bytes only so many.
    ("rm-abi", "--test=any_bytes", &[]),
    ("rm", "--test=embed", &[]),
    ("rm", "--test=doorbells", &["a_reset_clears", "flags_are_joined"]),
    (
        "rm",
        "--lib",
        &[
            "machine::fake::",
            "frame_pool::",
            "link::queue::",
            "quota::",
            "memparcel::holes::",
            "memparcel::extents::",
            "stage2::tests::bits::",
        ],
    ),
];
/// How many cases a property has here.
const CASES: u32 = 4;
/// Files and clocks of the host are not there, which makes a run the same every time. What a test's world is made of
/// lives until the end of the process, as at EL2, and is not a leak.
const FLAGS: &str = "-Zmiri-isolation-error=hide -Zmiri-ignore-leaks";
const INSTALL: [&str; 7] =
    ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];

/// Runs the tests.
pub fn run() -> Result<ExitCode> {
    if !is_there() {
        progress("Installing", "a nightly compiler with Miri (once)");
        let added = Command::new("rustup").args(INSTALL).status();
        ensure!(
            added.is_ok_and(|status| status.success()) && is_there(),
            "Miri is missing; type: rustup {}",
            INSTALL.join(" ")
        );
    }
    for (package, program, names) in TESTS {
        progress("Testing", &format!("{package} {program}"));
        let mut tests = miri();
        tests.args(["test", "--quiet", "--package", package, program, "--"]).args(names);
        tests.env("CARGO_TARGET_DIR", workspace().join("target/miri"));
        tests.env("MIRIFLAGS", format!("{FLAGS} -Zmiri-env-set=PROPTEST_CASES={CASES}"));
        // A backtrace that is not printed would be most of the work of a test that panics.
        tests.env("RUST_BACKTRACE", "0");
        if !tests.status().context("rustup could not be started")?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_there() -> bool {
    let mut ask = miri();
    ask.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

/// Miri of the nightly compiler, whichever compiler the workspace names.
fn miri() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", "cargo", "miri"]).current_dir(workspace());
    rustup.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO");
    rustup
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_run_is_there() {
        for (package, program, names) in TESTS {
            let folder = workspace().join(if package == "rm" { "rm" } else { "rm/abi" });
            if let Some(name) = program.strip_prefix("--test=") {
                assert!(folder.join("tests").join(name).with_extension("rs").exists(), "{name}");
            }
            for name in names.iter().filter(|name| name.contains("::")) {
                let path = name.trim_end_matches("::tests::bits::").trim_end_matches("::");
                let source = folder.join("src").join(path.replace("::", "/")).with_extension("rs");
                let text = fs::read_to_string(&source).unwrap_or_default();
                assert!(text.contains("#[cfg(test)]\nmod tests"), "{name} has no tests");
            }
        }
    }
}
