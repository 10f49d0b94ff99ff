//! Cargo, called for the target.
//!
//! Each profile is built with one fixed command line: features are unified over the packages of a
//! command, so two different ones would take turns in rebuilding the same crates.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The compiler's name for the target. Without FP and SIMD registers: EL2 must not touch a VM's.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// How the image is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What is flashed.
    Image,
    /// As `Image`, but EL2 notes how long it holds locks, which costs a little at each. It takes the
    /// place of the other's program, for as long as nobody builds that again.
    Timed,
    /// With the assertions, for the scenarios.
    Check,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Image | Self::Timed => "image",
            Self::Check => "image-check",
        }
    }

    /// The packages whose programs are wanted.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Image | Self::Timed => &["boards", "guests"],
            Self::Check => &["boards", "guests", "el2-tests"],
        }
    }

    /// The features that are asked for.
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Image | Self::Check => &[],
            Self::Timed => &["boards/lock-times"],
        }
    }
}

/// The programs that a build has made, by name.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// The ELF file of the program.
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| {
            let known = self.0.keys().cloned().collect::<Vec<_>>().join(", ");
            format!("no program is called {name}; there are {known}")
        })
    }

    /// The names of all programs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Cargo's target directory, where runs keep their files too.
    pub fn target_directory(&self) -> Option<&Path> {
        // target / triple / profile / program
        self.0.values().next()?.ancestors().nth(3)
    }
}

/// The folder that holds the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tool lies in the workspace")
}

/// A command that runs this workspace's cargo.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // An exported RUSTFLAGS would replace the target's flags in .cargo/config.toml.
    cargo.current_dir(workspace()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env(FEATURE.0, FEATURE.1);
    cargo
}

/// Cortex-A53 up to r0p4 may compute a wrong product behind a load or store; LLVM can put a NOP in
/// between (`hyp/src/errata.rs`). Cargo adds this to the target's flags in `.cargo/config.toml`.
const FEATURE: (&str, &str) = (
    "CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_RUSTFLAGS",
    "-Ctarget-feature=+fix-cortex-a53-835769",
);
/// What rustc says of it in every crate, so that it stands here and not in the file. That it does what
/// it should is a test's to say (`tests/tests/errata.rs`).
const KNOWN_WARNING: &str =
    "unstable feature specified for `-Ctarget-feature`: `fix-cortex-a53-835769`";

/// Builds everything that runs on the target. Cargo reports its progress itself.
pub fn programs(profile: Profile) -> Result<Programs> {
    let mut cargo = cargo();
    cargo.args(["build", "--bins", "--target", TARGET, "--profile", profile.name()]);
    cargo.arg("--message-format=json");
    cargo.args(profile.packages().iter().flat_map(|package| ["--package", package]));
    cargo.args(profile.features().iter().flat_map(|feature| ["--features", feature]));
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo could not be started")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().filter_map(diagnostic).for_each(|text| eprint!("{text}"));
    if !output.status.success() {
        bail!("the programs for {TARGET} could not be built; cargo says why above");
    }
    Ok(Programs(messages.lines().filter_map(executable).collect()))
}

/// What stands for the tests inside a crate.
pub(crate) const UNIT: &str = "lib";

/// Builds programs of tests of `rm` with a cargo that is set up for that, or all; gives their names and files.
pub(crate) fn tests(mut cargo: Command, programs: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    cargo.args(["test", "--package", "rm", "--no-run", "--message-format=json", "--quiet"]);
    for program in programs {
        match *program {
            UNIT => cargo.arg("--lib"),
            name => cargo.args(["--test", name]),
        };
    }
    if programs.is_empty() {
        cargo.args(["--lib", "--tests"]);
    }
    let output = cargo.stderr(Stdio::piped()).output().context("cargo could not be started")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{}", messages.lines().filter_map(diagnostic).collect::<String>());
    }
    Ok(messages.lines().filter_map(executable).collect())
}

/// What the compiler says to the user, if this message of cargo's is about that.
pub(crate) fn diagnostic(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = message["message"]["rendered"].as_str()?;
    (!text.contains(KNOWN_WARNING)).then(|| text.to_owned())
}

/// Name and path of the program, if this message of cargo's is about one.
pub(crate) fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let path = message["executable"].as_str()?;
    Some((name.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_program_gives_its_path() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":"/t/a"}"#;
        assert_eq!(executable(message), Some(("a".into(), "/t/a".into())));
    }

    #[test]
    fn the_compiler_is_heard_but_for_the_warning_that_is_known() {
        let message = |text: &str| format!(r#"{{"message":{{"rendered":"warning: {text}"}}}}"#);
        assert_eq!(diagnostic(&message("unused")).as_deref(), Some("warning: unused"));
        assert_eq!(diagnostic(&message(&format!("unknown and {KNOWN_WARNING}"))), None);
        assert_eq!(diagnostic(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn other_messages_are_skipped() {
        let library = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not json"), None);
    }
}
