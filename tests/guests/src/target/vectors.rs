//! Exceptions: caught for [`probe`], counted for [`gic`], otherwise the
//! program's end.

use core::arch::{asm, global_asm};

use crate::{cpu, gic, probe};

/// What the vectors save, in their order.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// X0 to X18 and X29, X30; the others are preserved by whatever is called.
    pub x: [u64; 19],
    /// X29 and X30.
    pub fp_lr: [u64; 2],
    /// Where to return to.
    pub elr: u64,
    /// With which processor state.
    pub spsr: u64,
    _alignment: u64,
}

global_asm!(
    ".macro vector kind",
    "    .balign 128",
    "    sub  sp, sp, #192",
    "    stp  x0, x1, [sp]",
    "    mov  x1, #\\kind",
    "    b    9f",
    ".endm",
    ".pushsection .text, \"ax\"",
    ".balign 2048",
    ".global guest_vectors",
    "guest_vectors:",
    "    vector 0", // With SP_EL0, which the programs do not use.
    "    vector 1",
    "    vector 2",
    "    vector 3",
    "    vector 4", // With SP_EL1.
    "    vector 5",
    "    vector 6",
    "    vector 7",
    "    vector 8", // From EL0, in AArch64 and AArch32.
    "    vector 9",
    "    vector 10",
    "    vector 11",
    "    vector 12",
    "    vector 13",
    "    vector 14",
    "    vector 15",
    "9:",
    "    stp  x2, x3, [sp, #16]",
    "    stp  x4, x5, [sp, #32]",
    "    stp  x6, x7, [sp, #48]",
    "    stp  x8, x9, [sp, #64]",
    "    stp  x10, x11, [sp, #80]",
    "    stp  x12, x13, [sp, #96]",
    "    stp  x14, x15, [sp, #112]",
    "    stp  x16, x17, [sp, #128]",
    "    stp  x18, x29, [sp, #144]",
    "    mrs  x2, elr_el1",
    "    mrs  x3, spsr_el1",
    "    stp  x30, x2, [sp, #160]",
    "    str  x3, [sp, #176]",
    "    mov  x0, sp",
    "    bl   guest_exception",
    "    ldp  x30, x2, [sp, #160]",
    "    ldr  x3, [sp, #176]",
    "    msr  elr_el1, x2",
    "    msr  spsr_el1, x3",
    "    ldp  x2, x3, [sp, #16]",
    "    ldp  x4, x5, [sp, #32]",
    "    ldp  x6, x7, [sp, #48]",
    "    ldp  x8, x9, [sp, #64]",
    "    ldp  x10, x11, [sp, #80]",
    "    ldp  x12, x13, [sp, #96]",
    "    ldp  x14, x15, [sp, #112]",
    "    ldp  x16, x17, [sp, #128]",
    "    ldp  x18, x29, [sp, #144]",
    "    ldp  x0, x1, [sp], #192",
    "    eret",
    ".popsection",
);

/// The slots that a correct program can meet.
const SYNCHRONOUS: u64 = 4;
const IRQ: u64 = 5;

/// Called by the vectors.
#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &mut Frame, kind: u64) {
    match kind {
        IRQ => gic::take(),
        SYNCHRONOUS if probe::caught(frame) => {}
        _ => panic!(
            "exception {kind}: ESR {:#x}, FAR {:#x}, ELR {:#x}, LR {:#x}",
            cpu::esr(),
            cpu::far(),
            frame.elr,
            frame.fp_lr[1]
        ),
    }
}

/// Makes this vCPU use the vectors.
pub fn install() {
    // SAFETY: `guest_vectors` is a whole vector table, aligned as the architecture asks.
    unsafe {
        asm!(
            "adrp {table}, guest_vectors",
            "add {table}, {table}, :lo12:guest_vectors",
            "msr vbar_el1, {table}",
            "isb",
            table = out(reg) _,
        );
    }
}
