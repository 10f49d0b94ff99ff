//! FP and SIMD registers are a vCPU's own, also while another VM fills them.
//!
//! Cast: this program as first and second VM, on the same CPU, linked. Each fills all registers with
//! values of its own, stays away from memory for a while, and looks whether they are still there.

use core::arch::global_asm;

use crate::bench::spin;
use crate::preempt;

/// The registers as [`fp_store`] stores them.
#[repr(C, align(16))]
struct Registers {
    vector: [[u64; 2]; 32],
    fpcr: u64,
    fpsr: u64,
}

// fp_fill(x0: first value, x1: FPCR, x2: FPSR), fp_store(x0: where to).
// The crate is compiled without FP, so no caller has anything in these registers.
global_asm!(
    ".pushsection .text, \"ax\"",
    ".arch armv8-a+fp+simd",
    ".global fp_fill",
    "fp_fill:",
    "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "    dup  v\\n\\().2d, x0",
    "    mvn  x5, x0",
    "    mov  v\\n\\().d[1], x5",
    "    add  x0, x0, #1",
    "    .endr",
    "    msr  fpcr, x1",
    "    msr  fpsr, x2",
    "    ret",
    ".global fp_store",
    "fp_store:",
    "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "    str  q\\n, [x0], #16",
    "    .endr",
    "    mrs  x1, fpcr",
    "    mrs  x2, fpsr",
    "    stp  x1, x2, [x0]",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn fp_fill(first: u64, fpcr: u64, fpsr: u64);
    fn fp_store(into: *mut Registers);
}

/// What all registers are filled with.
pub(crate) struct Pattern {
    first: u64,
    fpcr: u64,
    fpsr: u64,
}

impl Pattern {
    /// Values that neither the peer nor another round has.
    pub(crate) const fn new(role: u64, round: u64) -> Self {
        // Rounding mode in FPCR, the saturation flag in FPSR: two fields that every CPU has.
        Self { first: role << 56 | round << 8, fpcr: role << 22, fpsr: (role & 1) << 27 }
    }

    /// Fills the registers.
    pub(crate) fn fill(&self) {
        // SAFETY: changes registers that compiled code does not use.
        unsafe { fp_fill(self.first, self.fpcr, self.fpsr) };
    }

    /// Looks whether the registers still are as they were filled.
    pub(crate) fn check(&self) {
        let found = found();
        for (value, vector) in (self.first..).zip(&found.vector) {
            assert!(*vector == [value, !value], "{vector:x?}, not {value:#x} and its complement");
        }
        assert!((found.fpcr, found.fpsr) == (self.fpcr, self.fpsr), "FPCR {:#x}", found.fpcr);
    }
}

/// The registers as they are.
fn found() -> Registers {
    let mut found = Registers { vector: [[0; 2]; 32], fpcr: 0, fpsr: 0 };
    // SAFETY: it writes `found` alone.
    unsafe { fp_store(&raw mut found) };
    found
}

/// Looks whether all is zero, as a VM starts.
pub(crate) fn check_zero() {
    let found = found();
    assert!(found.vector == [[0; 2]; 32], "FP registers of somebody else: {:x?}", found.vector);
    assert!((found.fpcr, found.fpsr) == (0, 0), "FPCR {:#x}", found.fpcr);
}

/// Rounds that the registers are held for: far less than a time slice, so that a switch in the middle
/// is a surprise.
const ROUNDS: u64 = 20_000;
/// Most holds before the peer counts as absent.
const HOLDS: u64 = 2_000_000;

/// The program.
pub fn main() {
    let (page, role) = preempt::page_and_role();
    let turns = preempt::outlive(page, role, HOLDS, |round| hold(role as u64 + 1, round));
    println!("my FP registers outlived {turns} turns of the peer");
}

/// Fills the registers, holds them, and checks them.
fn hold(role: u64, round: u64) {
    let pattern = Pattern::new(role, round);
    pattern.fill();
    spin(ROUNDS);
    pattern.check();
}
