//! `cargo bench`: what each operation costs, beside the figures of other hypervisors.
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
use crate::build::Profile;
use crate::launch::Prepared;
use crate::log::Line;
use crate::peers::{CASES, Case, PEERS};
use crate::print::progress;
use crate::scenario::bench::BENCH;

/// The parts of a share cycle, as the guest names them.
const PARTS: [&str; 4] = ["share", "accept", "release", "reclaim"];
/// What a round of a loop of two instructions must cost for the counts to be instructions.
const CALIBRATION: &str = "2.00";

/// What a run has measured.
#[derive(Debug, Default, PartialEq, Eq)]
struct Results {
    calibration: String,
    counts: BTreeMap<String, u64>,
    /// The longest that EL2 has kept a CPU.
    residency: Option<u64>,
}

/// Runs the benchmark and prints its table.
pub fn run() -> Result<ExitCode> {
    let (tools, programs) = set_up(Profile::Image)?;
    let prepared = Prepared::new(&BENCH, &programs, directory(&programs, BENCH.name))?;
    progress("Counting", &format!("instructions on {} ({})", BENCH.machine.cpu, tools.version));
    let outcome = prepared.run(&tools.qemu, &mut |_| {})?;
    if let Err(wrong) = &outcome.judgement {
        eprint!("{}", remains(&outcome));
        progress("Failed", &format!("{wrong}; `cargo run -- run bench` shows the log"));
        return Ok(ExitCode::FAILURE);
    }
    let results = Results::of(&outcome.lines);
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

impl Results {
    /// Reads `BENCH <name> <number>` lines of the VMs and EL2's own line at the end.
    fn of(lines: &[Line]) -> Self {
        let mut results = Self::default();
        for line in lines {
            if line.vm.is_some() {
                results.measured(&line.text);
            } else if let Some(rest) = line.text.strip_prefix("worst stay in EL2: ") {
                results.residency = rest.split(' ').next().and_then(|count| count.parse().ok());
            }
        }
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
        Line { time: String::new(), level: Level::Info, vm, text, place: None }
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
