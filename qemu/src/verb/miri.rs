//! `cargo run -- miri`: the tests of `rm` and `rm-abi` under Miri, the interpreter that notices undefined behaviour.
//!
//! `rm` has no `unsafe` of its own, but it runs over types whose safety others have argued (its lock, its vectors,
//! its atomics), and Miri sees data races, too. An interpreter is thousands of times slower than what is compiled,
//! so less is tried there of what there is no end of, and worlds are smaller: whatever asks `cfg!(miri)`, most of it by
//! way of `rm/src/machine/fake/effort.rs`. Miri is in nightly compilers only.

mod named;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::named::{ALL, LONG};
use crate::build::workspace;
use crate::print::progress;

/// Packages, and where they are.
const PACKAGES: [(&str, &str); 2] = [("rm-abi", "rm/abi"), ("rm", "rm")];
/// The tests inside a package, where another program is a file of its `tests`.
const INSIDE: &str = "lib";
/// The check that every value that is copied is one of its type. Without it Miri takes less than half the time, and
/// still sees what is read before it is written, behind its end, after it is freed, beside the writes of another thread.
const UNCHECKED: &str = "-Zmiri-disable-validation";
/// How many cases a property has here.
const CASES: u32 = 4;
/// Files and clocks of the host are not there, which makes a run the same every time. What a test's world is made of
/// lives until the end of the process, as at EL2, and is not a leak. References are followed as trees, and one to
/// what holds an atomic may do in all of it what the atomic allows: to look for the atomics in a frame of 512 at
/// every use of it takes ten times as long.
const FLAGS: &str = "-Zmiri-isolation-error=hide -Zmiri-ignore-leaks -Zmiri-tree-borrows \
    -Zmiri-tree-borrows-no-precise-interior-mut";
const INSTALL: [&str; 7] =
    ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];

/// Which tests of a program are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All but those that are named here.
    Usual,
    /// Those of [`LONG`].
    Long,
}

/// Tests that are run together: package, program and which of its tests.
type Job = (&'static str, String, Part);

/// Runs the tests of these programs, or of all.
pub fn run(wanted: &[String]) -> Result<ExitCode> {
    let known: Vec<_> = programs()?;
    for name in wanted {
        ensure!(
            known.iter().any(|(_, known)| known == name),
            "no program of tests is called {name}"
        );
    }
    if !is_there() {
        progress("Installing", "a nightly compiler with Miri (once)");
        let added = Command::new("rustup").args(INSTALL).status();
        ensure!(
            added.is_ok_and(|status| status.success()) && is_there(),
            "Miri is missing; type: rustup {}",
            INSTALL.join(" ")
        );
    }
    let chosen =
        known.into_iter().filter(|(_, program)| wanted.is_empty() || wanted.contains(program));
    let jobs = chosen.flat_map(|(package, program)| jobs(package, &program));
    // Once, since programs that start beside each other would wait for each other's builds.
    for (package, _) in PACKAGES {
        let mut build = tests(package, Part::Usual);
        ensure!(
            build.args(["--tests", "--no-run"]).status()?.success(),
            "{package} does not build"
        );
    }
    let left = Mutex::new(jobs);
    let ends: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers()).map(|_| scope.spawn(|| work(&left))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
    });
    ends.into_iter().collect::<Result<()>>()?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be run of a program.
fn jobs(package: &'static str, program: &str) -> Vec<Job> {
    let parts: &[_] = match long(package, program) {
        None => &[Part::Usual],
        Some(ALL) => &[Part::Long],
        Some(_) => &[Part::Long, Part::Usual],
    };
    parts.iter().map(|part| (package, program.to_owned(), *part)).collect()
}

/// The tests of a program that take long, if it has any.
fn long(package: &str, program: &str) -> Option<&'static [&'static str]> {
    LONG.iter().find(|(of, name, _)| (*of, *name) == (package, program)).map(|(.., tests)| *tests)
}

/// Runs jobs, one after the other, until none is left or one fails.
fn work(left: &Mutex<impl Iterator<Item = Job>>) -> Result<()> {
    loop {
        let next = left.lock().expect("no worker panics").next();
        let Some((package, program, part)) = next else { return Ok(()) };
        let title = match part {
            Part::Usual => format!("{package} {program}"),
            Part::Long => format!("{package} {program}, what takes long"),
        };
        progress("Testing", &title);
        let begun = Instant::now();
        let Output { status, stdout, stderr } = test(package, &program, part)?;
        let mut out = io::stdout().lock();
        write!(out, "\n{title}, {} s", begun.elapsed().as_secs())?;
        out.write_all(&stdout)?;
        if !status.success() {
            io::stderr().write_all(&stderr)?;
            left.lock().expect("no worker panics").by_ref().for_each(drop);
            bail!("{title} fails under Miri");
        }
    }
}

/// How many programs are run beside each other. Each takes a core and, at the most, half a GiB.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// Runs a part of a program's tests.
fn test(package: &str, program: &str, part: Part) -> Result<Output> {
    let mut tests = tests(package, part);
    match program {
        INSIDE => tests.arg("--lib"),
        program => tests.args(["--test", program]),
    };
    tests.arg("--");
    let long = long(package, program).unwrap_or(ALL);
    match part {
        Part::Long => tests.args(long),
        Part::Usual => tests.args(long.iter().flat_map(|name| ["--skip", name])),
    };
    tests.output().context("rustup could not be started")
}

/// Tests of a package under Miri.
fn tests(package: &str, part: Part) -> Command {
    let mut tests = miri();
    tests.args(["test", "--quiet", "--package", package]);
    tests.env("CARGO_TARGET_DIR", workspace().join("target/miri"));
    let unchecked = if part == Part::Long { UNCHECKED } else { "" };
    tests.env("MIRIFLAGS", format!("{FLAGS} {unchecked} -Zmiri-env-set=PROPTEST_CASES={CASES}"));
    // A backtrace that is not printed would be most of the work of a test that panics.
    tests.env("RUST_BACKTRACE", "0");
    tests
}

/// All programs of tests: package and name.
fn programs() -> Result<Vec<(&'static str, String)>> {
    let mut programs = vec![];
    for (package, folder) in PACKAGES {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(workspace().join(folder).join("tests"))? {
            let path = entry?.path();
            if let (Some(stem), Some("rs")) =
                (path.file_stem(), path.extension().and_then(|e| e.to_str()))
            {
                names.insert(stem.to_string_lossy().into_owned());
            }
        }
        // The longest first, so that nobody waits for it alone.
        programs.push((package, INSIDE.to_owned()));
        programs.extend(names.into_iter().map(|name| (package, name)));
    }
    Ok(programs)
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
    use super::*;

    #[test]
    fn what_is_named_is_there() {
        let programs = programs().unwrap();
        for (package, program, tests) in LONG {
            assert!(programs.contains(&(*package, (*program).to_owned())), "{program}");
            let (_, folder) = PACKAGES.iter().find(|(known, _)| known == package).unwrap();
            for test in *tests {
                let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
                let source = match *program {
                    INSIDE => format!("{folder}/src/{}.rs", module.replace("::", "/")),
                    program => format!("{folder}/tests/{program}.rs"),
                };
                let text = fs::read_to_string(workspace().join(&source)).unwrap_or_default();
                // Some are made by a macro, which gets their name.
                let is_there = match name {
                    "" => text.contains("#[test]"),
                    name => [format!("fn {name}("), format!("{name}: ")]
                        .iter()
                        .any(|n| text.contains(n)),
                };
                assert!(is_there, "{source} has no test {name}");
            }
        }
    }

    #[test]
    fn what_is_run_is_run_once() {
        for (at, (package, program, _)) in LONG.iter().enumerate() {
            let others = LONG[..at].iter();
            let twice = others.filter(|(of, name, _)| (of, name) == (package, program)).count();
            assert_eq!(twice, 0, "{program} is named twice");
        }
    }
}
