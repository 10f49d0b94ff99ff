//! The debugger's services under QEMU: a stream to its standard output and its exit code.
//!
//! Only the package header says whether they may be used. `HLT` without a debugger is undefined on
//! hardware, and whoever may execute it can write the host's files.

use core::arch::asm;

const SYS_OPEN: u64 = 0x01;
const SYS_WRITE: u64 = 0x05;
const SYS_EXIT_EXTENDED: u64 = 0x20;
/// "The program ended by itself", with an exit code.
const APPLICATION_EXIT: u64 = 0x2_0026;
/// Open for writing, binary.
const MODE_WRITE: u64 = 5;

/// QEMU's standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    handle: u64,
}

impl Stream {
    /// Opens it. `None` when QEMU runs without semihosting output.
    pub(crate) fn open() -> Option<Self> {
        let name = c":tt";
        let arguments = [name.as_ptr() as u64, MODE_WRITE, name.count_bytes() as u64];
        let handle = call(SYS_OPEN, &arguments);
        (handle != u64::MAX).then_some(Self { handle })
    }

    /// Writes all of the bytes.
    pub(crate) fn write(self, bytes: &[u8]) {
        call(SYS_WRITE, &[self.handle, bytes.as_ptr() as u64, bytes.len() as u64]);
    }
}

/// Ends QEMU with this exit code.
pub(crate) fn exit(code: u32) -> ! {
    loop {
        call(SYS_EXIT_EXTENDED, &[APPLICATION_EXIT, u64::from(code)]);
    }
}

fn call(operation: u64, arguments: &[u64]) -> u64 {
    let result;
    // SAFETY: the package allows HLT, so a debugger takes it. It reads `arguments` and the buffer
    // they name, and changes X0 only.
    unsafe {
        asm!("hlt #0xf000", inout("x0") operation => result, in("x1") arguments.as_ptr(),
            options(nostack, readonly))
    };
    result
}
