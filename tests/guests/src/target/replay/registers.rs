//! Any instruction, with all registers given and all registers read.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, Ordering};

use rm_vectors::registers::Registers;

/// An instruction and the way back.
#[repr(C, align(64))]
struct Code([AtomicU32; 2]);

static CODE: Code = Code([const { AtomicU32::new(0) }; 2]);
const RET: u32 = 0xd65f_03c0;

// X0: the registers X0 to X28, to be loaded and stored again; X1: the code. It keeps X29, as hypercalls
// do in both forms.
global_asm!(
    ".pushsection .text.execute_with, \"ax\"",
    ".global execute_with",
    "execute_with:",
    "    stp  x29, x30, [sp, #-112]!",
    "    stp  x19, x20, [sp, #16]",
    "    stp  x21, x22, [sp, #32]",
    "    stp  x23, x24, [sp, #48]",
    "    stp  x25, x26, [sp, #64]",
    "    stp  x27, x28, [sp, #80]",
    "    str  x0, [sp, #96]",
    "    mov  x29, x0",
    "    mov  x30, x1",
    "    ldp  x0, x1, [x29]",
    "    ldp  x2, x3, [x29, #16]",
    "    ldp  x4, x5, [x29, #32]",
    "    ldp  x6, x7, [x29, #48]",
    "    ldp  x8, x9, [x29, #64]",
    "    ldp  x10, x11, [x29, #80]",
    "    ldp  x12, x13, [x29, #96]",
    "    ldp  x14, x15, [x29, #112]",
    "    ldp  x16, x17, [x29, #128]",
    "    ldp  x18, x19, [x29, #144]",
    "    ldp  x20, x21, [x29, #160]",
    "    ldp  x22, x23, [x29, #176]",
    "    ldp  x24, x25, [x29, #192]",
    "    ldp  x26, x27, [x29, #208]",
    "    ldr  x28, [x29, #224]",
    "    blr  x30",
    "    ldr  x29, [sp, #96]",
    "    stp  x0, x1, [x29]",
    "    stp  x2, x3, [x29, #16]",
    "    stp  x4, x5, [x29, #32]",
    "    stp  x6, x7, [x29, #48]",
    "    stp  x8, x9, [x29, #64]",
    "    stp  x10, x11, [x29, #80]",
    "    stp  x12, x13, [x29, #96]",
    "    stp  x14, x15, [x29, #112]",
    "    stp  x16, x17, [x29, #128]",
    "    stp  x18, x19, [x29, #144]",
    "    stp  x20, x21, [x29, #160]",
    "    stp  x22, x23, [x29, #176]",
    "    stp  x24, x25, [x29, #192]",
    "    stp  x26, x27, [x29, #208]",
    "    str  x28, [x29, #224]",
    "    ldp  x19, x20, [sp, #16]",
    "    ldp  x21, x22, [sp, #32]",
    "    ldp  x23, x24, [sp, #48]",
    "    ldp  x25, x26, [sp, #64]",
    "    ldp  x27, x28, [sp, #80]",
    "    ldp  x29, x30, [sp], #112",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn execute_with(registers: *mut Registers, code: *const Code);
}

/// Executes one trapping instruction.
pub(super) fn execute(instruction: u32, registers: &mut Registers) {
    CODE.0[0].store(instruction, Ordering::Relaxed);
    CODE.0[1].store(RET, Ordering::Relaxed);
    // SAFETY: cache maintenance and barriers.
    unsafe {
        asm!(
            "dc cvau, {code}",
            "dsb ish",
            "ic ivau, {code}",
            "dsb ish",
            "isb",
            code = in(reg) &raw const CODE,
        );
    }
    // SAFETY: the instruction is an `hvc` or `smc`, which changes registers and the buffers that its
    // caller names; `execute_with` keeps what the calling convention asks for.
    unsafe { execute_with(registers, &raw const CODE) };
}
