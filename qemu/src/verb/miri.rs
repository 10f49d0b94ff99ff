//! `cargo run -- miri`: the tests of `rm` and `rm-abi` under Miri, the interpreter that notices undefined behaviour.
//!
//! `rm` has no `unsafe` of its own, but it runs over types whose safety others have argued (its lock, its vectors,
//! its atomics), and Miri sees data races, too. An interpreter is ten thousand times slower than what is compiled:
//! what is left out is named below, with the reason, and whatever is not named is run. Worlds are smaller there
//! (`rm/src/machine/fake/world.rs`), and of histories and properties there are a few. Miri is in nightly compilers only.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::workspace;
use crate::print::progress;

/// Packages, and where they are.
const PACKAGES: [(&str, &str); 2] = [("rm-abi", "rm/abi"), ("rm", "rm")];
/// The tests inside a package, where another program is a file of its `tests`.
const INSIDE: &str = "lib";
/// All tests of a program.
const ALL: &str = "";

const SCHEDULES: &str =
    "plays thousands of schedules, on stacks of its own that an interpreter does not switch";
const FILES: &str = "reads files, and the interpreter shows it none of the host";
const STATES: &str = "makes worlds for every pair of a state and a call";
const HISTORIES: &str = "plays long histories";
const STEPS: &str = "plays calls once for each of their steps, in a world each";
const SIZE: &str = "needs what there is little of here: parcels, handles, frames or a heap";
const SEARCH: &str = "searches all memory of its worlds for bytes";
const THREADS: &str = "plays rounds of calls of several threads, and the interpreter has one";
const MINUTES: &str = "takes seconds for each test, and minutes in all";

/// What is left out: package, program, test (or a module of tests, which ends in `::`) and why.
const LEFT_OUT: &[(&str, &str, &str, &str)] = &[
    ("rm-abi", "any_bytes", "every_decoder_is_asked", FILES),
    ("rm-abi", "captured", ALL, MINUTES),
    ("rm-abi", "golden", ALL, MINUTES),
    ("rm-abi", "extension", ALL, MINUTES),
    ("rm-abi", "inspect", ALL, MINUTES),
    ("rm", "schedules", ALL, SCHEDULES),
    ("rm", "cells", ALL, STATES),
    ("rm", "faults", ALL, STATES),
    ("rm", "unwritten", ALL, STATES),
    ("rm", "ghost", ALL, HISTORIES),
    ("rm", "trims", ALL, HISTORIES),
    ("rm", "any_bytes", ALL, HISTORIES),
    ("rm", "vectors", ALL, HISTORIES),
    ("rm", "steps", ALL, STEPS),
    ("rm", "revoke", ALL, STEPS),
    ("rm", "residency", ALL, SIZE),
    ("rm", "canary", ALL, SEARCH),
    ("rm", "parallel", ALL, THREADS),
    ("rm", "advisories", ALL, THREADS),
    ("rm", "accept", ALL, MINUTES),
    ("rm", "append", ALL, MINUTES),
    ("rm", "boot", ALL, MINUTES),
    ("rm", "cache", ALL, MINUTES),
    ("rm", "copies", ALL, MINUTES),
    ("rm", "cpu_access", ALL, MINUTES),
    ("rm", "devices", ALL, MINUTES),
    ("rm", "extension", ALL, MINUTES),
    ("rm", "heaps", ALL, MINUTES),
    ("rm", "info", ALL, MINUTES),
    ("rm", "inspect", ALL, MINUTES),
    ("rm", "life", ALL, MINUTES),
    ("rm", "notices", ALL, MINUTES),
    ("rm", "notify", ALL, MINUTES),
    ("rm", "queues", ALL, MINUTES),
    ("rm", "quotas", ALL, MINUTES),
    ("rm", "refusals", ALL, MINUTES),
    ("rm", "pitfalls", ALL, MINUTES),
    ("rm", "shared_quotas", ALL, MINUTES),
    ("rm", "trim", ALL, MINUTES),
    ("rm", "wills", ALL, MINUTES),
    ("rm", "lookup", "a_parcel_that_changes_under_the_search_is_not_found", STEPS),
    ("rm", "lookup", "one_of_many_parcels_is_found_in_steps_of_one_unit", STEPS),
    ("rm", "lookup", "runs_are_compared_as_the_machine_has_them", MINUTES),
    ("rm", "guarantees", "g7_a_vm_at_its_parcel_quota_changes_nothing_for_another", SIZE),
    ("rm", "guarantees", "g7_quotas_of_pages_and_extents_refuse_and_take_nothing", SIZE),
    ("rm", "guarantees", "g8_every_page_is_somewhere_at_each_moment_of_a_parcels_life", MINUTES),
    ("rm", "guarantees", "g8_a_donation_moves_pages_and_loses_none", MINUTES),
    ("rm", "guarantees", "g6_a_handle_is_not_used_again", SIZE),
    ("rm", "lib", "heap::tests::the_marks_of_a_gib_are_made_in_steps_of_bounded_length", SIZE),
    ("rm", "lib", "stage2::tests::concurrent::", THREADS),
    ("rm", "lib", "stage2::tests::model::", HISTORIES),
    ("rm", "lib", "stage2::tests::blocks::", MINUTES),
    ("rm", "lib", "stage2::tests::frames::", MINUTES),
    ("rm", "lib", "stage2::tests::order::", MINUTES),
    ("rm", "lib", "stage2::tests::part::", MINUTES),
    ("rm", "lib", "stage2::tests::search::", MINUTES),
];
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

/// Runs the tests of these programs, or of all that are not left out.
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
    for (package, program) in known {
        let is_wanted = wanted.is_empty() || wanted.contains(&program);
        let left_out: Vec<_> = left_out(package, &program).collect();
        if !is_wanted || left_out.contains(&ALL) {
            continue;
        }
        progress("Testing", &format!("{package} {program}"));
        if !test(package, &program, &left_out)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests of a program but those that are left out.
fn test(package: &str, program: &str, left_out: &[&str]) -> Result<bool> {
    let mut tests = miri();
    tests.args(["test", "--quiet", "--package", package]);
    match program {
        INSIDE => tests.arg("--lib"),
        program => tests.args(["--test", program]),
    };
    tests.arg("--");
    for name in left_out {
        tests.args(["--skip", name]);
    }
    tests.env("CARGO_TARGET_DIR", workspace().join("target/miri"));
    tests.env("MIRIFLAGS", format!("{FLAGS} -Zmiri-env-set=PROPTEST_CASES={CASES}"));
    // A backtrace that is not printed would be most of the work of a test that panics.
    tests.env("RUST_BACKTRACE", "0");
    Ok(tests.status().context("rustup could not be started")?.success())
}

/// All programs of tests: package and name.
fn programs() -> Result<Vec<(&'static str, String)>> {
    let mut programs = vec![];
    for (package, folder) in PACKAGES {
        let mut names = BTreeSet::from([INSIDE.to_owned()]);
        for entry in fs::read_dir(workspace().join(folder).join("tests"))? {
            let path = entry?.path();
            if let (Some(stem), Some("rs")) =
                (path.file_stem(), path.extension().and_then(|e| e.to_str()))
            {
                names.insert(stem.to_string_lossy().into_owned());
            }
        }
        programs.extend(names.into_iter().map(|name| (package, name)));
    }
    Ok(programs)
}

/// The tests of a program that are left out.
fn left_out<'a>(package: &'a str, program: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    let of_program =
        LEFT_OUT.iter().filter(move |(of, name, ..)| (*of, *name) == (package, program));
    of_program.map(|(_, _, test, _)| *test)
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
    fn what_is_left_out_is_there_and_has_a_reason() {
        let programs = programs().unwrap();
        for (package, program, test, why) in LEFT_OUT {
            assert!(
                programs.iter().any(|known| known == &(*package, (*program).to_owned())),
                "{program}"
            );
            assert!(!why.is_empty(), "{program} {test}");
            if test.is_empty() {
                continue;
            }
            let (_, folder) = PACKAGES.iter().find(|(known, _)| known == package).unwrap();
            let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
            let source = match *program {
                INSIDE => format!("{folder}/src/{}.rs", module.replace("::", "/")),
                program => format!("{folder}/tests/{program}.rs"),
            };
            let text = fs::read_to_string(workspace().join(&source)).unwrap_or_default();
            let promise = if name.is_empty() { "#[test]" } else { &format!("fn {name}(") };
            assert!(text.contains(promise), "{source} has no test {name}");
        }
    }

    #[test]
    fn whole_programs_are_left_out_once() {
        for (package, program, test, _) in LEFT_OUT {
            let others = left_out(package, program).count();
            assert!(
                !test.is_empty() || others == 1,
                "{program} is left out, and so are tests of it"
            );
        }
    }
}
