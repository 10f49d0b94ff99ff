//! One QEMU process per run.
//!
//! The process dies with the tool, however the tool ends: [`Process`] kills it when dropped (errors
//! and panics of ours included), and on Linux the kernel kills it when the tool is gone.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wait_timeout::ChildExt;

use crate::build::Programs;
use crate::firmware;
use crate::image::{self, Image};
use crate::keyboard::{Input, Keyboard};
use crate::log::{Line, Splitter, Texts};
use crate::scenario::Scenario;
use crate::symbols::{self, Function};
use crate::typing::{Script, Typist};
use crate::verdict::{self, End, Evidence};

/// How long a debugger or a person may take, in seconds.
pub const A_DAY: u64 = 24 * 60 * 60;

/// Everything that a run needs, on disk.
pub struct Prepared<'a> {
    scenario: &'a Scenario,
    program: PathBuf,
    texts: Texts,
    nonce: String,
    directory: PathBuf,
    more: Vec<String>,
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The decoded log.
    pub lines: Vec<Line>,
    /// Everything on EL2's UART.
    pub uart: String,
    /// What QEMU itself complained about.
    pub complaints: String,
    /// EL2's trace, if it printed one.
    pub trace: Vec<Function>,
    /// The verdict of the harness: what was done, or what is wrong.
    pub judgement: Result<String, String>,
}

impl<'a> Prepared<'a> {
    /// Composes the image, with a nonce of its own, into a folder of its own.
    pub fn new(
        scenario: &'a Scenario,
        programs: &Programs,
        directory: impl Into<PathBuf>,
    ) -> Result<Self> {
        let program = programs.path(&scenario.el2_program())?.to_owned();
        let image = image::compose(scenario, programs)?;
        Self::of(scenario, program, image, directory)
    }

    /// As [`Prepared::new`], of an image that is there already, behind the hypervisor `program`.
    pub fn of(
        scenario: &'a Scenario,
        program: PathBuf,
        image: Image,
        directory: impl Into<PathBuf>,
    ) -> Result<Self> {
        let directory = directory.into();
        let Image { bytes, nonce } = image;
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("image"), bytes))
            .with_context(|| format!("cannot write to {}", directory.display()))?;
        if scenario.firmware_tree {
            let tree = firmware::tree(scenario.machine.board)?;
            fs::write(directory.join("firmware.dtb"), tree)?;
        }
        let texts = Texts::of(&program)?;
        Ok(Self { scenario, program, texts, nonce, directory, more: Vec::new() })
    }

    /// Tells QEMU more.
    pub fn with_arguments(self, more: Vec<String>) -> Self {
        Self { more, ..self }
    }

    /// The ELF file of what runs at EL2.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The image that QEMU loads.
    pub fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// The machine's memory, as the run has left it, from the first byte of RAM on. Only of a scenario
    /// that [keeps](Scenario::keeps_memory) it.
    pub fn memory(&self) -> PathBuf {
        self.directory.join("memory")
    }

    fn firmware_tree(&self) -> PathBuf {
        self.directory.join("firmware.dtb")
    }

    fn uart(&self) -> PathBuf {
        self.directory.join("uart.txt")
    }

    /// The QEMU command line.
    pub fn command(&self, qemu: &Path) -> Command {
        let mut command = Command::new(qemu);
        command.args(self.scenario.machine.arguments()).args(&self.more);
        if self.scenario.keeps_memory {
            let path = self.memory().display().to_string();
            command.arg("-object");
            command.arg(format!("memory-backend-file,id=ram,size=1G,share=on,mem-path={path}"));
            command.args(["-machine", "memory-backend=ram"]);
        }
        command.arg("-kernel").arg(self.image());
        if self.scenario.firmware_tree {
            command.arg("-dtb").arg(self.firmware_tree());
        }
        if self.scenario.semihosting {
            // The log comes on standard output: that is what semihosting calls the console.
            command.args(["-semihosting-config", "enable=on,target=native"]);
            let path = self.uart().display().to_string();
            command.arg("-chardev");
            command.arg(format!("file,id=uart,path={path},input-path=/dev/stdin"));
            command.args(["-serial", "chardev:uart"]);
        } else {
            command.args(["-serial", "stdio"]);
        }
        command
    }

    /// Runs it to its end, or to the end of its time. `watch` sees each line as it comes.
    pub fn run(&self, qemu: &Path, watch: &mut dyn FnMut(&Line)) -> Result<Outcome> {
        self.run_for(self.scenario.seconds, &mut self.command(qemu), None, watch)
    }

    /// Runs it to its end or until the user ends it, who types at it.
    pub fn run_by_hand(
        &self,
        qemu: &Path,
        keyboard: &Keyboard,
        watch: &mut dyn FnMut(&Line),
    ) -> Result<Outcome> {
        self.run_for(A_DAY, &mut self.command(qemu), Some(keyboard), watch)
    }

    /// Runs it with its CPUs stopped until a debugger at port 1234 lets them go.
    pub fn debug(&self, qemu: &Path, watch: &mut dyn FnMut(&Line)) -> Result<Outcome> {
        self.run_for(A_DAY, self.command(qemu).args(["-s", "-S"]), None, watch)
    }

    fn run_for(
        &self,
        seconds: u64,
        command: &mut Command,
        keyboard: Option<&Keyboard>,
        watch: &mut dyn FnMut(&Line),
    ) -> Result<Outcome> {
        // What an earlier run left must not be taken for this one's.
        let _ = fs::remove_file(self.uart());
        let _ = fs::remove_file(self.memory());
        let complaints = self.directory.join("qemu.txt");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&complaints)?);
        let mut process = Process::start(command)?;
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let Heard { lines, mut uart, quit } =
            self.listen(&mut process, deadline, keyboard, watch)?;
        let end = if quit { End::Quit } else { process.end(deadline, seconds)? };
        if self.scenario.semihosting {
            let wire = fs::read(self.uart()).unwrap_or_default();
            let mut splitter = Splitter::default();
            splitter.split(&wire, &mut uart);
            splitter.finish(&mut uart);
        }
        Ok(self.outcome(end, lines, uart, text(&complaints)))
    }

    /// Reads standard output until it is closed, the time is over or the user has enough.
    fn listen(
        &self,
        process: &mut Process,
        deadline: Instant,
        keyboard: Option<&Keyboard>,
        watch: &mut dyn FnMut(&Line),
    ) -> Result<Heard> {
        let output = process.0.stdout.take().context("QEMU has no standard output")?;
        let input = process.0.stdin.take().context("QEMU has no standard input")?;
        let (sender, events) = sync_channel(64);
        let typist = Typist::new(input);
        if let Some(keyboard) = keyboard {
            type_on(keyboard, typist.clone(), sender.clone());
        }
        read(output, sender);
        let mut script = Script::new(self.scenario.types);
        let mut decoder = self.texts.decoder(self.scenario.vm_names());
        let (mut splitter, mut lines, mut uart) = (Splitter::default(), Vec::new(), String::new());
        let mut quit = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = match events.recv_timeout(left) {
                Ok(Event::Output(chunk)) => chunk,
                Ok(Event::Quit) => {
                    quit = true;
                    break;
                }
                Ok(Event::Closed) | Err(_) => break,
            };
            let mixed = !self.scenario.semihosting;
            let frames = if mixed { splitter.split(&chunk, &mut uart) } else { chunk };
            for line in decoder.feed(&frames) {
                watch(&line);
                script.after(&line).into_iter().for_each(|bytes| typist.send(bytes));
                lines.extend((!line.part).then_some(line));
            }
        }
        lines.extend(decoder.finish());
        splitter.finish(&mut uart);
        Ok(Heard { lines, uart, quit })
    }

    fn outcome(&self, end: End, lines: Vec<Line>, uart: String, complaints: String) -> Outcome {
        let trace = symbols::functions(&self.program, &symbols::addresses(&uart));
        let names: Vec<String> = trace.iter().map(|function| function.name.clone()).collect();
        let evidence = Evidence {
            end,
            semihosting: self.scenario.semihosting,
            uart: &uart,
            nonce: &self.nonce,
            trace: &names,
        };
        let judgement = verdict::judge(self.scenario.expect, &evidence)
            .and_then(|done| said(self.scenario.log, &lines).map(|()| done));
        Outcome { end, lines, uart, complaints, trace, judgement }
    }
}

/// Checks that the log contains all texts, in the order in which they were read, or in which they were
/// begun: what a CPU has written last may be read behind what another wrote later, and a prompt is begun
/// long before the line is full.
fn said(wanted: &[&str], lines: &[Line]) -> Result<(), String> {
    let read: Vec<_> = lines.iter().collect();
    let mut last = 0.0;
    let time = |line: &&Line| {
        last = line.time.trim().parse().unwrap_or(last);
        last
    };
    let times: Vec<f64> = read.iter().map(time).collect();
    let mut begun: Vec<_> = times.into_iter().zip(lines).collect();
    begun.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let begun: Vec<_> = begun.into_iter().map(|(_, line)| line).collect();
    in_order(wanted, &begun).or_else(|_| in_order(wanted, &read))
}

fn in_order(wanted: &[&str], lines: &[&Line]) -> Result<(), String> {
    let mut rest = lines.iter();
    for text in wanted {
        if !rest.any(|line| line.text.contains(text)) {
            return Err(format!("the log lacks {text:?} (or has it before an earlier text)"));
        }
    }
    Ok(())
}

/// A QEMU that is running. Dropping it kills it.
pub struct Process(Child);

impl Process {
    /// Starts the command so that it cannot outlive the tool.
    pub fn start(command: &mut Command) -> Result<Self> {
        die_with_us(command);
        let program = command.get_program().to_owned();
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// Waits until it ends; kills it at the deadline.
    pub(crate) fn end(&mut self, deadline: Instant, seconds: u64) -> Result<End> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.0.wait_timeout(left)? {
            Some(status) => Ok(status.code().map_or(End::Killed, End::Code)),
            None => Ok(End::Timeout(seconds)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the kernel kill the process when the thread that starts it ends, which is also when the
/// tool is interrupted or killed. Elsewhere a terminal's Ctrl-C reaches QEMU by itself.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;

    let tie = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system
    // call that neither allocates nor takes a lock.
    unsafe { command.pre_exec(tie) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_command: &mut Command) {}

/// What was heard of a run.
struct Heard {
    lines: Vec<Line>,
    uart: String,
    /// The user has ended it.
    quit: bool,
}

/// What a run waits for.
enum Event {
    /// QEMU wrote this.
    Output(Vec<u8>),
    /// It will write no more.
    Closed,
    /// The user wants the end.
    Quit,
}

/// Reads a pipe on a thread of its own, so that waiting for it can have a limit.
fn read(mut output: ChildStdout, sender: SyncSender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            if sender.send(Event::Output(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        // Nobody may listen any more.
        let _ = sender.send(Event::Closed);
    });
}

/// Lets the user type.
fn type_on(keyboard: &Keyboard, typist: Typist, sender: SyncSender<Event>) {
    keyboard.listen(move |input| match input {
        Input::Bytes(bytes) => {
            typist.send(&bytes);
            true
        }
        Input::Quit => {
            // The run may have ended already.
            let _ = sender.send(Event::Quit);
            false
        }
    });
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;

    fn line(text: &str) -> Line {
        let text = text.to_owned();
        Line { time: String::new(), level: Level::Info, vm: None, text, part: false, place: None }
    }

    #[test]
    fn order_is_when_it_was_begun_or_read() {
        let at = |time: &str, text: &str| Line { time: time.into(), ..line(text) };
        let lines = [at("  0.297", "later"), at("  0.277", "earlier"), line("with it")];
        assert!(said(&["earlier", "with it", "later"], &lines).is_ok());
        assert!(said(&["later", "earlier", "with it"], &lines).is_ok());
        assert!(said(&["with it", "earlier"], &lines).is_err());
    }

    #[test]
    fn texts_must_come_in_order() {
        let lines = [line("one"), line("two"), line("three")];
        assert!(said(&["one", "three"], &lines).is_ok());
        assert!(said(&["three", "one"], &lines).is_err());
        assert!(said(&["four"], &lines).is_err());
    }

    #[test]
    fn a_process_that_hangs_is_ended_in_time() {
        let mut sleeper = Process::start(Command::new("sleep").arg("1000")).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(sleeper.end(soon, 7).unwrap(), End::Timeout(7));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let sleeper = Process::start(Command::new("sleep").arg("1000")).unwrap();
        let id = sleeper.0.id();
        drop(sleeper);
        assert!(!Path::new(&format!("/proc/{id}/cmdline")).exists());
    }
}
