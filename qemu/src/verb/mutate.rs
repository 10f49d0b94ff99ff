//! `cargo run -- mutate`: makes mistakes in a copy of `rm`, one at a time, and says which test notices.
//!
//! What noticed a mistake the last time is asked first, and then, program by program, what notices most; so
//! most mistakes cost one build of `rm` and one test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, UNIT, workspace};
use crate::launch::Process;
use crate::mutation::{self, Catchers, Copy, Mutation, TABLE};
use crate::print::progress;
use crate::verdict::End;

/// How long a program of tests may take, in seconds. What ends by this is taken to have noticed something,
/// so it is much more than a program takes without a mistake: then half a minute at most.
const LONGEST: u64 = 150;
/// What takes longest comes last, and may take longer: without a mistake four minutes of a processor.
const SLOW: [&str; 4] = [UNIT, "cells", "faults", "schedules"];
const LONGEST_OF_SLOW: u64 = 1200;

/// What a user wants of it.
#[derive(Debug, Default)]
pub struct Options {
    /// A part of the names of the mistakes that are made.
    pub filter: String,
    /// Write down what noticed them.
    pub write: bool,
}

/// Makes the mistakes and runs the tests.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mutations = mutation::list(workspace())?;
    let mut wanted: Vec<_> =
        mutations.iter().filter(|m| m.name.contains(&options.filter)).collect();
    ensure!(!wanted.is_empty(), "no mistake has {:?} in its name", options.filter);
    let file = workspace().join(TABLE);
    let mut known = mutation::catchers(&fs::read_to_string(&file).unwrap_or_default());
    // What nobody has noticed yet comes first.
    wanted.sort_by_key(|m| known.get(&m.name).is_some_and(|test| test.contains("::")));
    let target = workspace().join("target/mutate");
    let copy = Copy::new(workspace(), target.join("tree"))?;
    // What an interrupted run has left half-built must not be built upon.
    let unfinished = target.join("unfinished");
    if unfinished.exists() && target.join("target").exists() {
        fs::remove_dir_all(target.join("target"))?;
    }
    fs::write(&unfinished, "")?;
    let bench = Bench { root: copy.root(), target: target.join("target"), programs: programs()? };
    let (mut unnoticed, mut others) = (vec![], vec![]);
    for (index, mutation) in wanted.iter().enumerate() {
        copy.make(mutation)?;
        let start = Instant::now();
        let noticed = bench.search(&known, mutation);
        copy.put_right(mutation)?;
        let noticed = noticed?;
        let test = noticed.as_deref().unwrap_or("NOTHING");
        let seconds = start.elapsed().as_secs();
        println!("{:>3}/{} {:<50} {test} ({seconds} s)", index + 1, wanted.len(), mutation.name);
        let before = known.get(&mutation.name);
        if noticed.is_none() {
            unnoticed.push(&*mutation.name);
        } else if before != noticed.as_ref() {
            others.push(&*mutation.name);
        }
        known.insert(mutation.name.clone(), noticed.unwrap_or_else(|| "nothing".to_owned()));
        if options.write {
            fs::write(&file, mutation::table(&mutations, &known))?;
            others.clear();
        }
    }
    progress("Testing", "rm without a mistake");
    let asked = wanted.iter().filter_map(|m| known.get(&m.name)?.split_once("::"));
    let asked: BTreeSet<_> = asked.map(|(path, _)| program_of(path).to_owned()).collect();
    if let Some(test) = bench.search_all(&asked.into_iter().collect::<Vec<_>>())? {
        bail!("{test} fails without a mistake");
    }
    fs::remove_file(&unfinished)?;
    println!("{} mistakes, {} noticed", wanted.len(), wanted.len() - unnoticed.len());
    for name in &unnoticed {
        println!("no test notices: {name}");
    }
    for name in &others {
        println!("{TABLE} names another test (--write puts it right): {name}");
    }
    let well = unnoticed.is_empty() && others.is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The programs of tests of `rm`, as cargo calls them.
fn programs() -> Result<Vec<String>> {
    let mut programs = vec![UNIT.to_owned()];
    for entry in fs::read_dir(workspace().join("rm/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (Some(name), Some("rs")) = (name, path.extension().and_then(|end| end.to_str())) {
            programs.push(name.to_owned());
        }
    }
    programs.sort();
    Ok(programs)
}

/// A copy of the workspace, and how its tests are built and run.
struct Bench<'a> {
    root: &'a Path,
    target: PathBuf,
    programs: Vec<String>,
}

impl Bench<'_> {
    /// The first test that fails.
    fn search(&self, known: &Catchers, mutation: &Mutation) -> Result<Option<String>> {
        // A name is `path::test`; the path says the program.
        let before = known.get(&mutation.name).and_then(|test| test.split_once("::"));
        if let Some((path, test)) = before {
            let program = self.build(&[program_of(path)])?;
            if let Some((name, file)) = program.first()
                && let Some(test) = self.failing(name, file, Some(test))?
            {
                return Ok(Some(test));
            }
        }
        let mut count = BTreeMap::new();
        known.values().filter_map(|test| test.split_once("::")).for_each(|(path, _)| {
            *count.entry(program_of(path)).or_insert(0_u32) += 1;
        });
        let mut order = self.programs.clone();
        order.sort_by_key(|program| {
            let noticed = count.get(&**program).copied().unwrap_or(0);
            let is_about = is_about(program, &mutation.file);
            (SLOW.contains(&&**program) && !is_about, !is_about, u32::MAX - noticed)
        });
        // The likely ones one by one, so that the others need not be built.
        let (likely, others) = order.split_at(order.len().min(6));
        for program in likely {
            if let Some(test) = self.search_all(std::slice::from_ref(program))? {
                return Ok(Some(test));
            }
        }
        self.search_all(others)
    }

    fn search_all(&self, programs: &[String]) -> Result<Option<String>> {
        let names: Vec<_> = programs.iter().map(String::as_str).collect();
        for (name, file) in self.build(&names)? {
            if let Some(test) = self.failing(&name, &file, None)? {
                return Ok(Some(test));
            }
        }
        Ok(None)
    }

    /// Builds programs of tests; gives their names and files.
    fn build(&self, programs: &[&str]) -> Result<Vec<(String, PathBuf)>> {
        let mut cargo = build::cargo();
        cargo.current_dir(self.root).env("CARGO_TARGET_DIR", &self.target);
        // Most of the time goes into building: a mistake is noticed by the first few tests.
        for profile in ["DEV", "TEST"] {
            cargo.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
            cargo.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "0");
        }
        build::tests(cargo, programs).context("a mistake must compile")
    }

    /// The first test of a program that fails, as `path::name`.
    fn failing(&self, name: &str, file: &Path, only: Option<&str>) -> Result<Option<String>> {
        let output = self.target.join("output.txt");
        let mut command = Command::new(file);
        command.current_dir(self.root.join("rm")).args(["--test-threads", "2"]);
        command.args(only);
        command.stdout(File::create(&output)?).stderr(Stdio::null()).stdin(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let is_slow = SLOW.contains(&name) || name == "rm";
        let longest = if is_slow { LONGEST_OF_SLOW } else { LONGEST };
        let end = process.end(Instant::now() + Duration::from_secs(longest), longest)?;
        if end == End::Code(0) {
            return Ok(None);
        }
        let said = fs::read_to_string(&output)?;
        let test = first_failed(&said).with_context(|| format!("{name} ended without a test"))?;
        Ok(Some(match name {
            "rm" => unit_test(self.root, test),
            name => format!("rm/tests/{name}.rs::{test}"),
        }))
    }
}

/// Whether a program of tests is named after a source.
fn is_about(program: &str, source: &str) -> bool {
    if program == UNIT {
        return ["stage2", "frame_pool"].iter().any(|part| source.contains(part));
    }
    let stem = |part: &str| part.trim_end_matches(".rs").trim_end_matches('s').to_owned();
    let program = stem(program);
    source.split('/').map(stem).any(|part| part.len() > 3 && program.contains(&part))
}

/// The program of a test whose file this is.
fn program_of(path: &str) -> &str {
    let file = path.strip_prefix("rm/tests/").and_then(|file| file.strip_suffix(".rs"));
    file.unwrap_or(UNIT)
}

/// A test inside the crate, as `path::name`.
fn unit_test(root: &Path, test: &str) -> String {
    let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
    let file = |module: &str| format!("rm/src/{}.rs", module.replace("::", "/"));
    let own = Some(file(module)).filter(|path| root.join(path).exists());
    let parent = module.rsplit_once("::").map_or(module, |(parent, _)| parent);
    format!("{}::{name}", own.unwrap_or_else(|| file(parent)))
}

/// The first by name of the tests that failed, or else one that did not end.
fn first_failed(said: &str) -> Option<&str> {
    let with = |end| said.lines().filter_map(move |line| name_of(line, end)).min();
    with(" ... FAILED").or_else(|| with(" has been running for"))
}

fn name_of<'a>(line: &'a str, end: &str) -> Option<&'a str> {
    line.strip_prefix("test ")?.split_once(end).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_test_that_failed_is_named() {
        let said = "running 3 tests\ntest c ... FAILED\ntest a ... ok\ntest b::x ... FAILED\n";
        assert_eq!(first_failed(said), Some("b::x"));
        let slow = "test a ... ok\ntest d has been running for over 60 seconds\n";
        assert_eq!(first_failed(slow), Some("d"));
        assert_eq!(first_failed("test a ... ok\n"), None);
    }

    #[test]
    fn a_file_says_which_program_its_tests_are_in() {
        assert_eq!(program_of("rm/tests/ghost.rs"), "ghost");
        assert_eq!(program_of("rm/src/quota.rs"), UNIT);
    }

    #[test]
    fn programs_that_are_named_after_a_source_come_first() {
        assert!(is_about("shared_quotas", "rm/src/quota.rs"));
        assert!(is_about("notices", "rm/src/link/notice.rs"));
        assert!(is_about(UNIT, "rm/src/stage2/walk.rs") && !is_about(UNIT, "rm/src/call.rs"));
        assert!(!is_about("ghost", "rm/src/call/trim.rs"));
    }

    #[test]
    fn a_test_inside_the_crate_is_named_by_its_file() {
        let named = |test| unit_test(workspace(), test);
        assert_eq!(named("quota::tests::a"), "rm/src/quota/tests.rs::a");
        assert_eq!(named("link::queue::tests::b"), "rm/src/link/queue.rs::b");
    }
}
