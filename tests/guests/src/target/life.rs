//! The end of a VM.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use rm_client::Session;
use rm_client::hvc::Hvc;

use crate::cpu;

/// PSCI SYSTEM_OFF.
const SYSTEM_OFF: u64 = 0x8400_0008;

/// A session over the direct call.
pub const fn session() -> Session<Hvc> {
    Session::new(rm_client::Direct(rm_client::hvc::Native))
}

/// Ends the VM as one whose program saw nothing wrong.
pub fn finish() -> ! {
    exit(0)
}

fn exit(code: u8) -> ! {
    let outcome = session().exit(code);
    println!("exit({code}) came back: {outcome:?}");
    off()
}

/// Ends the VM where no resource manager answers.
fn off() -> ! {
    crate::raw::hvc([SYSTEM_OFF, 0, 0, 0, 0, 0]);
    loop {
        cpu::wait_for_interrupt();
    }
}

/// Whether a panic is under way: a second one, on the way out, is not reported by another.
static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if PANICKING.load(Ordering::Relaxed) {
        off();
    }
    PANICKING.store(true, Ordering::Relaxed);
    println!("{info}");
    exit(1)
}
