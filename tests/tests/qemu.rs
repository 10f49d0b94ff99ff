//! Every scenario as a test with a name: `cargo test --test qemu share` runs those whose name
//! contains "share".
//!
//! Each trial has a QEMU, an image and a nonce of its own, so trials run side by side. Whatever is
//! missing (compiler target, QEMU, programs) is brought once, before the first trial.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use qemu::build::{self, Profile, Programs};
use qemu::doctor::{self, Tools};
use qemu::launch::{Outcome, Prepared};
use qemu::map::{svg, table};
use qemu::print::Printer;
use qemu::scenario::{self, Scenario};
use qemu::verb::map;
use qemu::verb::run::remains;
use qemu::verdict::End;

/// The scenario in which a guest ends QEMU with code 0 and prints a verdict of its own.
const FORGERY: &str = "forge";

/// The scenario after which all memory is searched.
const CANARIES: &str = "canaries";

/// What all trials use.
struct Bench {
    tools: Tools,
    programs: Programs,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list {
        let names = scenario::all().map(|scenario| Trial::test(scenario.name, || Ok(())));
        return Ok(libtest_mimic::run(&arguments, names.collect()).exit_code());
    }
    let tools = doctor::ensure()?;
    let bench = Arc::new(Bench { tools, programs: build::programs(Profile::Check)? });
    let trial = |scenario: &'static Scenario| {
        if let Some(reason) = bench.tools.lacks(&scenario.machine) {
            let skipped = Trial::test(scenario.name, || Ok(()));
            return skipped.with_kind(format!("skipped: {reason}")).with_ignored_flag(true);
        }
        let bench = bench.clone();
        Trial::test(scenario.name, move || check(scenario, &bench))
    };
    let trials = scenario::all().map(trial).collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// Runs one scenario and fails with its log.
fn check(scenario: &Scenario, bench: &Bench) -> Result<(), Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(scenario.name);
    let prepared = Prepared::new(scenario, &bench.programs, &directory).map_err(failed)?;
    let outcome = prepared.run(&bench.tools.qemu, &mut |_| {}).map_err(failed)?;
    let wrong = match &outcome.judgement {
        judgement if scenario.name == FORGERY => recognised(judgement, outcome.end),
        Ok(_) if map::is_inspected(scenario) => {
            let image = fs::read(prepared.image())?;
            drawn(scenario, &outcome, &directory, &image)
        }
        Ok(_) if scenario.name == CANARIES => {
            let found = tests::canary::search(&outcome.lines, &prepared.memory());
            found.err().map(|wrong| format!("{wrong:#}"))
        }
        Ok(_) => None,
        Err(wrong) => Some(wrong.clone()),
    };
    wrong.map_or(Ok(()), |wrong| Err(account(scenario, &wrong, &outcome, directory).into()))
}

/// What is wrong unless a guest has ended QEMU with code 0 and was not believed.
fn recognised(judgement: &Result<String, String>, end: End) -> Option<String> {
    match (judgement, end) {
        (Ok(_), _) => Some("a forged success was taken for a real one".into()),
        (Err(_), End::Code(0)) => None,
        (Err(wrong), _) => Some(format!("nothing was forged: {wrong}")),
    }
}

/// What is wrong with the map of a scenario in which a VM looks at the others, from its records to the
/// picture, which is left beside the run's other files; and whether it shows EL2's memory in a VM.
fn drawn(scenario: &Scenario, outcome: &Outcome, directory: &Path, image: &[u8]) -> Option<String> {
    let map = match map::seen(scenario, &outcome.lines) {
        Ok(map) => map,
        Err(wrong) => return Some(format!("{wrong:#}")),
    };
    if let Err(wrong) = tests::exposure::search(&map, &outcome.lines, image) {
        return Some(format!("{wrong:#}"));
    }
    let (picture, tables) = (svg::svg(&map, scenario.name), table::table(&map));
    let missing = map.parcels.iter().map(|parcel| format!("{:#x}", parcel.handle));
    let missing = missing.chain(map.vms.iter().map(|vm| vm.name.clone()));
    let mut missing =
        missing.filter(|text| !picture.contains(text.as_str()) || !tables.contains(text.as_str()));
    if let Err(error) = fs::write(directory.join("map.svg"), &picture) {
        return Some(format!("the picture cannot be written: {error}"));
    }
    missing.next().map(|text| format!("{text} is not in the picture or the tables"))
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

/// All that is known of a run, for the one who has to find out.
fn account(scenario: &Scenario, why: &str, outcome: &Outcome, files: PathBuf) -> String {
    let printer = Printer::plain(scenario.vm_names());
    let mut text = format!("{why}\n--- log\n");
    for line in &outcome.lines {
        let _ = writeln!(text, "{}", printer.format(line));
    }
    text.push_str(&remains(outcome));
    let _ = write!(text, "files: {}\nwatch: cargo run -- run {}", files.display(), scenario.name);
    text
}
