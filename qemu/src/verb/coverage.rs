//! `cargo run -- coverage`: which lines and branches of `rm` its tests go through.
//!
//! All lines but a few are to be gone through, and `tests/COVERAGE.md` says which few and why: so many of a function
//! may be left, and what is beyond that is listed and fails the verb. Functions and not line numbers, so that the page
//! stays true while the sources move. Branches are counted by the compiler as an experiment of its own, which has to be
//! asked for; they are the two ways of an `if` or of an operand of `&&`, not the arms of a `match`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::{self, workspace};
use crate::print::progress;

/// Where it is said which lines are left.
const LEFT: &str = "tests/COVERAGE.md";
/// The sources that are looked at, and those under them that are not.
const SOURCES: &str = "rm/src/";
const FAKE: &str = "rm/src/machine/fake";
/// Programs of tests that take long, and lead to nothing that the others do not lead to.
const LEFT_OUT: [&str; 4] = ["cells", "ghost", "residency", "schedules"];
/// Of a program that takes long, the tests that lead further.
const PART: (&str, &str) = ("faults", "g4_long_lists");
/// How many of a hundred lines must be gone through.
const WANTED: usize = 95;

/// What the tests have gone through in one source.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    /// How often each line was gone through.
    lines: BTreeMap<usize, u64>,
    branches: usize,
    branches_taken: usize,
}

impl Source {
    fn left(&self) -> impl Iterator<Item = usize> {
        self.lines.iter().filter(|&(_, &count)| count == 0).map(|(&line, _)| line)
    }

    fn numbers(&self) -> [usize; 4] {
        let lines = self.lines.len();
        [lines - self.left().count(), lines, self.branches_taken, self.branches]
    }
}

/// How many lines of which function may be left.
type Explained<'a> = BTreeMap<(&'a str, &'a str), usize>;

/// Runs the tests and says what they went through.
pub fn run() -> Result<ExitCode> {
    let tools = ensure_tools()?;
    let folder = workspace().join("target/coverage");
    progress("Building", "the tests of rm, so that they count");
    let mut cargo = build::cargo();
    cargo.env("CARGO_TARGET_DIR", &folder).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("RUSTFLAGS", "-C instrument-coverage -Z coverage-options=branch");
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    // What runs for the build leaves profiles, too.
    cargo.env("LLVM_PROFILE_FILE", folder.join("build-%m.profraw"));
    let mut programs = build::tests(cargo, &[])?;
    programs.retain(|(name, _)| !LEFT_OUT.contains(&&**name));
    let profiles = folder.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    for (name, file) in &programs {
        progress("Testing", name);
        let mut test = Command::new(file);
        test.current_dir(workspace().join("rm")).arg("--quiet").stdout(Stdio::null());
        test.args(Some(PART.1).filter(|_| name == PART.0));
        test.env("RM_EFFORT", "1");
        test.env("LLVM_PROFILE_FILE", profiles.join(format!("{name}-%p.profraw")));
        ensure!(test.status()?.success(), "{name} fails; type: cargo test -p rm");
    }
    let merged = folder.join("rm.profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    merge.args(["merge", "-sparse", "-o"]).arg(&merged).arg(&profiles);
    ensure!(merge.status()?.success(), "llvm-profdata fails");
    let files: Vec<_> = programs.into_iter().map(|(_, file)| file).collect();
    let sources = sources(&export(&tools, &merged, &files)?);
    let page = fs::read_to_string(workspace().join(LEFT))?;
    Ok(if report(&sources, &explained(&page))? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Finds or installs LLVM's tools; gives their folder.
fn ensure_tools() -> Result<PathBuf> {
    let rustc = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .current_dir(workspace())
        .output()
        .context("rustc could not be started")?;
    let libraries = PathBuf::from(String::from_utf8(rustc.stdout)?.trim_end());
    let tools = libraries.parent().context("the compiler has no folder")?.join("bin");
    let are_there = || ["llvm-profdata", "llvm-cov"].iter().all(|tool| tools.join(tool).exists());
    if !are_there() {
        progress("Installing", "LLVM's tools (once)");
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "llvm-tools"]).current_dir(workspace());
        let added = rustup.status().is_ok_and(|status| status.success());
        ensure!(
            added && are_there(),
            "LLVM's tools are missing; type: rustup component add llvm-tools"
        );
    }
    Ok(tools)
}

/// What the tests went through, in the format of lcov.
fn export(tools: &Path, profile: &Path, programs: &[PathBuf]) -> Result<String> {
    let mut command = Command::new(tools.join("llvm-cov"));
    command.args(["export", "-skip-functions", "-format", "lcov", "-instr-profile"]).arg(profile);
    command.args(programs.iter().flat_map(|file| [Path::new("-object"), file]));
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "llvm-cov fails");
    Ok(String::from_utf8(output.stdout)?)
}

/// A source's path from the workspace's root, if it is looked at.
fn name_of(path: &str) -> Option<&str> {
    let name = Path::new(path).strip_prefix(workspace()).ok()?.to_str()?;
    let is_test = name.ends_with("/tests.rs") || name.contains("/tests/");
    (name.starts_with(SOURCES) && !name.starts_with(FAKE) && !is_test).then_some(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(workspace().join(name)).unwrap_or_default()
}

/// The line with which the tests inside a source begin.
fn tests_of(name: &str) -> usize {
    read(name).lines().position(|line| line == "#[cfg(test)]").map_or(usize::MAX, |at| at + 1)
}

/// Reads lines (`DA:line,count`) and branches (`BRDA:line,block,branch,count`, `-` if nothing came so far).
fn sources(lcov: &str) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::<String, Source>::new();
    let (mut name, mut end) = (None, 0);
    for record in lcov.lines() {
        if let Some(path) = record.strip_prefix("SF:") {
            name = name_of(path);
            end = name.map_or(0, tests_of);
        }
        let Some(name) = name else { continue };
        let Some((kind, numbers)) = record.split_once(':') else { continue };
        let (line, rest) = numbers.split_once(',').unwrap_or_default();
        let Some(line) = line.parse().ok().filter(|&line| line < end) else { continue };
        let source = sources.entry(name.to_owned()).or_default();
        match kind {
            "DA" => drop(source.lines.insert(line, rest.parse().unwrap_or(0))),
            "BRDA" => {
                source.branches += 1;
                source.branches_taken += usize::from(!rest.ends_with(",0") && !rest.ends_with('-'));
            }
            _ => {}
        }
    }
    sources
}

/// The function whose beginning a line has.
fn function(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with("//"));
    words.find(|&word| word == "fn")?;
    words.next()?.split(['(', '<']).next()
}

/// The lines that are left, by the functions in which they stand.
fn left_of(source: &Source, text: &str) -> BTreeMap<String, Vec<usize>> {
    let mut left = BTreeMap::<_, Vec<_>>::new();
    let lines: Vec<_> = text.lines().collect();
    for line in source.left() {
        let above = lines.get(..line).unwrap_or_default();
        let name = above.iter().rev().find_map(|line| function(line)).unwrap_or("");
        left.entry(name.to_owned()).or_default().push(line);
    }
    left
}

/// What the page's tables say: `| source | function | lines | why |`.
fn explained(page: &str) -> Explained<'_> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`'));
        let key = (cells.next()?, cells.next()?);
        let (lines, why) = (cells.next()?.parse().ok()?, cells.next()?);
        Some((key, lines)).filter(|_| !why.is_empty())
    });
    rows.collect()
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

/// Says what was gone through, and whether that suffices.
fn report(sources: &BTreeMap<String, Source>, explained: &Explained<'_>) -> Result<bool> {
    let row = |name: &str, [lines_done, lines, taken, branches]: [usize; 4]| {
        println!(
            "{name:<34} lines {lines_done:>5} of {lines:>5} ({:>5.1} %)   branches {taken:>5} of {branches:>5} ({:>5.1} %)",
            percent(lines_done, lines),
            percent(taken, branches)
        );
    };
    let mut total = [0; 4];
    for (name, source) in sources {
        row(name, source.numbers());
        total.iter_mut().zip(source.numbers()).for_each(|(sum, part)| *sum += part);
    }
    row("all", total);
    let mut is_well = true;
    let mut needless: Vec<_> = explained.keys().copied().collect();
    for (name, source) in sources {
        let text = read(name);
        let lines: Vec<_> = text.lines().collect();
        for (function, left) in left_of(source, &text) {
            let may = explained.get(&(&**name, &*function)).copied().unwrap_or(0);
            needless.retain(|&key| key != (&**name, &*function));
            if left.len() <= may {
                continue;
            }
            is_well = false;
            println!("{name}, {function}: {} lines are left, {LEFT} explains {may}:", left.len());
            for line in left {
                println!("{line:>5} {}", lines.get(line - 1).unwrap_or(&""));
            }
        }
    }
    for (name, function) in needless {
        println!("{name}, {function}: nothing is left, so {LEFT} need not explain it");
    }
    let suffices = total[0] * 100 >= total[1] * WANTED;
    if !suffices {
        println!("fewer than {WANTED} % of all lines");
    }
    Ok(is_well && suffices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "rm/src/link/queue.rs";

    fn of(name: &str) -> String {
        format!("SF:{}\nDA:1,7\nDA:2,0\nend_of_record\n", workspace().join(name).display())
    }

    #[test]
    fn lines_of_the_manager_count_and_those_of_tests_and_the_fake_do_not() {
        let others = [
            "rm/src/quota/tests.rs",
            "rm/src/stage2/tests/bits.rs",
            "rm/src/machine/fake/tlb.rs",
            "rm/abi/src/list.rs",
        ];
        assert!(sources(&others.map(of).concat()).is_empty());
        let found = sources(&of(LINK));
        assert_eq!(found[LINK].left().collect::<Vec<_>>(), [2]);
        assert_eq!(found[LINK].numbers(), [1, 2, 0, 0]);
        let tests = tests_of(LINK);
        assert!(tests < usize::MAX, "there are tests inside");
        let path = workspace().join(LINK);
        assert!(sources(&format!("SF:{}\nDA:{tests},0\n", path.display())).is_empty());
    }

    #[test]
    fn a_branch_is_taken_if_anything_went_there() {
        let branches = "BRDA:1,0,0,30\nBRDA:1,0,1,0\nBRDA:2,0,0,-\nBRDA:2,0,1,4\n";
        let found = sources(&of(LINK).replace("end_of_record", branches));
        assert_eq!(found[LINK].numbers(), [1, 2, 2, 4]);
    }

    #[test]
    fn a_line_is_its_functions() {
        assert_eq!(function("    pub(crate) const fn new<T>(a: T) -> Self {"), Some("new"));
        assert_eq!(function("    let f: fn(u32) = 3; // the fn that"), None);
        let text = "fn a() {\n    1\n}\n\nfn b() {\n    2\n}\n";
        let lines = (1..=7).filter(|line| *line != 4).map(|line| (line, line as u64 % 2)).collect();
        let source = Source { lines, ..Source::default() };
        let left = left_of(&source, text);
        assert_eq!(left, BTreeMap::from([("a".to_owned(), vec![2]), ("b".to_owned(), vec![6])]));
    }

    #[test]
    fn what_may_be_left_needs_a_reason() {
        let page = "| source | function | lines | why |\n|---|---|---|---|\n\
                    | `a.rs` | `f` | 3 | never |\n| `b.rs` | `f` | 4 | |\n";
        assert_eq!(explained(page), BTreeMap::from([(("a.rs", "f"), 3)]));
    }

    #[test]
    fn more_than_is_explained_does_not_suffice() {
        // What stands in the first lines is in no function.
        let lines = (1..=200).map(|line| (line, u64::from(line > 2))).collect();
        let source = Source { lines, ..Source::default() };
        let sources = BTreeMap::from([(LINK.to_owned(), source)]);
        let report = |may| report(&sources, &BTreeMap::from([((LINK, ""), may)])).unwrap();
        assert!(report(2));
        assert!(!report(1), "one more than is explained");
    }

    #[test]
    fn too_few_lines_do_not_suffice_even_where_all_are_explained() {
        let lines = (1..=20).map(|line| (line, u64::from(line > 2))).collect();
        let sources = BTreeMap::from([(LINK.to_owned(), Source { lines, ..Source::default() })]);
        assert!(!report(&sources, &BTreeMap::from([((LINK, ""), 2)])).unwrap());
    }

    #[test]
    fn the_page_speaks_of_functions_that_there_are() {
        let page = read(LEFT);
        let explained = explained(&page);
        assert!(!explained.is_empty());
        for (name, function) in explained.keys() {
            assert!(name.starts_with(SOURCES), "{name}");
            let text = read(name);
            let found = text.lines().any(|line| super::function(line) == Some(function));
            assert!(found, "{name} has no {function}");
        }
    }
}
