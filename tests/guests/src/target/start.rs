//! The first instructions of a program, and what happens before and after its `main`.

use core::arch::global_asm;

use crate::{cpu, life, mmu, vectors};

/// Bytes of a vCPU's stack. A session for the longest messages takes 30 KiB of it.
const STACK: usize = 0x1_0000;
/// Most vCPUs of a VM.
const VCPUS: usize = 2;

// Both vCPUs start here at the same time. The first clears .bss; the second waits for that, since its
// own stack use must not be cleared and it must not read statics before.
global_asm!(
    ".pushsection .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "    mrs  x19, mpidr_el1",
    "    and  x19, x19, #0xff",
    "    cbnz x19, 2f",
    "    adrp x0, __bss_start",
    "    add  x0, x0, :lo12:__bss_start",
    "    adrp x1, __bss_end",
    "    add  x1, x1, :lo12:__bss_end",
    "1:  cmp  x0, x1",
    "    b.hs 3f",
    "    stp  xzr, xzr, [x0], #16",
    "    b    1b",
    "3:  dsb  sy",
    "    mov  w0, #1",
    "    adrp x1, .Lready",
    "    str  w0, [x1, :lo12:.Lready]",
    "    dsb  sy",
    "    b    4f",
    "2:  adrp x1, .Lready",
    "5:  yield",
    "    ldr  w0, [x1, :lo12:.Lready]",
    "    cbz  w0, 5b",
    "    dsb  sy",
    // FP and SIMD for the programs that use them by hand; compiled code does not.
    "4:  mov  x0, #(3 << 20)",
    "    msr  cpacr_el1, x0",
    // An event whenever bit 15 of the counter changes to 1, for `cpu::relax`.
    "    mov  x0, #(15 << 4 | 1 << 2)",
    "    msr  cntkctl_el1, x0",
    "    isb",
    "    adrp x0, __stacks_end",
    "    add  x0, x0, :lo12:__stacks_end",
    "    mov  x1, #{stack}",
    "    msub x0, x19, x1, x0",
    "    mov  sp, x0",
    "    mov  x29, xzr",
    "    mov  x30, xzr",
    "    mov  x0, x19",
    "    b    guest_main",
    ".popsection",
    ".pushsection .data, \"aw\"",
    ".balign 4",
    ".Lready: .word 0",
    ".popsection",
    ".pushsection .stacks, \"aw\", %nobits",
    ".balign 16",
    ".space {stacks}",
    ".popsection",
    stack = const STACK,
    stacks = const STACK * VCPUS,
);

/// Runs a vCPU's part of the program. When the first vCPU's returns, the VM ends normally; the second
/// then waits for that.
pub fn run(vcpu: u64, first: fn(), second: fn()) -> ! {
    vectors::install();
    mmu::enable();
    if vcpu == 0 {
        first();
        life::finish()
    }
    second();
    cpu::park();
    life::finish()
}
