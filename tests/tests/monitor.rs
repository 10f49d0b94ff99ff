//! What `cargo run -- monitor` shows of a machine that has a UART and nothing else.
//!
//! QEMU's UART is a pseudo terminal, which the tool opens and sets up as it does a serial port.
//! Semihosting is off, so the log comes as frames between plain text, as from a board.

use std::io::{self, BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use qemu::build::{self, Profile, Programs};
use qemu::doctor::{self, Tools};
use qemu::launch::Prepared;
use qemu::monitor::Monitor;
use qemu::print::Printer;
use qemu::scenario::{self, Scenario};
use qemu::serial::Port;
use qemu::verb::monitor::follow;

const PATIENCE: Duration = Duration::from_secs(120);

/// Tools and programs, brought once.
fn bench() -> &'static (Tools, Programs) {
    static BENCH: OnceLock<(Tools, Programs)> = OnceLock::new();
    BENCH.get_or_init(|| (doctor::ensure().unwrap(), build::programs(Profile::Check).unwrap()))
}

/// What was shown so far.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A QEMU that ends with the test.
struct Machine(Child);

impl Machine {
    /// A machine that waits for [`Machine::go`], and the terminal at its UART.
    fn start(prepared: &Prepared<'_>) -> (Self, PathBuf) {
        let given = prepared.command(&bench().0.qemu);
        let mut arguments: Vec<_> = given.get_args().map(ToOwned::to_owned).collect();
        let stdio = arguments.iter().position(|argument| argument == "stdio").unwrap();
        arguments[stdio] = "pty".into();
        // It stays when the guest switches it off: the last words would be lost with the terminal.
        arguments.extend(["-S", "-no-shutdown", "-monitor", "stdio"].map(Into::into));
        let mut child = Command::new(given.get_program())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut machine = Self(child);
        for line in said.lines() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("char device redirected to ") {
                let path = rest.split(' ').next().unwrap().to_owned();
                return (machine, path.into());
            }
        }
        panic!("QEMU names no terminal: {:?}", machine.0.wait());
    }

    /// Lets it run.
    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"cont\n").unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a scenario until `last` is on the screen, and types what it says when what it says appears.
/// Gives the screen, and the bytes that came.
fn watched(scenario: &'static Scenario, name: &str, last: &str) -> (String, Vec<u8>, PathBuf) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitor").join(name);
    let prepared = Prepared::new(scenario, &bench().1, &directory).unwrap();
    let (mut machine, path) = Machine::start(&prepared);
    let port = Port::open(&path).unwrap();
    let bytes = port.bytes().unwrap();
    let program = prepared.program().to_owned();
    let printer = if scenario.types.is_empty() { Printer::plain } else { Printer::live };
    let mut monitor = Monitor::new(&program, printer([].into_iter())).unwrap();
    let screen = Screen::default();
    let mut out = screen.clone();
    let reader = thread::spawn(move || {
        let mut came = Vec::new();
        let mut keep = |bytes: &[u8]| {
            came.extend_from_slice(bytes);
            Ok(())
        };
        follow(&bytes, &mut monitor, &mut keep, &mut out, &AtomicBool::new(false)).unwrap();
        came
    });
    machine.go();
    let start = Instant::now();
    let (mut types, mut seen) = (scenario.types, 0);
    loop {
        let text = screen.text();
        if let [(question, answer), rest @ ..] = types
            && let Some(at) = text[seen..].find(question)
        {
            seen += at + question.len();
            port.writer().unwrap().write_all(answer).unwrap();
            types = rest;
        } else if text.contains(last) {
            break;
        } else {
            let wanted = types.first().map_or(last, |(question, _)| question);
            assert!(start.elapsed() < PATIENCE, "no {wanted:?} in\n{text}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(types.is_empty(), "{types:?} was never asked for in\n{}", screen.text());
    // The terminal goes with the machine, which ends the reader.
    drop(machine);
    let came = reader.join().unwrap();
    (screen.text(), came, program)
}

fn monitor(program: &Path) -> Monitor {
    Monitor::new(program, Printer::plain([].into_iter())).unwrap()
}

/// Shows bytes as `monitor <file>` does.
fn shown(bytes: &[u8], monitor: &mut Monitor) -> String {
    let mut out = Vec::new();
    for chunk in bytes.chunks(100) {
        monitor.feed(chunk, &mut out).unwrap();
    }
    monitor.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_run_without_semihosting_is_seen_from_the_first_line_to_the_verdict() {
    let scenario = scenario::named("uart-only").unwrap();
    let (screen, came, program) = watched(scenario, "run", "VERDICT ");
    let ordered = tests::by_time(&screen);
    let mut rest = ordered.as_str();
    let starts = ["qemu-virt: EL2 at", "A: VMID 16", "B: VMID 17", "C: VMID 18"];
    for text in starts.iter().chain(scenario.log) {
        let at = rest.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{screen}"));
        rest = &rest[at..];
    }
    assert!(screen.contains(" pass "), "{screen}");
    for name in ["A", "B", "C"] {
        assert!(screen.contains(&format!("  {name}    ")), "no line of {name} in\n{screen}");
    }
    assert!(!screen.contains("damaged") && !screen.contains("another build"), "{screen}");

    // The same bytes from a file, in other pieces.
    let mut own = monitor(&program);
    assert_eq!(shown(&came, &mut own), screen);

    // With the texts of another program it may look like a log, so EL2 names its build, and that it is
    // another is said once, before the first line.
    let other = bench().1.path("panic").unwrap();
    let wrong = shown(&came, &mut monitor(other));
    assert_eq!(wrong.matches("it is of another build").count(), 1, "{wrong}");
    let said = wrong.find("it is of another build").unwrap();
    assert!(wrong[..said].lines().count() <= 3, "{wrong}");
    assert!(wrong.contains("VERDICT "), "plain text needs no texts");
    // Who comes too late to see the name learns of it from frames that do not fit.
    let late = shown(&b"\x01\x02\x03\0".repeat(20), &mut own);
    assert_eq!(late.matches("it is of another build, or").count(), 1, "{late}");

    // Firmware's words before, noise between, and a cut at any place harm nothing else.
    let dirty = [b"U-Boot 2023.01\r\n=> boot\r\n\xff\xfe\xfd\0", &came[..]].concat();
    let text = shown(&dirty, &mut own);
    assert!(text.starts_with("U-Boot 2023.01\n=> boot\n"), "{text}");
    assert!(text.contains("damaged frame") && text.contains("conservation holds"), "{text}");
    for cut in (0..came.len()).step_by(977) {
        shown(&came[cut..], &mut own);
        shown(&came[..cut], &mut own);
    }

    // Nor do bytes that were changed on their way.
    let mut random = Random(1);
    for _ in 0..100 {
        let mut bytes = came.clone();
        for _ in 0..bytes.len() / 50 {
            let at = random.next() as usize % bytes.len();
            bytes[at] = random.next() as u8;
        }
        assert!(shown(&bytes, &mut own).lines().count() > 10);
    }
}

#[test]
fn the_uart_of_every_board_is_read() {
    for name in ["rpi4-uart-only", "imx8mp-evk-uart-only", "zcu102-uart-only"] {
        let scenario = scenario::named(name).unwrap();
        if let Some(reason) = bench().0.lacks(&scenario.machine) {
            eprintln!("{name} is skipped: {reason}");
            continue;
        }
        let (screen, ..) = watched(scenario, name, "VERDICT ");
        let ordered = tests::by_time(&screen);
        let mut rest = ordered.as_str();
        for text in [scenario.machine.board.name(), "A: VMID 16"].iter().chain(scenario.log) {
            let at = rest.find(text).unwrap_or_else(|| panic!("{name}: no {text:?} in\n{screen}"));
            rest = &rest[at..];
        }
        assert!(screen.contains(" pass ") && !screen.contains("damaged"), "{name}:\n{screen}");
    }
}

#[test]
fn a_panic_is_text_without_any_tool_and_names_functions_with_it() {
    let scenario = scenario::named("el2-panic-uart").unwrap();
    let (screen, came, _) = watched(scenario, "panic", "VERDICT ");
    let raw = String::from_utf8_lossy(&came);
    assert!(raw.contains("\nFATAL panic in EL2 on CPU 1"), "{raw}");
    assert!(raw.contains("BACKTRACE 0x") && raw.contains("the answer is 42"), "{raw}");
    let at = screen.find("--- trace, innermost first").expect("no trace is shown");
    assert!(screen[at..].contains("panic::deep_inside"), "{screen}");
    assert!(screen[at..].contains("tests/el2/src/bin/panic.rs:"), "{screen}");
}

#[test]
fn what_is_typed_reaches_the_vms_and_what_they_answer_is_seen() {
    let scenario = scenario::named("keyboard-uart").unwrap();
    let (screen, ..) = watched(scenario, "keyboard", "VERDICT ");
    assert!(screen.contains("hello Bob, says the second VM"), "{screen}");
    assert!(screen.contains("keyboard: goes to B"), "{screen}");
    assert!(screen.contains(" pass "), "{screen}");
}

#[test]
fn no_bytes_on_the_wire_can_end_the_tool() {
    let mut monitor = monitor(bench().1.path("qemu-virt").unwrap());
    for seed in 1..=400 {
        let mut random = Random(seed);
        // Many zeros make many frames; small numbers make many known messages.
        let bytes: Vec<u8> = (0..2000)
            .map(|_| match random.next() % 8 {
                0 => 0,
                1..=3 => (random.next() % 64) as u8,
                4 => 0x80 + (random.next() % 32) as u8,
                _ => random.next() as u8,
            })
            .collect();
        let show = AssertUnwindSafe(|| shown(&bytes, &mut monitor));
        assert!(catch_unwind(show).is_ok(), "seed {seed}");
    }
}
