//! What ends EL2: a panic, or an exception of its own code.
//!
//! The report goes to the UART as it is written, in plain text, because the log may be what broke.
//! `BACKTRACE` lines hold return addresses; the host tool turns them into function names.

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{self, Exit};
use crate::{cpu, log, stage1, syndrome};

/// The registers of interrupted code, as `vectors.s` saves them.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

/// Which slot of the vectors was taken.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
enum Kind {
    Synchronous,
    Irq,
    Fiq,
    SError,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Synchronous, Self::Irq, Self::Fiq, Self::SError];
}

/// The first CPU that comes here reports; the others stop.
static TAKEN: AtomicBool = AtomicBool::new(false);

macro_rules! report {
    ($($argument:tt)*) => { log::text(format_args!($($argument)*)) };
}

/// From `vectors.s`, on the emergency stack.
pub(crate) extern "C" fn exception(kind: usize, frame: &Frame) -> ! {
    let sink = claim();
    let cpu = cpu::current();
    let cause = syndrome::cause(frame.esr);
    let kind = Kind::ALL[kind];
    let overflow = cpu.stacks().guards().contains(&(frame.far & !0xfff));
    report!("\nFATAL exception in EL2 on CPU {}: {kind:?}, {cause}\n", cpu.index);
    if overflow && matches!(kind, Kind::Synchronous) {
        report!("FATAL the stack of CPU {} overflowed\n", cpu.index);
    }
    registers(frame);
    report!("BACKTRACE {:#x}\n", frame.elr);
    if !stage1::is_code(frame.elr) {
        // A wild jump has made no frame record; the caller is in the link register alone.
        report!("BACKTRACE {:#x}\n", frame.x[30].wrapping_sub(4));
    }
    backtrace(frame.x[29]);
    defmt::error!(
        "exception in EL2 on CPU {=usize}: {=str}, ESR {=u64:#x}, ELR {=u64:#x}, FAR {=u64:#x}",
        cpu.index,
        cause,
        frame.esr,
        frame.elr,
        frame.far
    );
    sink.drain();
    exit::end(Exit::Exception, if overflow { "stack overflow in EL2" } else { "exception in EL2" })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let sink = claim();
    let cpu = cpu::current();
    report!("\nFATAL panic in EL2 on CPU {}: {info}\n", cpu.index);
    backtrace(frame_pointer());
    defmt::error!("panic in EL2 on CPU {=usize}: {}", cpu.index, defmt::Display2Format(info));
    sink.drain();
    exit::end(Exit::Panic, "panic in EL2")
}

/// Returns once: on the first CPU that comes here, and there only the first time.
fn claim() -> log::Seized {
    let again = cpu::current().dying.swap(true, Ordering::Relaxed);
    if again {
        // The report itself failed. What is on the UART so far must do.
        exit::end(Exit::Exception, "fault while reporting a fault");
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        loop {
            aarch64_cpu::asm::wfe();
        }
    }
    log::seize()
}

fn registers(frame: &Frame) {
    for (row, values) in frame.x.chunks(4).enumerate() {
        report!("{}\n", Row(row * 4, values));
    }
    report!("sp   {:016x}  elr {:016x}  spsr {:016x}\n", frame.sp, frame.elr, frame.spsr);
    report!("esr  {:016x}  far {:016x}\n", frame.esr, frame.far);
}

/// Up to four general registers, the first of them with this number.
struct Row<'a>(usize, &'a [u64]);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, value) in self.1.iter().enumerate() {
            write!(f, "x{:<3} {value:016x}  ", self.0 + n)?;
        }
        Ok(())
    }
}

/// Follows the chain of frame records (AAPCS64: previous frame pointer, return address).
fn backtrace(mut at: u64) {
    let stacks = cpu::current().stacks();
    for _ in 0..32 {
        if !stacks.hold_record(at) {
            return;
        }
        let record = at as *const [u64; 2];
        // SAFETY: the address is aligned and within this CPU's own stack, which is mapped.
        let [previous, link] = unsafe { record.read_volatile() };
        if link == 0 {
            return;
        }
        // The call lies before the return address.
        report!("BACKTRACE {:#x}\n", link - 4);
        // Frame records lie at ascending addresses; a broken chain must not run in circles.
        if previous <= at {
            return;
        }
        at = previous;
    }
}

fn frame_pointer() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, x29", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
