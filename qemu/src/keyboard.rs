//! The user's keyboard, key by key, while a machine runs.
//!
//! Every key goes to the machine as a serial terminal would send it, without waiting for Enter, and the
//! machine echoes what it likes. EL2 looks for Ctrl-A there, so switching between VMs works from any
//! terminal program. Only what concerns this tool is kept here:
//!
//! | keys | what they do |
//! |---|---|
//! | Ctrl-C, or Ctrl-A x | end the tool |
//! | Ctrl-A c | send Ctrl-C |
//!
//! Ctrl-C stays what it is everywhere else, because somebody who sees a run hang will press it; a guest
//! that wants it gets it with one key more.
//!
//! The terminal is put back as it was when the [`Keyboard`] is dropped, which a panic does too, and when
//! a signal ends the tool.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use rustix::process::getpgrp;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp,
    tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

const CTRL_A: u8 = 0x01;
const CTRL_C: u8 = 0x03;

/// What the keys do, in one line.
pub const KEYS: &str = "Ctrl-A n: next VM, Ctrl-A 1 to 9: that VM, Ctrl-A l: list; Ctrl-C ends";

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These bytes are for the machine.
    Bytes(Vec<u8>),
    /// The end.
    Quit,
}

/// A terminal that gives its keys one by one.
#[derive(Debug)]
pub struct Keyboard {
    terminal: Arc<Terminal>,
    signals: Option<Handle>,
}

impl Keyboard {
    /// The keyboard of standard input; none if that is no terminal, or that of somebody else: in the
    /// background, setting it would stop the tool.
    pub fn open() -> Option<Self> {
        let input = io::stdin();
        if !input.is_terminal() || tcgetpgrp(&input).ok()? != getpgrp() {
            return None;
        }
        Self::on(File::from(input.as_fd().try_clone_to_owned().ok()?)).ok()
    }

    /// The keyboard of a terminal. What is none is refused.
    pub fn on(file: File) -> io::Result<Self> {
        let mut keyboard = Self { terminal: Arc::new(Terminal::new(file)?), signals: None };
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        keyboard.signals = Some(signals.handle());
        let terminal = keyboard.terminal.clone();
        thread::spawn(move || {
            for signal in &mut signals {
                terminal.restore();
                // Ends the tool, as if nobody had listened.
                let _ = emulate_default_handler(signal);
            }
        });
        keyboard.terminal.set_raw()?;
        Ok(keyboard)
    }

    /// Hands over what is typed, on a thread of its own, until `take` wants no more. To be called once.
    pub fn listen(&self, mut take: impl FnMut(Input) -> bool + Send + 'static) {
        let terminal = self.terminal.clone();
        thread::spawn(move || {
            let mut keys = Keys::default();
            let mut buffer = [0; 256];
            while let Ok(length @ 1..) = (&terminal.file).read(&mut buffer) {
                for input in keys.take(&buffer[..length]) {
                    if !take(input) {
                        return;
                    }
                }
            }
            // A terminal that has gone types nothing any more.
            take(Input::Quit);
        });
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.terminal.restore();
        if let Some(signals) = &self.signals {
            signals.close();
        }
    }
}

/// A terminal, and how it was set.
#[derive(Debug)]
struct Terminal {
    file: File,
    saved: Termios,
}

impl Terminal {
    fn new(file: File) -> io::Result<Self> {
        let saved = tcgetattr(&file)?;
        Ok(Self { file, saved })
    }

    /// Every key at once and as it is. What is written keeps its line ends.
    fn set_raw(&self) -> io::Result<()> {
        let mut raw = self.saved.clone();
        raw.local_modes -= LocalModes::ICANON
            | LocalModes::ECHO
            | LocalModes::ECHONL
            | LocalModes::ISIG
            | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::ICRNL
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ISTRIP
            | InputModes::IXON;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        Ok(tcsetattr(&self.file, OptionalActions::Now, &raw)?)
    }

    fn restore(&self) {
        // A terminal that has gone need not be put back.
        let _ = tcsetattr(&self.file, OptionalActions::Now, &self.saved);
    }
}

/// Finds the keys that are for the tool.
#[derive(Debug, Default)]
struct Keys {
    /// Ctrl-A was pressed; it is kept back until it is clear for whom.
    escaped: bool,
}

impl Keys {
    fn take(&mut self, typed: &[u8]) -> Vec<Input> {
        let mut bytes = Vec::new();
        for &byte in typed {
            match (std::mem::take(&mut self.escaped), byte) {
                (false, CTRL_A) => self.escaped = true,
                (_, CTRL_C) | (true, b'x') => {
                    let before = (!bytes.is_empty()).then_some(Input::Bytes(bytes));
                    return before.into_iter().chain([Input::Quit]).collect();
                }
                (true, b'c') => bytes.push(CTRL_C),
                (true, key) => bytes.extend([CTRL_A, key]),
                (false, key) => bytes.push(key),
            }
        }
        if bytes.is_empty() { Vec::new() } else { vec![Input::Bytes(bytes)] }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::mpsc::channel;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn bytes(bytes: &[u8]) -> Input {
        Input::Bytes(bytes.to_vec())
    }

    /// The user's end of a terminal, and the tool's.
    fn terminal() -> (File, File) {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        (File::from(user), OpenOptions::new().read(true).write(true).open(name).unwrap())
    }

    #[test]
    fn keys_go_to_the_machine_as_they_are() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r\x1b[A\x7f"), [bytes(b"ls\r\x1b[A\x7f")]);
        assert_eq!(keys.take(&[0, 4, 26, 28, 0xc3, 0xa4]), [bytes(&[0, 4, 26, 28, 0xc3, 0xa4])]);
    }

    #[test]
    fn ctrl_a_and_a_key_go_on_to_el2_however_they_arrive() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"a\x01n\x012"), [bytes(b"a\x01n\x012")]);
        assert_eq!(keys.take(b"\x01"), []);
        assert_eq!(keys.take(b"l"), [bytes(b"\x01l")]);
        assert_eq!(keys.take(b"\x01\x01x"), [bytes(b"\x01\x01x")], "two, and an x");
    }

    #[test]
    fn the_tool_ends_by_ctrl_c_and_by_ctrl_a_x_and_what_was_typed_before_is_sent() {
        assert_eq!(Keys::default().take(b"ab\x03cd"), [bytes(b"ab"), Input::Quit]);
        assert_eq!(Keys::default().take(b"\x01x"), [Input::Quit]);
        assert_eq!(Keys::default().take(b"\x01\x03"), [Input::Quit]);
        assert_eq!(Keys::default().take(b"\x01c"), [bytes(b"\x03")]);
    }

    #[test]
    fn a_terminal_gives_key_by_key_and_is_put_back() {
        let (mut user, tool) = terminal();
        let before = tcgetattr(&tool).unwrap();
        assert!(before.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        let keyboard = Keyboard::on(tool.try_clone().unwrap()).unwrap();
        let during = tcgetattr(&tool).unwrap();
        assert!(!during.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
        assert_eq!(during.output_modes, before.output_modes);
        let (sender, receiver) = channel();
        keyboard.listen(move |input| sender.send(input).is_ok());
        user.write_all(b"k\r\x03").unwrap();
        let mut typed = Vec::new();
        for input in receiver {
            match input {
                Input::Bytes(bytes) => typed.extend(bytes),
                Input::Quit => break,
            }
        }
        assert_eq!(typed, b"k\r");
        drop(keyboard);
        let after = tcgetattr(&tool).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
    }

    #[test]
    fn what_is_no_terminal_is_no_keyboard() {
        assert!(Keyboard::on(File::open("/dev/null").unwrap()).is_err());
    }
}
