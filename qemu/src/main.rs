//! The command line of the project's tool.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use package::Board;
use qemu::scenario;
use qemu::verb::{
    bench, check, coverage, doctor, flash, fuzz, image, list, map, miri, monitor, mutate, run,
};

/// Runs the resource manager and its VMs under QEMU.
///
/// Without a command it boots the demo: VMs that share, lend and take back memory. The first run
/// installs what is missing (compiler target, QEMU) and builds; later ones start within seconds.
#[derive(Parser)]
#[command(name = "cargo run --", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Boot an example of how a VM uses the resource manager; without a name, list them.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    example: Option<String>,
    /// Wait for a debugger before the first instruction, and say what to type.
    #[arg(long, global = true)]
    gdb: bool,
    /// Show file and line of each message of the log.
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Boot a scenario and show its log (`list` names them).
    Run {
        /// The scenario.
        #[arg(default_value = "demo")]
        scenario: String,
        /// Run the VMs that this file describes instead.
        #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
        manifest: Option<PathBuf>,
    },
    /// List the scenarios.
    List,
    /// Read a manifest and show what would be built, or all that is wrong with it.
    Check {
        /// The manifest.
        manifest: PathBuf,
        /// A folder for the device trees of the VMs.
        #[arg(long)]
        device_trees: Option<PathBuf>,
    },
    /// Find what a build and a run need; install it where that is possible.
    Doctor {
        /// Want a QEMU that has a model of every board.
        #[arg(long)]
        all_boards: bool,
    },
    /// Write what a board starts from into a folder: image, configuration, and what to do next.
    Image {
        #[command(flatten)]
        contents: Contents,
        /// The folder.
        #[arg(long, short, value_name = "FOLDER", default_value = "target/image")]
        out: PathBuf,
        /// Write an SD card as a file, too.
        #[arg(long, value_name = "FILE")]
        card_image: Option<PathBuf>,
    },
    /// Write an SD card for a board, and read it back. Without a device: list those that there are.
    Flash {
        #[command(flatten)]
        contents: Contents,
        /// The card, as /dev/sdb. It must be removable and unused.
        #[arg(long)]
        device: Option<PathBuf>,
        /// The same name again, for a device that is not known to be removable. All on it is lost.
        #[arg(long, value_name = "DEVICE")]
        yes_write_to: Option<PathBuf>,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Draw who owns, lends, borrows and maps which memory: tables here, a picture in a file.
    Map {
        /// The scenario; one of its VMs looks at the others.
        #[arg(default_value = "map")]
        scenario: String,
        /// The file for the picture.
        #[arg(long, short, default_value = "target/map.svg")]
        output: PathBuf,
    },
    /// Show what a board says on its UART: log and consoles, decoded.
    Monitor {
        /// The serial port (as /dev/ttyUSB0), a file with what came from one, or `-`.
        source: String,
        /// The board: the log is that of its hypervisor as built from the present sources.
        #[arg(long, value_parser = board)]
        board: Option<Board>,
        /// The ELF file of the hypervisor that writes the log, as `image` leaves it beside an image.
        /// Without it, and without a board: that of the image that was written last.
        #[arg(long)]
        elf: Option<PathBuf>,
        /// End when the port goes away instead of waiting for it.
        #[arg(long)]
        once: bool,
        /// Keep the bytes in a file as they come; `monitor <file>` shows them again.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// Make mistakes in a copy of `rm`, one at a time, and see which test notices.
    Mutate {
        /// A part of the names of the mistakes.
        #[arg(default_value = "")]
        filter: String,
        /// Write down what noticed them.
        #[arg(long)]
        write: bool,
    },
    /// Count which lines of `rm` its tests go through, and list those that are left.
    Coverage,
    /// Run the tests of `rm` under Miri, an interpreter that notices undefined behaviour.
    Miri {
        /// Programs of tests, such as `guarantees`; `lib` are the tests inside the crates. All if none is named.
        programs: Vec<String>,
    },
    /// Try bytes that a hostile VM or a broken image may contain, guided by what they reach.
    Fuzz {
        /// What is fuzzed; without a name, each in turn.
        target: Option<String>,
        /// For how long each, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Play what was found once more.
        #[arg(long, value_name = "FILE", requires = "target")]
        replay: Option<PathBuf>,
        /// Keep what reaches most in the corpus that `cargo test` plays.
        #[arg(long, conflicts_with = "replay")]
        write: bool,
    },
    /// Count the instructions of each operation and compare with other hypervisors.
    Bench,
}

/// What an image is made of.
#[derive(Args)]
struct Contents {
    /// The board; that of the manifest if it is not named.
    #[arg(long, value_parser = board)]
    board: Option<Board>,
    /// The file that describes the VMs.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// A scenario of the tests instead (`list` names them).
    #[arg(long, conflicts_with = "manifest")]
    scenario: Option<String>,
    /// A folder with what the board's maker gives: boot loader, firmware.
    #[arg(long, value_name = "FOLDER")]
    firmware: Option<PathBuf>,
}

impl From<Contents> for image::Contents {
    fn from(given: Contents) -> Self {
        let Contents { board, manifest, scenario, firmware } = given;
        Self { board, manifest, scenario, firmware }
    }
}

fn main() -> ExitCode {
    serve(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn serve(arguments: Arguments) -> Result<ExitCode> {
    let options = run::Options { gdb: arguments.gdb, places: arguments.verbose };
    match arguments.verb {
        Some(_) if arguments.example.is_some() => bail!("`--example` goes without a command"),
        None => match arguments.example.as_deref() {
            None => run::run("demo", options),
            Some("") => list::examples(),
            Some(name) => run::run(scenario::example(name)?.name, options),
        },
        Some(Verb::Run { manifest: Some(file), .. }) => run::run_manifest(&file, options),
        Some(Verb::Run { scenario, .. }) => run::run(&scenario, options),
        Some(Verb::List) => list::run(),
        Some(Verb::Check { manifest, device_trees }) => {
            check::run(&manifest, device_trees.as_deref())
        }
        Some(Verb::Doctor { all_boards }) => doctor::run(all_boards),
        Some(Verb::Image { contents, out, card_image }) => {
            image::run(&contents.into(), &out, card_image.as_deref())
        }
        Some(Verb::Flash { contents, device, yes_write_to, dry_run }) => {
            flash::run(&contents.into(), &flash::Options { device, yes_write_to, dry_run })
        }
        Some(Verb::Map { scenario, output }) => map::run(&scenario, &output),
        Some(Verb::Monitor { source, board, elf, once, save }) => {
            let places = arguments.verbose;
            monitor::run(&source, &monitor::Options { board, elf, once, save, places })
        }
        Some(Verb::Mutate { filter, write }) => mutate::run(&mutate::Options { filter, write }),
        Some(Verb::Coverage) => coverage::run(),
        Some(Verb::Miri { programs }) => miri::run(&programs),
        Some(Verb::Fuzz { target, seconds, replay, write }) => {
            fuzz::run(target.as_deref(), &fuzz::Options { seconds, replay, write })
        }
        Some(Verb::Bench) => bench::run(),
    }
}

/// The board that a user means.
fn board(name: &str) -> Result<Board, String> {
    boards::named(name).ok_or_else(|| {
        let known: Vec<_> = boards::ids().map(Board::name).collect();
        format!("there are {}", known.join(", "))
    })
}
