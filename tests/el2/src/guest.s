// A guest of a few instructions, and the way into it and back.

// extern "C" fn run_guest(registers: *mut [u64; 4]) -> u64
// Enters EL1 with x0 to x3 and returns at its first exception, whose kind it gives: 0 synchronous,
// 1 IRQ, 2 FIQ, 3 SError. The guest leaves x19 to x30 and all else alone.
.section .text.run_guest, "ax"
.global run_guest
run_guest:
    stp x29, x30, [sp, #-112]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    mrs x9, vbar_el2
    stp x0, x9, [sp, #96]
    adrp x9, guest_vectors
    add x9, x9, :lo12:guest_vectors
    msr vbar_el2, x9
    ic iallu
    dsb nsh
    isb
    ldp x2, x3, [x0, #16]
    ldp x0, x1, [x0]
    eret

// x0 holds the kind; the guest's x0 and x1 are on the stack.
guest_left:
    ldr x1, [sp, #112]
    stp x2, x3, [x1, #16]
    ldp x2, x3, [sp], #16
    stp x2, x3, [x1]
    ldr x9, [sp, #104]
    msr vbar_el2, x9
    isb
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp x29, x30, [sp], #112
    ret

.macro from_el2
    .balign 0x80
    b .
.endm

.macro from_guest kind
    .balign 0x80
    stp x0, x1, [sp, #-16]!
    mov x0, #\kind
    b guest_left
.endm

// EL2 takes no exception between the two changes of VBAR_EL2.
.balign 0x800
guest_vectors:
    .rept 8
    from_el2
    .endr
    from_guest 0
    from_guest 1
    from_guest 2
    from_guest 3
    .rept 4
    from_el2
    .endr

// The guest's program: one page, wherever it is copied to. All that it needs is in registers.
.balign 0x800
.global program_start
.global program_watch
.global program_store
.global program_fetch
.global program_vectors
.global program_end
program_start:
// Reads the word at x0 for ever, and writes how often it did and what it read to x1.
program_watch:
    ldr x2, [x0]
    add x3, x3, #1
    stp x3, x2, [x1]
    b program_watch
// Writes the word at x0.
program_store:
    str xzr, [x0]
    hvc #0
// Goes to x0, where zeros are an undefined instruction.
program_fetch:
    br x0
// Its exceptions of its own: EL2 hears of each.
.balign 0x800
program_vectors:
    .rept 16
    .balign 0x80
    hvc #0
    .endr
program_end:
