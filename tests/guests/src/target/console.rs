//! The VM's console: a PL011 of its own.

use core::fmt::{self, Write};

use crate::layout::CONSOLE;
use crate::memory;

/// Offset of the data register.
const DATA: u64 = 0;
/// Offset of the flag register.
const FLAGS: u64 = 0x18;
/// The transmit queue is full.
const FULL: u32 = 1 << 5;

/// Writes to the console, byte by byte.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Sends one byte.
pub fn put(byte: u8) {
    while memory::read32(CONSOLE + FLAGS) & FULL != 0 {}
    memory::write32(CONSOLE + DATA, byte.into());
}

/// Writes a formatted line to the VM's console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The console cannot fail.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
