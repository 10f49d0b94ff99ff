//! `cargo run -- fuzz`: bytes that a hostile VM or a broken image may contain, chosen by what they reach.
//!
//! `tests/fuzz` has a program for each target; libFuzzer changes inputs, and keeps one that goes where none went before.
//! What is tried first are the corpora that `cargo test` plays, too. What was kept stays in `target/fuzz`, so a later
//! run goes on from there; `--write` brings the smallest part of it that reaches as much into the tree.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::build::{self, workspace};
use crate::doctor;
use crate::print::progress;

/// Something to fuzz.
struct Target {
    /// The program's name.
    name: &'static str,
    /// Lines that end with bytes in hexadecimal, which are tried first.
    seeds: &'static str,
    /// What a line is made into.
    form: fn(&[u8]) -> Vec<Vec<u8>>,
    /// Where what was found is kept.
    found: Option<&'static str>,
    /// How many inputs a process tries before another takes its place: worlds are never freed.
    runs: u64,
}

const TARGETS: [Target; 5] = [
    Target {
        name: "decoders",
        seeds: "rm/tests/corpus/requests.txt",
        form: |request| vec![request.get(HEADER..).unwrap_or_default().to_vec()],
        found: None,
        runs: u64::MAX,
    },
    Target {
        name: "headers",
        seeds: "boards/package/tests/corpus/headers.txt",
        form: |header| vec![header.to_vec()],
        found: None,
        runs: u64::MAX,
    },
    story("requests", "rm/tests/corpus/requests.txt", "rm/tests/corpus/found/requests.txt"),
    story("packets", "rm/tests/corpus/packets.txt", "rm/tests/corpus/found/packets.txt"),
    story("hypercalls", "rm/tests/corpus/hypercalls.txt", "rm/tests/corpus/found/hypercalls.txt"),
];

const fn story(name: &'static str, seeds: &'static str, found: &'static str) -> Target {
    Target { name, seeds, form: stories_of, found: Some(found), runs: 8000 }
}

/// How many states of a parcel the stage of `rm`'s tests has; a higher number is a lower one again.
const STATES: u8 = 42;
/// What a request has before its payload, in bytes.
const HEADER: usize = 8;
/// The longest input, in bytes.
const LONGEST: usize = 1024;
/// The same as `cargo fuzz` asks for: count which edges are gone through, and look at what is compared.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What a user wants of it.
#[derive(Debug)]
pub struct Options {
    /// How long each target is fuzzed, in seconds.
    pub seconds: u64,
    /// An input to play instead.
    pub replay: Option<PathBuf>,
    /// Keep the best inputs in the tree.
    pub write: bool,
}

/// Fuzzes one target, or each.
pub fn run(target: Option<&str>, options: &Options) -> Result<ExitCode> {
    let wanted: Vec<_> =
        TARGETS.iter().filter(|known| target.is_none_or(|name| name == known.name)).collect();
    if wanted.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("nothing to fuzz is called {:?}; there are {names}", target.unwrap_or_default());
    }
    doctor::ensure_cxx()?;
    let folder = workspace().join("target/fuzz");
    let programs = programs(&folder)?;
    for target in wanted {
        let program = programs.join(target.name);
        if let Some(input) = &options.replay {
            let played = Command::new(program).arg(input).status()?;
            return Ok(if played.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let place = Place { target, program, folder: folder.join(target.name) };
        if !place.fuzz(Duration::from_secs(options.seconds))? {
            return Ok(ExitCode::FAILURE);
        }
        if options.write
            && let Some(found) = target.found
        {
            place.write(&workspace().join(found))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all programs; gives their folder.
fn programs(folder: &Path) -> Result<PathBuf> {
    progress("Building", "the fuzz targets");
    let rustc = Command::new("rustc").arg("-vV").current_dir(workspace()).output()?;
    let said = String::from_utf8(rustc.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not name its host")?;
    let mut cargo = build::cargo();
    // With a target that is named, the flags are not those of programs that run for the build.
    cargo.args(["build", "--quiet", "--package", "fuzz", "--bins", "--features", "libfuzzer"]);
    cargo.args(["--profile", "fuzz", "--target", host]);
    cargo.env("CARGO_TARGET_DIR", folder.join("build")).env("RUSTFLAGS", FLAGS);
    ensure!(cargo.status()?.success(), "the fuzz targets could not be built; cargo says why above");
    Ok(folder.join("build").join(host).join("fuzz"))
}

/// A target, and where its files are.
struct Place<'a> {
    target: &'a Target,
    program: PathBuf,
    folder: PathBuf,
}

impl Place<'_> {
    /// Tries inputs for so long; whether nothing was found.
    fn fuzz(&self, time: Duration) -> Result<bool> {
        let name = self.target.name;
        progress("Fuzzing", &format!("{name}, {} s", time.as_secs()));
        let (corpus, seeds) = (self.folder.join("corpus"), self.folder.join("seeds"));
        fs::create_dir_all(&corpus)?;
        self.write_seeds(&seeds)?;
        self.merge(&corpus, &seeds, &[])?;
        let log = self.folder.join("log.txt");
        let end = Instant::now() + time;
        let mut inputs = 0;
        let mut reached = String::new();
        while let Some(left) =
            end.checked_duration_since(Instant::now()).filter(|left| left.as_secs() > 0)
        {
            let mut program = Command::new(&self.program);
            program.arg(&corpus);
            program
                .arg(format!("-max_len={LONGEST}"))
                .arg(format!("-max_total_time={}", left.as_secs()));
            program.arg(self.prefix("-artifact_prefix=")).args([
                "-rss_limit_mb=4096",
                "-timeout=60",
                "-print_final_stats=1",
            ]);
            if self.target.runs != u64::MAX {
                program.arg(format!("-runs={}", self.target.runs));
            }
            program.stderr(File::create(&log)?).stdout(File::create(self.folder.join("said.txt"))?);
            let well = program.status().with_context(|| format!("{name} could not be started"))?;
            let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
            inputs += number_after(&said, "stat::number_of_executed_units:").unwrap_or(0);
            if let Some(places) = said.lines().rev().find_map(|line| number_after(line, " cov: ")) {
                reached = format!(", {places} places reached");
            }
            if !well.success() {
                eprintln!("{}", shown(&said, &log));
                return Ok(false);
            }
        }
        println!("{name}: {inputs} inputs{reached}");
        Ok(true)
    }

    /// Adds to a folder as few inputs of another as reach as much as all.
    fn merge(&self, to: &Path, from: &Path, options: &[&str]) -> Result<()> {
        let mut program = Command::new(&self.program);
        program.args(["-set_cover_merge=1", "-rss_limit_mb=0"]).args(options);
        program.arg(format!("-max_len={LONGEST}")).args([to, from]);
        program.arg(self.prefix("-artifact_prefix="));
        let log = self.folder.join("merged.txt");
        program.stderr(File::create(&log)?);
        let merged = program.status()?.success();
        ensure!(merged, "libFuzzer could not merge; {} says why", log.display());
        Ok(())
    }

    fn prefix(&self, before: &str) -> OsString {
        let mut option = OsString::from(before);
        option.push(self.folder.join(""));
        option
    }

    /// Writes the lines of the corpora as files.
    fn write_seeds(&self, to: &Path) -> Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir_all(to)?;
        let lines = fs::read_to_string(workspace().join(self.target.seeds))?;
        let mut inputs: Vec<_> =
            lines.lines().flat_map(|line| (self.target.form)(&bytes(line))).collect();
        if let Some(found) = self.target.found {
            let lines = fs::read_to_string(workspace().join(found))?;
            inputs.extend(lines.lines().map(bytes));
        }
        for (index, input) in inputs.iter().enumerate() {
            fs::write(to.join(index.to_string()), input)?;
        }
        Ok(())
    }

    /// Writes as few of the inputs as reach as much as all, by name.
    fn write(&self, file: &Path) -> Result<()> {
        let least = self.folder.join("least");
        if least.exists() {
            fs::remove_dir_all(&least)?;
        }
        fs::create_dir_all(&least)?;
        self.merge(&least, &self.folder.join("corpus"), &["-use_counters=0"])?;
        let mut lines = BTreeSet::new();
        for entry in fs::read_dir(&least)? {
            let input = fs::read(entry?.path())?;
            if !input.is_empty() {
                lines.insert(line(&input));
            }
        }
        println!("{}: {} inputs kept", self.target.name, lines.len());
        fs::write(file, lines.into_iter().collect::<String>())?;
        Ok(())
    }
}

/// What is told of a failure: the panic, where the input is, and how it is played again.
fn shown(said: &str, log: &Path) -> String {
    let panic = said.lines().skip_while(|line| !line.contains("panicked at")).take(6);
    let summary = said
        .lines()
        .filter(|line| line.contains("Test unit written to") || line.starts_with("SUMMARY"));
    let mut text: String = panic.chain(summary).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    let _ = write!(
        text,
        "all that was said: {}\nplay it again: cargo run -- fuzz <target> --replay <file>",
        log.display()
    );
    text
}

/// The first number behind a text.
fn number_after(said: &str, text: &str) -> Option<u64> {
    let rest = said.split_once(text)?.1.trim_start();
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The bytes at the end of a line.
fn bytes(line: &str) -> Vec<u8> {
    let digits = line.rsplit(' ').next().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).filter_map(byte).collect()
}

/// A line of what was found, by which it is read again.
fn line(input: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}: {}\n", hex(&Sha256::digest(input)[..4]), hex(input))
}

/// For each state of a parcel, the story in which three VMs send the same, in steps of three sizes.
fn stories_of(input: &[u8]) -> Vec<Vec<u8>> {
    let story = |state: u8| {
        let mut story = vec![state];
        for head in [0, 7, 16] {
            story.push(head);
            story.extend((input.len() as u16).to_le_bytes());
            story.extend(input);
        }
        story
    };
    (0..STATES).map(story).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for input in [&b"\0"[..], b"rm \xff"] {
            assert_eq!(bytes(line(input).trim_end()), input);
        }
        assert_eq!(bytes("half a header: 2101"), [0x21, 1]);
        assert_eq!(bytes("a header | a package | 00ff"), [0, 0xff]);
    }

    #[test]
    fn numbers_are_found_in_what_libfuzzer_says() {
        let said =
            "#8000\tDONE   cov: 3021 ft: 9 corp: 1/1b\nstat::number_of_executed_units: 8000\n";
        assert_eq!(number_after(said, " cov: "), Some(3021));
        assert_eq!(number_after(said, "stat::number_of_executed_units:"), Some(8000));
        assert_eq!(number_after(said, "rss:"), None);
    }

    #[test]
    fn every_target_has_a_program_and_seeds() {
        let programs = fs::read_dir(workspace().join("tests/fuzz/src/bin")).unwrap().count();
        assert_eq!(programs, TARGETS.len());
        for target in &TARGETS {
            let source = format!("tests/fuzz/src/bin/{}.rs", target.name);
            assert!(workspace().join(source).exists(), "{}", target.name);
            let seeds = fs::read_to_string(workspace().join(target.seeds)).unwrap();
            assert!(seeds.lines().filter(|line| !bytes(line).is_empty()).count() > 5);
            assert!(target.found.is_none_or(|found| workspace().join(found).exists()));
        }
    }
}
