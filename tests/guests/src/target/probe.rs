//! Trying what may be forbidden: an abort becomes an answer instead of the program's end.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cpu;
use crate::vectors::Frame;

/// What the hypervisor injects for a forbidden access: a synchronous external abort, taken without a
/// change of exception level (EC 0x25), 32-bit instruction, DFSC 0x10. The direction is not told.
pub const DATA_ABORT: u64 = 0x9600_0010;
/// The same for a fetch (EC 0x21).
pub const FETCH_ABORT: u64 = 0x8600_0010;
const CLASS_FETCH: u64 = FETCH_ABORT >> 26;
/// A fetch from an address that is no multiple of four.
const CLASS_UNALIGNED_FETCH: u64 = 0x22;
/// An undefined instruction (EC 0).
pub const UNDEFINED: u64 = 0x0200_0000;

/// An exception that a probe met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
}

/// One vCPU's probe.
struct Probe {
    armed: AtomicBool,
    met: AtomicBool,
    esr: AtomicU64,
    far: AtomicU64,
}

static PROBES: [Probe; 2] = [const {
    Probe {
        armed: AtomicBool::new(false),
        met: AtomicBool::new(false),
        esr: AtomicU64::new(0),
        far: AtomicU64::new(0),
    }
}; 2];

/// Takes an exception for the probe of this vCPU, if it is waiting for one: the instruction is
/// skipped, or for a fetch, returned from.
pub(crate) fn caught(frame: &mut Frame) -> bool {
    let probe = &PROBES[cpu::index()];
    if !probe.armed.load(Ordering::Relaxed) {
        return false;
    }
    let (esr, far) = (cpu::esr(), cpu::far());
    probe.esr.store(esr, Ordering::Relaxed);
    probe.far.store(far, Ordering::Relaxed);
    probe.met.store(true, Ordering::Relaxed);
    let fetch = matches!(esr >> 26, CLASS_FETCH | CLASS_UNALIGNED_FETCH);
    frame.elr = if fetch { frame.fp_lr[1] } else { frame.elr + 4 };
    true
}

/// Runs `attempt`, one instruction that may be refused, and says what came of it.
pub fn catch<T>(attempt: impl FnOnce() -> T) -> Result<T, Abort> {
    let probe = &PROBES[cpu::index()];
    probe.met.store(false, Ordering::Relaxed);
    probe.armed.store(true, Ordering::Relaxed);
    let value = attempt();
    probe.armed.store(false, Ordering::Relaxed);
    if probe.met.load(Ordering::Relaxed) {
        let (esr, far) = (&probe.esr, &probe.far);
        return Err(Abort { esr: esr.load(Ordering::Relaxed), far: far.load(Ordering::Relaxed) });
    }
    Ok(value)
}

/// Reads 64 bits.
pub fn read(at: u64) -> Result<u64, Abort> {
    catch(|| {
        let value: u64;
        // SAFETY: a read of plain memory, or an exception that skips it and leaves `value` as it was.
        unsafe { asm!("ldr {value}, [{at}]", at = in(reg) at, value = inout(reg) 0u64 => value) };
        value
    })
}

/// Writes 64 bits.
pub fn write(at: u64, value: u64) -> Result<(), Abort> {
    catch(|| {
        // SAFETY: callers name memory that holds no Rust object; an exception skips the write.
        unsafe { asm!("str {value}, [{at}]", at = in(reg) at, value = in(reg) value) };
    })
}

/// Calls the code at an address, which returns at once or cannot be fetched.
pub fn execute(at: u64) -> Result<(), Abort> {
    catch(|| {
        // SAFETY: callers have put a `ret` there; a fetch that is refused returns as well.
        unsafe { asm!("blr {at}", at = in(reg) at, clobber_abi("C")) };
    })
}

/// A `ret`, twice, for [`execute`].
pub const RETURN: u64 = 0xd65f_03c0_d65f_03c0;

/// Asserts that an access was refused as the interface says.
pub fn expect_abort<T>(outcome: Result<T, Abort>, esr: u64, far: u64) {
    match outcome {
        Ok(_) => panic!("{far:#x} could be reached"),
        Err(abort) => assert!(abort == Abort { esr, far }, "{abort:x?}, not {esr:#x} at {far:#x}"),
    }
}

/// Asserts that neither reading nor writing reaches an address.
pub fn expect_no_access(at: u64) {
    expect_abort(read(at), DATA_ABORT, at);
    expect_abort(write(at, 0), DATA_ABORT, at);
}
