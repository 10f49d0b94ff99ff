//! `cargo run -- flash`: writes a card for a board onto an SD card or stick.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flash::bundle::{Bundle, Place};
use flash::card::Card;
use flash::device::{Device, System};
use flash::permission::{Proof, Size, may_write};
use flash::write::{OpenDevice, Step, steps, write};

use super::image::{self, Contents};
use crate::print::progress;

/// How often progress is shown.
const BLINK: Duration = Duration::from_millis(200);

/// What the user may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The card, as `/dev/sdb`.
    pub device: Option<PathBuf>,
    /// The same again, for a device that is not known to be removable.
    pub yes_write_to: Option<PathBuf>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Makes a card and writes it. Without a device it says which ones there are.
pub fn run(contents: &Contents, options: &Options) -> Result<ExitCode> {
    let system = System::default();
    let Some(named) = &options.device else {
        print!("{}", choices(&system.devices()?));
        if !options.dry_run {
            bail!("which one is to be written? Name it: --device /dev/<name>");
        }
        let bundle = image::make(contents)?.bundle;
        print!("Steps for any of them:\n{}", plan(&bundle, &bundle.card()?));
        return Ok(ExitCode::SUCCESS);
    };
    // A device that may not be written is refused before anything is built.
    let device = system.find(named)?;
    may_write(&device, named, options.yes_write_to.as_deref(), 1)?;
    let made = image::make(contents)?;
    let card = made.bundle.card()?;
    // It may have been mounted or changed in the meantime.
    let device = system.find(named)?;
    let proof =
        may_write(&device, named, options.yes_write_to.as_deref(), card.bytes.len() as u64)?;
    progress("Card", &described(&device, proof));
    if options.dry_run {
        print!("{}", plan(&made.bundle, &card));
        progress("Finished", "the dry run: nothing was written");
        return Ok(ExitCode::SUCCESS);
    }
    let mut medium = OpenDevice::open(&device.path)?;
    let mut display = Display::new(io::stderr().is_terminal());
    write(&card, &mut medium, &mut |step, done| display.show(step, done))?;
    progress("Finished", &format!("{} is written and was read back", named.display()));
    println!("\nTake the card out, put it into the board, and then:");
    for (number, step) in (1..).zip(made.bundle.next_steps(Place::Card)) {
        println!("{number}. {}", step.replace('\n', "\n   "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Model, size, and why it may be written.
fn described(device: &Device, proof: Proof) -> String {
    let (path, model, size) = (device.path.display(), &device.model, Size(device.bytes));
    format!("{path} ({model}, {size}): {proof}")
}

/// All steps, for a dry run, and what the card would hold.
fn plan(bundle: &Bundle, card: &Card) -> String {
    let steps = (1..).zip(steps(card)).map(|(number, step)| format!("{number}. {step}\n"));
    let files = bundle.files.iter().map(|file| (&file.path, file.bytes.len() as u64));
    let files = files.map(|(path, bytes)| format!("   {path} ({})\n", Size(bytes)));
    steps.chain(["Files in the partition:\n".into()]).chain(files).collect()
}

/// The devices of this computer, and what keeps those from being written that may not be.
fn choices(devices: &[Device]) -> String {
    let mut text = String::from("Devices of this computer:\n");
    for device in devices {
        let (path, size, model) =
            (device.path.display().to_string(), Size(device.bytes).to_string(), &device.model);
        let verdict = match may_write(device, Path::new(&path), None, 1) {
            Ok(proof) => format!("may be written: {proof}"),
            Err(refusal) => format!("no: {refusal}"),
        };
        text.push_str(&format!("  {path:<16}{size:>9}  {model:<24}  {verdict}\n"));
    }
    if devices.is_empty() {
        text.push_str("  none\n");
    }
    text
}

/// Progress, in one line that is written again and again; without a terminal, one line for each step.
struct Display {
    terminal: bool,
    last: Option<Instant>,
}

impl Display {
    fn new(terminal: bool) -> Self {
        Self { terminal, last: None }
    }

    fn show(&mut self, step: &Step, done: u64) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= BLINK);
        let Some(line) = self.line(step, done) else { return };
        if self.terminal && !line.ends_with('\n') && !is_due {
            return;
        }
        self.last = Some(Instant::now());
        let mut out = io::stderr();
        let _ = write!(out, "{line}").and_then(|()| out.flush());
    }

    /// What is written for a step of which this much is done.
    fn line(&self, step: &Step, done: u64) -> Option<String> {
        let (verb, piece) = match step {
            Step::Write(piece) => ("Writing", piece),
            Step::Verify(piece) => ("Comparing", piece),
            Step::Settle => {
                return Some(format!("{:>12} until the medium has all of it\n", "Waiting"));
            }
        };
        let (name, all) = (&piece.name, piece.range.end - piece.range.start);
        let at_end = done == all;
        if !self.terminal {
            return (done == 0).then(|| format!("{verb:>12} {name} ({})\n", Size(all)));
        }
        let percent = done * 100 / all.max(1);
        let end = if at_end { "\n" } else { "" };
        // The line may have been longer: clear what is behind.
        Some(format!("\r{verb:>12} {percent:>3} % of {}: {name}\x1b[K{end}", Size(all)))
    }
}

#[cfg(test)]
mod tests {
    use flash::card::{self, File, Piece};
    use flash::device::{Bus, Use};
    use flash::firmware::Firmware;
    use package::Board;

    use super::*;

    fn device(name: &str, bus: Bus, removable: bool, uses: Vec<Use>) -> Device {
        Device {
            name: name.into(),
            path: Path::new("/dev").join(name),
            bytes: 31_914_983_424,
            model: "Some Reader".into(),
            bus,
            removable,
            read_only: false,
            uses,
        }
    }

    #[test]
    fn the_list_says_of_each_device_whether_it_may_be_written_and_why() {
        let list = choices(&[
            device("sda", Bus::Other, false, vec![Use::System { at: "/".into() }]),
            device("sdb", Bus::Usb, true, vec![]),
            device("sdc", Bus::Usb, false, vec![]),
        ]);
        let line = |name: &str| list.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("/dev/sda").contains("no: /dev/sda is in use: this computer runs from it"));
        assert!(line("/dev/sdb").ends_with(
            "31.9 GB  Some Reader               may be written: its medium is removable"
        ));
        assert!(line("/dev/sdc").contains("--yes-write-to /dev/sdc"));
        assert!(choices(&[]).ends_with("none\n"));
    }

    #[test]
    fn a_dry_run_prints_every_step_and_file() {
        let files = vec![File { path: "kernel8.img".into(), bytes: vec![1; 5000] }];
        let card = card::card(4 << 20, &[], &files).unwrap();
        let (firmware, blobs, missing) = (Firmware::of(Board::RPI4), Vec::new(), Vec::new());
        let bundle = Bundle { firmware, files, blobs, missing };
        let text = plan(&bundle, &card);
        assert!(
            text.starts_with("1. write 67.1 MB at byte 0x400000: FAT32 partition with 1 file\n")
        );
        assert!(
            text.contains("\n3. wait until the medium has all of it\n4. read back and compare")
        );
        assert!(text.ends_with("\nFiles in the partition:\n   kernel8.img (5 kB)\n"));
        assert_eq!(text.lines().count(), steps(&card).len() + 2);
    }

    #[test]
    fn progress_is_one_line_on_a_terminal_and_one_for_each_step_elsewhere() {
        let piece = Piece { name: "the partition".into(), range: 100..300 };
        let step = Step::Write(piece);
        let on = Display::new(true);
        let line = |done| on.line(&step, done).unwrap();
        assert_eq!(line(50), "\r     Writing  25 % of 200 bytes: the partition\x1b[K");
        assert_eq!(line(200), "\r     Writing 100 % of 200 bytes: the partition\x1b[K\n");
        let off = Display::new(false);
        assert_eq!(off.line(&step, 0).unwrap(), "     Writing the partition (200 bytes)\n");
        assert_eq!(off.line(&step, 100), None);
    }
}
