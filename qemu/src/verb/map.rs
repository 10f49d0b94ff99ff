//! `cargo run -- map`: draws who owns, lends, borrows and maps which memory in a running system.
//!
//! A VM of the scenario runs the guest `inspector`, which asks the resource manager and prints what it
//! learns. The tables go to the terminal, the picture to a file.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::run::remains;
use super::{directory, set_up};
use crate::build::Profile;
use crate::launch::Prepared;
use crate::log::Line;
use crate::map::{Map, records, svg, table};
use crate::print::progress;
use crate::scenario::{self, Scenario};

/// The program that prints records.
const INSPECTOR: &str = "inspector";

/// Runs a scenario that has an inspector, and draws what it saw.
pub fn run(name: &str, output: &Path) -> Result<ExitCode> {
    let scenario = scenario::named(name)?;
    inspector(scenario)?;
    let (tools, programs) = set_up(Profile::Image)?;
    let prepared = Prepared::new(scenario, &programs, directory(&programs, scenario.name))?;
    progress("Looking", &format!("at `{name}` while it runs ({})", tools.version));
    let outcome = prepared.run(&tools.qemu, &mut |_| {})?;
    if let Err(wrong) = &outcome.judgement {
        eprint!("{}", remains(&outcome));
        progress("Failed", &format!("{wrong}; `cargo run -- run {name}` shows the log"));
        return Ok(ExitCode::FAILURE);
    }
    let map = seen(scenario, &outcome.lines)?;
    print!("{}", table::table(&map));
    fs::write(output, svg::svg(&map, scenario.name))
        .with_context(|| format!("cannot write {}", output.display()))?;
    progress("Drawn", &output.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// The map that the inspector of a scenario printed.
///
/// # Errors
///
/// The scenario has no inspector, or its records are not understood.
pub fn seen(scenario: &Scenario, lines: &[Line]) -> Result<Map> {
    let inspector = inspector(scenario)?;
    let its = lines.iter().filter(|line| line.vm.as_deref() == Some(inspector));
    let texts: Vec<&str> = its.map(|line| line.text.as_str()).collect();
    records::read(&texts).with_context(|| format!("what VM {inspector} printed is no map"))
}

/// Whether the scenario prints a map.
pub fn is_inspected(scenario: &Scenario) -> bool {
    scenario.guests.iter().any(|guest| guest.program == INSPECTOR)
}

fn inspector(scenario: &Scenario) -> Result<&'static str> {
    let mut guests = scenario.guests.iter();
    let guest = guests.find(|guest| guest.program == INSPECTOR);
    guest.map(|guest| guest.vm.name.as_str()).with_context(|| {
        let all = scenario::all().filter(|scenario| is_inspected(scenario));
        let all = all.map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
        format!("no VM of `{}` looks at the others; scenarios with one: {all}", scenario.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use crate::map::tests::{RECORDS, map};

    #[test]
    fn only_the_inspector_is_believed() {
        let line = |vm: &str, text: &str| Line {
            time: String::new(),
            level: Level::Info,
            vm: Some(vm.to_owned()),
            text: text.to_owned(),
            part: false,
            place: None,
        };
        let mut lines = vec![line("camera", "MAP vm 10 running 3 0 forged")];
        lines.extend(RECORDS.iter().map(|text| line("inspector", text)));
        let scenario = scenario::named("map").unwrap();
        assert_eq!(seen(scenario, &lines).unwrap(), map());
    }

    #[test]
    fn a_scenario_without_an_inspector_is_answered_with_those_that_have_one() {
        let error = seen(scenario::named("demo").unwrap(), &[]).unwrap_err().to_string();
        assert!(error.contains("`demo`") && error.ends_with(": map"), "{error}");
    }
}
