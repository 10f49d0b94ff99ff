//! `cargo run -- monitor`: shows what a board's UART says.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use package::Board;

use super::programs;
use crate::build::{Profile, workspace};
use crate::keyboard::{Input, KEYS, Keyboard};
use crate::monitor::{Monitor, QUIET};
use crate::print::{Printer, progress};
use crate::serial::{self, Port, chunks};
use crate::typing::Typist;

/// How often a port that has gone is looked for.
const LOOK: Duration = Duration::from_millis(300);

/// What the user may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The hypervisor whose log it is is this board's, as built from the present sources.
    pub board: Option<Board>,
    /// The hypervisor's ELF file.
    pub elf: Option<PathBuf>,
    /// End when the port goes away.
    pub once: bool,
    /// Keep the bytes as they come.
    pub save: Option<PathBuf>,
    /// Show file and line of each message.
    pub places: bool,
}

/// Shows a serial port until the user ends it, or a file (`-`: standard input) to its end.
pub fn run(source: &str, options: &Options) -> Result<ExitCode> {
    let path = Path::new(source);
    // What cannot be opened is said before anything is built.
    let port = is_port(path).then(|| Port::open(path)).transpose()?;
    let program = program(options)?;
    let mut monitor = Monitor::new(&program, Printer::stdout([].into_iter(), options.places))?;
    let mut save = match &options.save {
        Some(file) => {
            Some(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
        }
        None => None,
    };
    let mut out = io::stdout();
    let mut kept = |bytes: &[u8]| save.as_mut().map_or(Ok(()), |save| save.write_all(bytes));
    let hands = Hands::default();
    let Some(mut port) = port else {
        follow(&read(source)?, &mut monitor, &mut kept, &mut out, &hands.quit)?;
        return Ok(ExitCode::SUCCESS);
    };
    let keyboard = Keyboard::open();
    let keys = if keyboard.is_some() { KEYS } else { "Ctrl-C ends" };
    progress("Reading", &format!("{source} with the texts of {}", program.display()));
    progress("Keys", keys);
    if let Some(keyboard) = &keyboard {
        keyboard.listen(hands.clone().typing());
    }
    loop {
        hands.reach(&port)?;
        follow(&port.bytes()?, &mut monitor, &mut kept, &mut out, &hands.quit)?;
        drop(port);
        if hands.quits() {
            return Ok(ExitCode::SUCCESS);
        }
        if options.once {
            progress("Finished", &format!("{source} has gone"));
            return Ok(ExitCode::SUCCESS);
        }
        progress("Waiting", &format!("{source} has gone; it is read again when it is back"));
        let Some(back) = wait_for(path, &hands) else { return Ok(ExitCode::SUCCESS) };
        port = back;
        progress("Reading", &format!("{source} again"));
    }
}

/// The way from the keyboard to a port that comes and goes.
#[derive(Clone, Default)]
struct Hands {
    quit: Arc<AtomicBool>,
    typist: Arc<Mutex<Option<Typist>>>,
}

impl Hands {
    /// From now on what is typed goes to this port.
    fn reach(&self, port: &Port) -> io::Result<()> {
        let typist = Typist::new(port.writer()?);
        *self.typist.lock().unwrap_or_else(PoisonError::into_inner) = Some(typist);
        Ok(())
    }

    fn quits(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }

    /// What is done with each key.
    fn typing(self) -> impl FnMut(Input) -> bool + Send + 'static {
        move |input| {
            match input {
                Input::Bytes(bytes) => {
                    let typist = self.typist.lock().unwrap_or_else(PoisonError::into_inner);
                    typist.iter().for_each(|typist| typist.send(&bytes));
                }
                Input::Quit => self.quit.store(true, Ordering::Relaxed),
            }
            !self.quits()
        }
    }
}

/// Shows all that comes, until nothing more can come or the user ends it.
pub fn follow(
    bytes: &Receiver<Vec<u8>>,
    monitor: &mut Monitor,
    keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    out: &mut dyn Write,
    quit: &AtomicBool,
) -> io::Result<()> {
    while !quit.load(Ordering::Relaxed) {
        match bytes.recv_timeout(QUIET) {
            Ok(bytes) => {
                keep(&bytes)?;
                monitor.feed(&bytes, out)?;
            }
            Err(RecvTimeoutError::Timeout) => monitor.quiet(out)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    monitor.finish(out)
}

/// Whether it is to be opened as a port. What is missing in `/dev` is: the answer then names the ports
/// that are there.
fn is_port(path: &Path) -> bool {
    serial::is_device(path) || path.starts_with("/dev") && !path.exists()
}

/// The bytes of a file, or of standard input.
fn read(source: &str) -> Result<Receiver<Vec<u8>>> {
    if source == "-" {
        return Ok(chunks(io::stdin()));
    }
    Ok(chunks(File::open(source).with_context(|| format!("cannot read {source}"))?))
}

/// Waits until a port is back, unless the user does not. Its owner is set a moment after it appears, so
/// errors are no end.
fn wait_for(path: &Path, hands: &Hands) -> Option<Port> {
    while !hands.quits() {
        thread::sleep(LOOK);
        if let Ok(port) = Port::open(path) {
            return Some(port);
        }
    }
    None
}

/// The ELF file with the texts of the log.
fn program(options: &Options) -> Result<PathBuf> {
    match (&options.elf, options.board) {
        (Some(elf), _) => Ok(elf.clone()),
        (None, Some(board)) => {
            let programs = programs(Profile::Image)?;
            Ok(programs.path(board.name())?.to_owned())
        }
        (None, None) => {
            let last = last_program();
            if !last.exists() {
                bail!(
                    "which program writes this log? Name its ELF file (--elf <dir>/hypervisor.elf, \
                     which `image` writes beside the image) or its board (--board <board>)"
                );
            }
            Ok(last)
        }
    }
}

/// Where the ELF file of the image that was written last is kept: what `monitor` takes if it is told
/// nothing else.
pub fn last_program() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target")).join("last-image.elf")
}

/// Keeps the ELF file of an image that is being written.
pub(super) fn remember(program: &Path) -> Result<()> {
    let last = last_program();
    fs::copy(program, &last).with_context(|| format!("cannot write {}", last.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn only_what_is_a_device_or_would_be_one_is_opened_as_a_port() {
        assert!(is_port(Path::new("/dev/ttyUSB999")) && is_port(Path::new("/dev/null")));
        assert!(!is_port(Path::new("-")) && !is_port(Path::new("no-such-log")));
        let error = read("no-such-log").unwrap_err().to_string();
        assert_eq!(error, "cannot read no-such-log");
    }

    #[test]
    fn keys_reach_the_port_that_is_there() {
        let hands = Hands::default();
        let mut keys = hands.clone().typing();
        assert!(keys(Input::Bytes(b"lost".into())), "no port is no reason to end");
        for key in [b"a", b"b"] {
            let board = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&board).unwrap();
            unlockpt(&board).unwrap();
            let name = ptsname(&board, Vec::new()).unwrap().into_string().unwrap();
            let port = Port::open(Path::new(&name)).unwrap();
            hands.reach(&port).unwrap();
            assert!(keys(Input::Bytes(key.to_vec())));
            let mut came = [0];
            File::from(board).read_exact(&mut came).unwrap();
            assert_eq!(&came, key);
        }
        assert!(!keys(Input::Quit));
        assert!(wait_for(Path::new("/nonexistent"), &hands).is_none());
    }
}
