//! FP and SIMD registers are a vCPU's own, also while another VM fills them.
//!
//! Cast: this program as first and second VM, on the same CPU, linked. Each fills all registers with
//! values of its own, stays away from memory for a while, and looks whether they are still there.

use core::arch::global_asm;

use crate::{memory, preempt};

/// The registers as [`fp_hold`] stores them.
#[repr(C, align(16))]
struct Registers {
    vector: [[u64; 2]; 32],
    fpcr: u64,
    fpsr: u64,
}

// fp_hold(x0: first value, x1: FPCR, x2: FPSR, x3: rounds to spin, x4: where to store)
// The crate is compiled without FP, so no caller has anything in these registers.
global_asm!(
    ".pushsection .text, \"ax\"",
    ".arch armv8-a+fp+simd",
    ".global fp_hold",
    "fp_hold:",
    "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "    dup  v\\n\\().2d, x0",
    "    mvn  x5, x0",
    "    mov  v\\n\\().d[1], x5",
    "    add  x0, x0, #1",
    "    .endr",
    "    msr  fpcr, x1",
    "    msr  fpsr, x2",
    "1:  subs x3, x3, #1",
    "    b.ne 1b",
    "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "    str  q\\n, [x4], #16",
    "    .endr",
    "    mrs  x1, fpcr",
    "    mrs  x2, fpsr",
    "    stp  x1, x2, [x4]",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn fp_hold(first: u64, fpcr: u64, fpsr: u64, rounds: u64, into: *mut Registers);
}

/// Turns that the peer must be seen to have had while the registers were held.
const TURNS: u64 = 10;
/// Rounds that the registers are held for: far less than a time slice, so that a switch in the middle
/// is a surprise.
const ROUNDS: u64 = 20_000;
/// Most holds before the peer counts as absent.
const HOLDS: u64 = 2_000_000;

/// Offsets of the counters on the linked page.
const COUNTERS: [u64; 2] = [0x400, 0x440];
/// The word behind a counter: its VM has seen enough.
const SATISFIED: u64 = 8;

/// The program.
pub fn main() {
    let (page, role) = preempt::page_and_role();
    let (mine, theirs) = (page + COUNTERS[role], page + COUNTERS[1 - role]);
    let (mut turns, mut holds) = (0, 0);
    while memory::read(mine + SATISFIED) == 0 || memory::read(theirs + SATISFIED) == 0 {
        let before = memory::read(theirs);
        hold(role as u64 + 1, holds);
        turns += u64::from(memory::read(theirs) != before);
        holds += 1;
        memory::write(mine, holds);
        if turns >= TURNS {
            memory::write(mine + SATISFIED, 1);
        }
        assert!(holds < HOLDS, "the peer had only {turns} turns");
    }
    println!("my FP registers outlived {turns} turns of the peer");
}

/// Fills the registers, holds them, and checks them.
fn hold(role: u64, round: u64) {
    let first = role << 56 | round << 8;
    // Rounding mode in FPCR, the saturation flag in FPSR: two fields that every CPU has.
    let (fpcr, fpsr) = (role << 22, (role & 1) << 27);
    let mut found = Registers { vector: [[0; 2]; 32], fpcr: 0, fpsr: 0 };
    // SAFETY: it writes `found` alone, and registers that compiled code does not use.
    unsafe { fp_hold(first, fpcr, fpsr, ROUNDS, &raw mut found) };
    for (value, vector) in (first..).zip(&found.vector) {
        assert!(*vector == [value, !value], "{vector:x?}, not {value:#x} and its complement");
    }
    assert!((found.fpcr, found.fpsr) == (fpcr, fpsr), "FPCR {:#x}", found.fpcr);
}
