//! The first instructions of a program, and what happens before and after its `main`.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

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
    // All but X0 together, for `run` to see that they start as zero.
    "    .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "    orr  x1, x1, x\\n",
    "    .endr",
    "    mov  x20, x1",
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
    "    adrp x1, {start_registers}",
    "    ldr  x2, [x1, :lo12:{start_registers}]",
    "    orr  x2, x2, x20",
    "    str  x2, [x1, :lo12:{start_registers}]",
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
    start_registers = sym START_REGISTERS,
);

/// What was in X1 to X30 when the vCPUs started, all together.
static START_REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Runs a vCPU's part of the program. When the first vCPU's returns, the VM ends normally; the second
/// then waits for that.
pub fn run(vcpu: u64, first: fn(), second: fn()) -> ! {
    vectors::install();
    mmu::enable();
    let found = START_REGISTERS.load(Ordering::Relaxed);
    assert!(found == 0, "X1 to X30 are not zero at the start: {found:#x} together");
    if vcpu == 0 {
        first();
        life::finish()
    }
    second();
    cpu::park();
    life::finish()
}
