//! Manifests: a file that describes VMs becomes what EL2 is told about them.
//!
//! A manifest is TOML: the board, VMs with their programs, memory, devices and rights, and what they
//! share (`MANIFEST.md` beside this crate lists every key). [`load`] reads one and checks everything that can be checked
//! without the machine, so that EL2 refuses nothing that was accepted here. Every mistake is shown at
//! its line, all at once ([`Report`]). What it gives is a [`Manifest`]: the boot configuration with
//! programs and device trees in it, ready for the image ([`Manifest::into_writer`]).
//!
//! A manifest comes from a person who means well, but also from a mail: nothing in it makes this crate
//! panic, and nothing in it lets a VM have what is EL2's.
#![forbid(unsafe_code)]

mod board;
mod check;
mod config;
mod draft;
pub mod keys;
mod machine;
mod map;
mod plan;
pub mod program;
mod properties;
mod read;
mod report;
mod show;
mod size;
mod sources;
#[cfg(test)]
mod testing;
mod tree;

pub use map::{Claim, Map};
pub use plan::{Manifest, PlannedDevice, PlannedVm};
pub use report::{Problem, Report};
pub use sources::{Folder, NoGuest, Sources};

use std::fs;
use std::path::Path;

use toml::de::DeTable;

use draft::Draft;
use report::{Problems, Span};

/// Reads the manifest at `path`, whose VMs run programs from files.
///
/// # Errors
///
/// All that is wrong with it, to be shown to a person.
pub fn load(path: &Path) -> Result<Manifest, Report> {
    load_with(path, &Folder::of(path))
}

/// Reads the manifest at `path`, with programs from `sources`.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(path: &Path, sources: &dyn Sources) -> Result<Manifest, Report> {
    let text = fs::read_to_string(path).map_err(|error| Report::unreadable(path, error))?;
    parse(path, &text, sources)
}

/// Reads a manifest that is not in a file. Messages call it `path`.
///
/// # Errors
///
/// As [`load`].
pub fn parse(path: &Path, text: &str, sources: &dyn Sources) -> Result<Manifest, Report> {
    let problems = Problems::default();
    let (file, broken) = DeTable::parse_recoverable(text);
    let config = config::read(file.get_ref(), &problems);
    if !broken.is_empty() {
        return Err(Report::new(path, text, unreadable(text, &broken, problems)));
    }
    let mut draft = Draft::new(&config, &problems);
    check::all(&mut draft, sources);
    let manifest = problems.is_empty().then(|| plan::finish(draft)).flatten();
    manifest.ok_or_else(|| Report::new(path, text, problems))
}

/// What to say about a file that is no TOML: where, and what else is wrong on lines that could be read.
fn unreadable(text: &str, broken: &[toml::de::Error], others: Problems) -> Problems {
    let problems = Problems::default();
    let line =
        |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count();
    let whole = |span: Option<Span>| span.unwrap_or(0..0);
    let lines: Vec<_> = broken.iter().map(|error| line(whole(error.span()).start)).collect();
    for error in broken {
        problems.add(Problem::new(&whole(error.span()), error.message()));
    }
    // Something may seem to be missing only because its line could not be read.
    let others = others.into_vec().into_iter().filter(|problem| !problem.is_absence());
    others
        .filter(|problem| problem.start().is_none_or(|at| !lines.contains(&line(at))))
        .for_each(|problem| problems.add(problem));
    problems
}
