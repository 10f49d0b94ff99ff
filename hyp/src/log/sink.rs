//! Where the rings end: QEMU's standard output or the UART.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::ring::Ring;
use crate::{semihosting, uart};

/// Bytes for one step towards QEMU. One trap to the debugger costs the same for one byte or many.
const STREAM_STEP: usize = 256;
/// Bytes for one step towards the UART, whose transmit queue holds 16 or 32.
const UART_STEP: usize = 16;
/// Ends a frame (rzCOBS) and never occurs inside one.
const FRAME_END: u8 = 0;

/// Whether plain text shares its line with frames.
static FRAMES_ON_UART: AtomicBool = AtomicBool::new(false);

pub(super) struct Sink {
    open: bool,
    stream: Option<semihosting::Stream>,
    /// The ring that is being read. It changes only between frames, so frames are never mixed.
    source: usize,
    inside_frame: bool,
}

impl Sink {
    pub(super) const fn new() -> Self {
        Self { open: false, stream: None, source: 0, inside_frame: false }
    }

    /// Chooses the destination: a stream, or else the UART.
    pub(super) fn open(&mut self, stream: Option<semihosting::Stream>) {
        self.stream = stream;
        FRAMES_ON_UART.store(stream.is_none(), Ordering::Relaxed);
        self.open = true;
    }

    /// Takes one step. True while bytes wait in any ring.
    pub(super) fn drain(&mut self, rings: &[Ring]) -> bool {
        if !self.open {
            return false;
        }
        if !self.inside_frame {
            let next = (0..rings.len()).map(|n| (self.source + n) % rings.len());
            let Some(source) = next.into_iter().find(|&n| !rings[n].is_empty()) else {
                return false;
            };
            self.source = source;
        }
        match self.stream {
            Some(stream) => self.step_stream(&rings[self.source], stream),
            None => self.step_uart(&rings[self.source]),
        }
        if !self.inside_frame {
            self.source = (self.source + 1) % rings.len();
        }
        rings.iter().any(|ring| !ring.is_empty())
    }

    fn step_stream(&mut self, ring: &Ring, stream: semihosting::Stream) {
        let mut step = [0; STREAM_STEP];
        let count = ring.take(&mut step);
        stream.write(&step[..count]);
        self.inside_frame = step[..count].last() != Some(&FRAME_END);
    }

    fn step_uart(&mut self, ring: &Ring) {
        let mut count = 0;
        ring.read(|byte| {
            let written = count < UART_STEP && uart::try_write(byte);
            if written {
                count += 1;
                self.inside_frame = byte != FRAME_END;
            }
            written
        });
    }
}

/// Whether plain text shares its line with frames.
pub(super) fn frames_on_uart() -> bool {
    FRAMES_ON_UART.load(Ordering::Relaxed)
}

/// Plain text on the UART.
struct Terminal;

impl Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        uart::write(text.as_bytes());
        Ok(())
    }
}

/// Writes text. Frame ends around it keep a decoder of frames from taking it for a part of one.
pub(super) fn text(text: fmt::Arguments<'_>) {
    let separator: &[u8] = if frames_on_uart() { &[FRAME_END] } else { &[] };
    uart::write(separator);
    // The terminal cannot fail, and there is nobody to tell.
    let _ = Terminal.write_fmt(text);
    uart::write(separator);
}
