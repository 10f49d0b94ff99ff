//! `cargo bench`: what each operation costs, beside the figures of other hypervisors.
//!
//! Behind it stand the worst entry and the longest hold of a lock, of an image that times locks, with small and
//! with large requests side by side: neither grows with the size.
//!
//! The machine counts instructions, so two runs of one image print the same table. The same numbers
//! go to `bench.json` in the target directory.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::run::remains;
use super::{directory, set_up};
use crate::build::{self, Profile, Programs};
use crate::doctor::Tools;
use crate::launch::Prepared;
use crate::log::Line;
use crate::peers::{CASES, Case, PEERS};
use crate::print::progress;
use crate::scenario::Scenario;
use crate::scenario::bench::{BENCH, RESIDENCY};

/// The parts of a share cycle, as the guest names them.
const PARTS: [&str; 4] = ["share", "accept", "release", "reclaim"];
/// What a round of a loop of two instructions must cost for the counts to be instructions.
const CALIBRATION: &str = "2.00";

/// What the columns of the second table ask for: extents of a parcel, and parcels.
const SIZES: [&str; 3] = ["1 / 1", "512 / 64", "30,720 / 1,024"];

/// How long EL2 kept a CPU in one run with requests of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stay {
    entry: Option<u64>,
    lock: Option<u64>,
}

/// What a run has measured.
#[derive(Debug, Default, PartialEq, Eq)]
struct Results {
    calibration: String,
    counts: BTreeMap<String, u64>,
    /// The longest that EL2 has kept a CPU in the run of all these.
    residency: Option<u64>,
    /// The same for requests of each size.
    stays: Vec<Stay>,
}

/// Runs the benchmark and prints its table.
pub fn run() -> Result<ExitCode> {
    let (tools, programs) = set_up(Profile::Image)?;
    let Some(lines) = lines_of(&BENCH, &tools, &programs)? else { return Ok(ExitCode::FAILURE) };
    let mut results = Results::of(&lines);
    let timed = build::programs(Profile::Timed)?;
    for scenario in RESIDENCY {
        let Some(lines) = lines_of(scenario, &tools, &timed)? else { return Ok(ExitCode::FAILURE) };
        results.stays.push(Stay::of(&lines));
    }
    ensure!(
        results.calibration == CALIBRATION,
        "a loop of two instructions counts {:?} a round instead of {CALIBRATION}",
        results.calibration
    );
    print!("{}", table(&results));
    let file = directory(&programs, "..").join("bench.json");
    fs::write(&file, format!("{:#}\n", results.json()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a scenario; the result is its log, unless it failed.
fn lines_of(scenario: &Scenario, tools: &Tools, programs: &Programs) -> Result<Option<Vec<Line>>> {
    let prepared = Prepared::new(scenario, programs, directory(programs, scenario.name))?;
    let (name, cpu) = (scenario.name, scenario.machine.cpu);
    progress("Counting", &format!("instructions of {name} on {cpu} ({})", tools.version));
    let outcome = prepared.run(&tools.qemu, &mut |_| {})?;
    if let Err(wrong) = &outcome.judgement {
        eprint!("{}", remains(&outcome));
        progress("Failed", &format!("{wrong}; `cargo run -- run {name}` shows the log"));
        return Ok(None);
    }
    Ok(Some(outcome.lines))
}

/// The number in EL2's line that begins so.
fn ticks(lines: &[Line], what: &str) -> Option<u64> {
    let own = lines.iter().filter(|line| line.vm.is_none());
    let rest = own.filter_map(|line| line.text.strip_prefix(what)).next_back()?;
    rest.split(' ').next()?.parse().ok()
}

impl Stay {
    fn of(lines: &[Line]) -> Self {
        Self {
            entry: ticks(lines, "worst stay in EL2: "),
            lock: ticks(lines, "longest lock hold: "),
        }
    }

    fn json((size, stay): (&str, &Self)) -> Value {
        json!({ "extents_and_parcels": size, "worst_entry": stay.entry, "longest_lock_hold": stay.lock })
    }
}

impl Results {
    /// Reads `BENCH <name> <number>` lines of the VMs and EL2's own line at the end.
    fn of(lines: &[Line]) -> Self {
        let mut results = Self::default();
        for line in lines.iter().filter(|line| line.vm.is_some()) {
            results.measured(&line.text);
        }
        results.residency = ticks(lines, "worst stay in EL2: ");
        results
    }

    fn measured(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        if words.next() != Some("BENCH") {
            return;
        }
        match (words.next(), words.next()) {
            (Some("calibration"), Some(value)) => self.calibration = value.to_owned(),
            (Some(name), Some(value)) => {
                if let Ok(count) = value.parse() {
                    self.counts.insert(name.to_owned(), count);
                }
            }
            _ => {}
        }
    }

    fn json(&self) -> Value {
        let case = |case: &Case| {
            let peers: BTreeMap<_, _> = PEERS.into_iter().zip(case.peers).collect();
            let ours = self.counts.get(case.name);
            let part = |part: &'static str| {
                Some((part, *self.counts.get(&format!("{}.{part}", case.name))?))
            };
            let parts: BTreeMap<_, _> = PARTS.into_iter().filter_map(part).collect();
            json!({ "name": case.name, "ours": ours, "parts": parts, "peers": peers })
        };
        json!({
            "unit": "instructions",
            "machine": BENCH.machine.cpu,
            "cases": CASES.iter().map(case).collect::<Vec<_>>(),
            "worst_el2_residency": self.residency,
            "stays": SIZES.into_iter().zip(&self.stays).map(Stay::json).collect::<Vec<_>>(),
        })
    }
}

/// The table as it is printed.
fn table(results: &Results) -> String {
    let mut text = String::new();
    let mut row = |title: &str, cells: &[String]| {
        let cells = cells.iter().map(|cell| format!("{cell:>12}")).collect::<String>();
        let _ = writeln!(text, "{}", format!("{title:<38}{cells}").trim_end());
    };
    let strings = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
    row(
        "instructions",
        &[&strings(&["ours"])[..], &strings(&PEERS), &strings(&["best/ours"])].concat(),
    );
    for case in &CASES {
        let ours = results.counts.get(case.name).copied();
        let mut cells = vec![number(ours)];
        cells.extend(case.peers.map(number));
        cells.push(ratio(case.best(), ours));
        row(case.title, &cells);
    }
    row("longest stay in EL2", &[number(results.residency)]);
    row("", &[]);
    row("of a share cycle", &strings(&PARTS));
    for case in &CASES {
        let part = |part| results.counts.get(&format!("{}.{part}", case.name)).copied();
        let parts = PARTS.map(part);
        if parts.iter().any(Option::is_some) {
            row(case.title, &parts.map(number));
        }
    }
    row("", &[]);
    row("of the longest entry", &SIZES.map(|size| format!(" {size}")));
    let each = |of: fn(&Stay) -> Option<u64>| -> Vec<_> {
        results.stays.iter().map(|stay| number(of(stay))).collect()
    };
    row("worst entry", &each(|stay| stay.entry));
    row("longest lock hold", &each(|stay| stay.lock));
    text
}

/// How many times more the best peer needs.
fn ratio(best: Option<(&str, u64)>, ours: Option<u64>) -> String {
    match (best, ours) {
        (Some((_, best)), Some(ours @ 1..)) => format!("{:.1}", best as f64 / ours as f64),
        _ => "-".into(),
    }
}

/// With commas between thousands.
fn number(count: Option<u64>) -> String {
    let Some(count) = count else { return "-".into() };
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;

    fn line(vm: Option<&str>, text: &str) -> Line {
        let (vm, text) = (vm.map(str::to_owned), text.to_owned());
        Line { time: String::new(), level: Level::Info, vm, text, part: false, place: None }
    }

    #[test]
    fn results_are_read_off_the_log() {
        let results = Results::of(&[
            line(Some("A"), "BENCH calibration 2.00"),
            line(Some("A"), "BENCH null_hypercall 80"),
            line(Some("A"), "BENCH 1_page.share 900"),
            line(Some("A"), "something else"),
            line(None, "BENCH null_hypercall 1"),
            line(None, "worst stay in EL2: 14000 ticks"),
        ]);
        assert_eq!(results.calibration, "2.00");
        assert_eq!(results.counts["null_hypercall"], 80);
        assert_eq!(results.counts["1_page.share"], 900);
        assert_eq!(results.residency, Some(14_000));
        assert_eq!(results.json()["cases"][0]["ours"], 80);
    }

    #[test]
    fn the_table_compares_with_the_best_peer() {
        let results = Results::of(&[line(Some("A"), "BENCH null_hypercall 44")]);
        let table = table(&results);
        let row = table.lines().find(|line| line.starts_with("null hypercall")).unwrap();
        let cells: Vec<_> = row.split_whitespace().skip(2).collect();
        assert_eq!(cells, ["44", "165", "754", "422", "88", "2.0"]);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(number(Some(7)), "7");
        assert_eq!(number(Some(1_234_567)), "1,234,567");
        assert_eq!(number(None), "-");
    }
}
