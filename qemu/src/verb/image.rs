//! `cargo run -- image`: writes what a board's firmware wants into a folder, or as a card.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use flash::bundle::{Bundle, Place};
use flash::firmware::Firmware;
use flash::image::Image;
use flash::permission::Size;
use package::Board;

use super::{monitor, programs};
use crate::build::Profile;
use crate::machine::Machine;
use crate::print::{self, progress};
use crate::scenario::{self, Scenario};
use crate::sources::Project;

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The board; that of the manifest if it is not named.
    pub board: Option<Board>,
    /// The file that describes the VMs.
    pub manifest: Option<PathBuf>,
    /// Or a scenario of the tests.
    pub scenario: Option<String>,
    /// The user's folder with files of the board's maker.
    pub firmware: Option<PathBuf>,
}

/// An image with all that its board wants.
pub(super) struct Made {
    /// The files.
    pub(super) bundle: Bundle,
    /// The hypervisor's ELF file, which has the texts of its log.
    pub(super) program: PathBuf,
    /// The package's nonce, as EL2 writes it.
    nonce: String,
}

/// Writes the folder, and the card if it is wanted.
pub fn run(contents: &Contents, out: &Path, card: Option<&Path>) -> Result<ExitCode> {
    let made = make(contents)?;
    // What cannot be made is said before anything is written.
    let finished = card.map(|_| made.bundle.card()).transpose()?;
    for path in made.bundle.write(out)? {
        progress("Wrote", &path.display().to_string());
    }
    let texts = out.join("hypervisor.elf");
    fs::copy(&made.program, &texts).with_context(|| format!("cannot write {}", texts.display()))?;
    progress("Wrote", &format!("{} (the texts of the log)", texts.display()));
    if let (Some(path), Some(card)) = (card, finished) {
        fs::write(path, &card.bytes).with_context(|| format!("cannot write {}", path.display()))?;
        let size = Size(card.bytes.len() as u64);
        progress("Wrote", &format!("{} (a card of {size})", path.display()));
    }
    progress("Nonce", &made.nonce);
    let folder = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    println!("{}", next(&made.bundle).replace("<this folder>", &folder.display().to_string()));
    Ok(ExitCode::SUCCESS)
}

/// What the user does next.
fn next(bundle: &Bundle) -> String {
    let steps = bundle.next_steps(Place::Folder);
    let steps = (1..).zip(&steps).map(|(number, step)| {
        let step = step.replace('\n', "\n   ");
        format!("\n{number}. {step}")
    });
    format!("\nWhat to do next ({}):{}", bundle.firmware.board.name(), steps.collect::<String>())
}

/// Builds the programs and puts everything together.
pub(super) fn make(contents: &Contents) -> Result<Made> {
    ensure!(
        contents.manifest.is_some() || contents.scenario.is_some(),
        "of what? Name the file that describes your VMs (--manifest <file>), or a scenario of the \
         tests (--scenario demo)"
    );
    let (board, program, image) = match (&contents.manifest, &contents.scenario) {
        (Some(file), _) => of_manifest(file, contents.board)?,
        (None, Some(name)) => of_scenario(name, contents.board)?,
        (None, None) => bail!("there is nothing to put into an image"),
    };
    let checked = Image::check(&image.bytes, board)?;
    let bundle = Bundle::new(Firmware::of(board), &checked, contents.firmware.as_deref())?;
    monitor::remember(&program)?;
    Ok(Made { bundle, program, nonce: image.nonce })
}

type Assembled = (Board, PathBuf, crate::image::Image);

/// The image of a manifest.
fn of_manifest(file: &Path, wanted: Option<Board>) -> Result<Assembled> {
    // What is wrong with it is said before anything is built.
    let manifest = manifest::load_with(file, &Project::new(file, Profile::Image));
    let manifest = manifest.map_err(|report| {
        let colours = print::wants_colour(io::stderr().is_terminal());
        anyhow!("the manifest cannot be used\n{}", report.render(colours))
    })?;
    let board = manifest.board();
    if let Some(wanted) = wanted.filter(|&wanted| wanted != board) {
        let (file, board, wanted) = (file.display(), board.name(), wanted.name());
        bail!("{file} is for {board}, not for {wanted}: its first line says so");
    }
    let programs = programs(Profile::Image)?;
    let program = programs.path(board.name())?.to_owned();
    let image = crate::image::assemble(&program, manifest.into_writer([0; 16]))?;
    Ok((board, program, image))
}

/// The image of a scenario.
fn of_scenario(name: &str, wanted: Option<Board>) -> Result<Assembled> {
    // As on a board: whoever starts the image may know nothing of semihosting.
    let scenario = Scenario { semihosting: false, ..*scenario::named(name)? };
    let board = wanted.unwrap_or(scenario.machine.board);
    let scenario = Scenario { machine: Machine { board, ..scenario.machine }, ..scenario };
    let programs = programs(Profile::Image)?;
    let program = programs.path(&scenario.el2_program())?.to_owned();
    let image = crate::image::compose(&scenario, &programs)?;
    Ok((board, program, image))
}
