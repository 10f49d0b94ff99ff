//! What is typed at a machine that runs: by the user, or by a script when a text appears.

use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::log::Line;

/// Pieces that wait for a machine which does not read. More are lost, as on a wire.
const WAITING: usize = 64;

/// The way to the machine's UART. Nobody waits for a machine that does not read.
#[derive(Clone, Debug)]
pub struct Typist(SyncSender<Vec<u8>>);

impl Typist {
    /// Writes to `wire` on a thread of its own, until either end is gone.
    pub fn new(mut wire: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING);
        thread::spawn(move || {
            for bytes in receiver {
                if wire.write_all(&bytes).and_then(|()| wire.flush()).is_err() {
                    break;
                }
            }
        });
        Self(sender)
    }

    /// Sends bytes.
    pub fn send(&self, bytes: &[u8]) {
        // The machine may have ended, or read nothing for a while.
        let _ = self.0.try_send(bytes.to_vec());
    }
}

/// Bytes to type, each when a text has appeared in the log after the one before it.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static [(&'static str, &'static [u8])]);

impl Script {
    /// The script of a scenario.
    pub fn new(steps: &'static [(&'static str, &'static [u8])]) -> Self {
        Self(steps)
    }

    /// What is to be typed now that this line has appeared, perhaps unfinished.
    pub fn after(&mut self, line: &Line) -> Option<&'static [u8]> {
        let (&(text, bytes), rest) = self.0.split_first()?;
        if !line.text.contains(text) {
            return None;
        }
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use std::io;
    use std::sync::mpsc::channel;

    fn line(text: &str) -> Line {
        let text = text.to_owned();
        Line { time: String::new(), level: Level::Info, vm: None, text, part: true, place: None }
    }

    #[test]
    fn a_script_types_each_answer_once_its_question_appears() {
        let mut script = Script::new(&[("name?", b"Ada\r"), ("sure?", b"y")]);
        assert_eq!(script.after(&line("are you sure?")), None);
        assert_eq!(script.after(&line("your name? ")), Some(b"Ada\r".as_slice()));
        assert_eq!(script.after(&line("your name? ")), None);
        assert_eq!(script.after(&line("sure?")), Some(b"y".as_slice()));
        assert_eq!(script.after(&line("sure?")), None);
    }

    #[test]
    fn a_machine_that_does_not_read_holds_nobody_up() {
        struct Stuck;
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    thread::park();
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let typist = Typist::new(Stuck);
        (0..10 * WAITING).for_each(|_| typist.send(b"x"));
    }

    #[test]
    fn what_is_typed_arrives_in_order() {
        struct Wire(std::sync::mpsc::Sender<Vec<u8>>);
        impl Write for Wire {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = channel();
        let typist = Typist::new(Wire(sender));
        typist.send(b"one");
        typist.send(b"two");
        drop(typist);
        assert_eq!(receiver.iter().flatten().collect::<Vec<_>>(), b"onetwo");
    }
}
