//! The log: defmt frames in bounded rings, one a CPU, written out a little at a time.
//!
//! A message costs its CPU a few hundred instructions and never waits: frames go into the CPU's own
//! ring, and one that does not fit is dropped whole and counted. Whoever has time moves bytes on from
//! all rings to QEMU's standard output or the UART. Plain text (the verdict, a fatal report) goes to
//! the UART at once.
//!
//! EL2 runs with interrupts masked, so a CPU's ring has one writer. Only a fatal exception can come
//! between; it starts a frame of its own and the broken one is lost.

mod sink;

use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, Readable};
use package::Package;
use spin::Once;
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::cpu::{self, MAX_CPUS};
use crate::ring::Ring;
use crate::{board, relax, semihosting, uart};
use sink::Sink;

static RINGS: [Ring; MAX_CPUS] = [const { Ring::new() }; MAX_CPUS];
static SINK: SpinMutex<Sink> = SpinMutex::new(Sink::new());
static NONCE: Once<[u8; 16]> = Once::new();
/// Set when only the fatal path may write.
static SEIZED: AtomicBool = AtomicBool::new(false);
/// How many microseconds the fatal path waits for a CPU that is writing.
const PATIENCE: u64 = 100_000;
/// Whether the package allows HLT.
static HLT: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    // SAFETY: the first bytes of the linker's note, which `linker/image.ld` makes sure is there and which
    // lies in read-only data.
    safe static __build_id: [u8; 8];
}

#[defmt::global_logger]
struct Logger;

// SAFETY: a frame is built in the ring of the CPU that builds it, between `acquire` and `release`,
// and interrupts are masked in EL2.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        RINGS[cpu::current().index].start();
    }

    unsafe fn flush() {}

    unsafe fn release() {
        RINGS[cpu::current().index].end();
    }

    unsafe fn write(bytes: &[u8]) {
        RINGS[cpu::current().index].write(bytes);
    }
}

defmt::timestamp!("{=u64:us}", microseconds());

/// Time since power-on.
pub fn microseconds() -> u64 {
    let (ticks, rate) = (CNTPCT_EL0.get(), CNTFRQ_EL0.get().max(1));
    ticks / rate * 1_000_000 + ticks % rate * 1_000_000 / rate
}

/// From here on plain text can be written.
pub(crate) fn open_uart(config: board::Uart) {
    uart::open(config);
}

/// From here on the rings are drained. Where the UART carries the log, a line of text first tells whose
/// texts it needs: the message numbers of another build may fit and mean something else.
pub(crate) fn open(package: &Package<'_>) {
    NONCE.call_once(|| package.nonce());
    HLT.store(package.hlt_allowed(), Ordering::Relaxed);
    SINK.lock().open(package.hlt_allowed().then(semihosting::Stream::open).flatten());
    if sink::frames_on_uart() {
        sink::text(format_args!("EL2 build {:016x}\n", u64::from_be_bytes(__build_id)));
    }
}

/// Whether this run may use semihosting.
pub(crate) fn hlt_allowed() -> bool {
    HLT.load(Ordering::Relaxed)
}

/// Whether messages of this CPU wait to be written out.
#[inline]
pub fn pending() -> bool {
    !RINGS[cpu::current().index].is_empty()
}

/// Writes a little of what waits in any ring, and says whether more waits. For each entry into EL2
/// that is not in a hurry, and for idle CPUs. Never waits.
pub fn drain() -> bool {
    if SEIZED.load(Ordering::Relaxed) {
        return false;
    }
    report_dropped();
    SINK.try_lock().is_some_and(|mut sink| sink.drain(&RINGS))
}

/// Writes out all rings, waiting for the line, and keeps other CPUs from writing ever after.
pub(crate) fn close() {
    report_dropped();
    let mut sink = SINK.lock();
    while sink.drain(&RINGS) {}
    // What follows on the UART is text, which no frame may cut.
    mem::forget(sink);
}

/// Says how many of this CPU's messages were lost, as soon as there is room to say it.
fn report_dropped() {
    let cpu = cpu::current().index;
    if let Some(count) = RINGS[cpu].take_dropped() {
        defmt::warn!("{=u32} messages of CPU {=usize} did not fit the log", count, cpu);
    }
}

/// Writes a verdict line: the run's result with the number that only EL2 and the host tool know.
pub(crate) fn verdict(passed: bool, reason: &str) {
    let word = if passed { "pass" } else { "fail" };
    match NONCE.get() {
        Some(nonce) => {
            let nonce = u128::from_be_bytes(*nonce);
            sink::text(format_args!("\nVERDICT {nonce:032x} {word} {reason}\n"));
        }
        None => sink::text(format_args!("\nVERDICT - {word} {reason}\n")),
    }
}

/// Writes plain text on the UART, waiting for the line, also when another CPU died writing.
pub(crate) fn text(text: core::fmt::Arguments<'_>) {
    sink::text(text);
}

/// The sink in the hands of the fatal path, so that no other CPU's frames cut its report.
pub(crate) struct Seized(Option<SpinMutexGuard<'static, Sink>>);

/// Takes the sink. A CPU that stopped while it held it, this one perhaps, is waited for in vain.
pub(crate) fn seize() -> Seized {
    SEIZED.store(true, Ordering::Relaxed);
    let start = microseconds();
    while microseconds() - start < PATIENCE {
        if let Some(sink) = SINK.try_lock() {
            return Seized(Some(sink));
        }
        relax();
    }
    Seized(None)
}

impl Seized {
    /// Writes out what the rings hold, if the sink is free to be used. It stays taken.
    pub(crate) fn drain(mut self) {
        if let Some(sink) = &mut self.0 {
            while sink.drain(&RINGS) {}
        }
        mem::forget(self);
    }
}
