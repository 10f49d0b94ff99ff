//! `cargo run` and `cargo run -- run <scenario>` or `--manifest <file>`: builds, boots, shows the log, says how it ended.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{directory, set_up};
use crate::build::Profile;
use crate::doctor::Tools;
use crate::image;
use crate::keyboard::{KEYS, Keyboard};
use crate::launch::{A_DAY, Outcome, Prepared};
use crate::print::{self, Printer, progress};
use crate::scenario::{self, Program, Scenario};
use crate::sources::Project;
use crate::verdict::End;

/// What the user may change about a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Wait for a debugger.
    pub gdb: bool,
    /// Show file and line of each message.
    pub places: bool,
}

/// Runs a scenario in the foreground. The exit code is 0 only if the run was judged a success, or the
/// user ended it.
pub fn run(name: &str, options: Options) -> Result<ExitCode> {
    let scenario = scenario::named(name)?;
    let profile = match scenario.program {
        Program::Hypervisor => Profile::Image,
        Program::El2(_) => Profile::Check,
    };
    let (tools, programs) = set_up(profile)?;
    there_is(scenario, &tools)?;
    let prepared = Prepared::new(scenario, &programs, directory(&programs, scenario.name))?;
    watch(scenario, &prepared, &tools, options)
}

/// Runs the VMs of a manifest in the foreground, until they have ended or the user ends them.
pub fn run_manifest(path: &Path, options: Options) -> Result<ExitCode> {
    let manifest = manifest::load_with(path, &Project::new(path, Profile::Image));
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(report) => {
            eprintln!("{}", report.render(print::wants_colour(io::stderr().is_terminal())));
            return Ok(ExitCode::FAILURE);
        }
    };
    let (tools, programs) = set_up(Profile::Image)?;
    let name = path.file_stem().map_or("manifest".into(), |name| name.to_string_lossy());
    let scenario = scenario::manifest::of(&manifest, &name);
    let scenario = Scenario { seconds: A_DAY, ..scenario };
    there_is(&scenario, &tools)?;
    let program = programs.path(&scenario.el2_program())?.to_owned();
    let more = scenario::manifest::arguments(&manifest);
    let image = image::assemble(&program, manifest.into_writer([0; 16]))?;
    let prepared = Prepared::of(&scenario, program, image, directory(&programs, "manifest"))?;
    watch(&scenario, &prepared.with_arguments(more), &tools, options)
}

/// Whether QEMU has the machine.
fn there_is(scenario: &Scenario, tools: &Tools) -> Result<()> {
    if let Some(reason) = tools.lacks(&scenario.machine) {
        bail!("{reason}; `cargo run -- doctor --all-boards` installs one that has it where it may");
    }
    Ok(())
}

/// Shows a run, lets the user type, and says how it ended.
fn watch(
    scenario: &Scenario,
    prepared: &Prepared<'_>,
    tools: &Tools,
    options: Options,
) -> Result<ExitCode> {
    progress("Booting", &description(scenario, &tools.version.to_string()));
    let mut printer = Printer::stdout(scenario.vm_names(), options.places);
    let mut watch = |line: &_| printer.print(line);
    let outcome = if options.gdb {
        invite(prepared);
        prepared.debug(&tools.qemu, &mut watch)?
    } else if let Some(keyboard) = keyboard(scenario) {
        prepared.run_by_hand(&tools.qemu, &keyboard, &mut watch)?
    } else {
        prepared.run(&tools.qemu, &mut watch)?
    };
    printer.finish();
    Ok(report(&outcome))
}

/// The user's keyboard, if there is one and a VM to type for, which is said.
fn keyboard(scenario: &Scenario) -> Option<Keyboard> {
    let first = scenario.vm_names().next()?;
    let keyboard = Keyboard::open()?;
    progress("Keyboard", &format!("goes to {first}. {KEYS}"));
    Some(keyboard)
}

fn description(scenario: &Scenario, qemu: &str) -> String {
    let vms = scenario.vm_names().collect::<Vec<_>>();
    let vms = match vms[..] {
        [] => "no VMs".into(),
        [one] => format!("VM {one}"),
        _ => format!("VMs {}", vms.join(", ")),
    };
    let (cpu, cpus) = (scenario.machine.cpu, scenario.machine.cpus);
    format!("`{}` at EL2 on {cpus} x {cpu} ({qemu}), {vms}", scenario.name)
}

/// Says what to type in the other terminal.
fn invite(prepared: &Prepared<'_>) {
    progress("Waiting", "for a debugger; in another terminal type");
    eprintln!();
    eprintln!("    gdb-multiarch {} -ex 'target remote :1234'", prepared.program().display());
    eprintln!();
    eprintln!("then for example `hbreak rust_begin_unwind` (hardware breakpoints work before the");
    eprintln!("MMU is on) and `continue`. Ctrl-C here ends QEMU.");
    eprintln!();
}

/// Prints how the run ended, and gives the exit code that says the same.
fn report(outcome: &Outcome) -> ExitCode {
    match &outcome.judgement {
        _ if outcome.end == End::Quit => {
            progress("Ended", "by the keyboard");
            ExitCode::SUCCESS
        }
        Ok(done) => {
            // A run that was meant to crash shows how.
            if !outcome.trace.is_empty() {
                eprint!("{}", remains(outcome));
            }
            progress("Passed", done);
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprint!("{}", remains(outcome));
            progress("Failed", wrong);
            match outcome.end {
                End::Code(code @ 1..=255) => ExitCode::from(code as u8),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Everything else that a failed run left: EL2's UART, its trace, QEMU's complaints.
pub fn remains(outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut section = |title: &str, body: &str| {
        if !body.trim().is_empty() {
            text.push_str(&format!("--- {title}\n{}\n", body.trim()));
        }
    };
    section("EL2's UART", &outcome.uart);
    let trace = outcome.trace.iter().map(|function| {
        format!(
            "{:#012x}  {}\n              at {}\n",
            function.address, function.name, function.place
        )
    });
    section("trace, innermost first", &trace.collect::<String>());
    section("QEMU", &outcome.complaints);
    text
}
