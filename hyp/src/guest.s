// Entry from a guest and return to it.
//
// While a guest runs, SP_EL2 stands where the CPU's stack stood at `enter_guest`. A trap pushes the
// guest's registers there and calls Rust. Rust keeps x19 to x28, so a hypercall saves and restores
// only what Rust may change; other causes may name any register as operand and save all. ELR_EL2 and
// SPSR_EL2 stay in place: nothing returns from an exception that is taken while EL2 runs.

.set REGISTERS, 256                     // size of `vcpu::Registers`

// Pushes what Rust may change. x19 shares a slot pair with x18.
.macro save_volatile
    sub     sp, sp, #REGISTERS
    stp     x0, x1, [sp, #8 * 0]
    stp     x2, x3, [sp, #8 * 2]
    stp     x4, x5, [sp, #8 * 4]
    stp     x6, x7, [sp, #8 * 6]
    stp     x8, x9, [sp, #8 * 8]
    stp     x10, x11, [sp, #8 * 10]
    stp     x12, x13, [sp, #8 * 12]
    stp     x14, x15, [sp, #8 * 14]
    stp     x16, x17, [sp, #8 * 16]
    stp     x18, x19, [sp, #8 * 18]
    stp     x29, x30, [sp, #8 * 29]
    // An SError that is pending now belongs to this guest: go straight back, and it is taken from the
    // guest (HCR_EL2.AMO), which stops that VM. From the next instruction on it would be EL2's own.
    mrs     x2, isr_el1
    tbnz    x2, #8, restore_volatile
    msr     daifclr, #4
    mov     x0, sp
    // Ends the chain of frame pointers for a backtrace; the guest's x29 is no pointer to trust.
    mov     x29, xzr
.endm

.macro save_preserved
    stp     x20, x21, [sp, #8 * 20]
    stp     x22, x23, [sp, #8 * 22]
    stp     x24, x25, [sp, #8 * 24]
    stp     x26, x27, [sp, #8 * 26]
    str     x28, [sp, #8 * 28]
.endm

// Saves everything, calls `handler(registers)`, and leaves the guest if that says so.
.macro full_entry handler
    save_volatile
    save_preserved
    bl      \handler
    cbz     w0, restore_all
    b       switch
.endm

    .section .text.guest, "ax"
    .balign 64

    .global lower_el_sync
lower_el_sync:
    save_volatile
    mrs     x1, esr_el2
    lsr     x2, x1, #26
    cmp     x2, #0x16                   // HVC from AArch64
    b.ne    other_synchronous
    bl      guest_hypercall
    cbnz    w0, leave_after_hypercall

restore_volatile:
    ldp     x29, x30, [sp, #8 * 29]
    ldp     x18, x19, [sp, #8 * 18]
    ldp     x16, x17, [sp, #8 * 16]
    ldp     x14, x15, [sp, #8 * 14]
    ldp     x12, x13, [sp, #8 * 12]
    ldp     x10, x11, [sp, #8 * 10]
    ldp     x8, x9, [sp, #8 * 8]
    ldp     x6, x7, [sp, #8 * 6]
    ldp     x4, x5, [sp, #8 * 4]
    ldp     x2, x3, [sp, #8 * 2]
    ldp     x0, x1, [sp, #8 * 0]
    add     sp, sp, #REGISTERS
    eret
    // No CPU speculates past the return.
    dsb     nsh
    isb

leave_after_hypercall:
    save_preserved
    b       switch

other_synchronous:
    save_preserved
    bl      guest_trap
    cbz     w0, restore_all

// Puts the next vCPU's registers in the place of this one's.
switch:
    mov     x0, sp
    bl      guest_switch

restore_all:
    ldp     x20, x21, [sp, #8 * 20]
    ldp     x22, x23, [sp, #8 * 22]
    ldp     x24, x25, [sp, #8 * 24]
    ldp     x26, x27, [sp, #8 * 26]
    ldr     x28, [sp, #8 * 28]
    b       restore_volatile

    // EL2 has no group 0 interrupts; a FIQ that firmware lets through is acknowledged as nothing.
    .global lower_el_irq, lower_el_fiq
lower_el_irq:
lower_el_fiq:
    save_volatile
    bl      guest_interrupted
    cbz     w0, restore_volatile
    b       leave_after_hypercall

    .global lower_el_serror
lower_el_serror:
    // Not `save_volatile`: an SError behind this one is the guest's too, and must not loop here.
    sub     sp, sp, #REGISTERS
    mov     x29, xzr
    mov     x0, sp
    bl      guest_serror_taken
    b       switch

// Gives this CPU to its first vCPU. Never returns; the stack below stays as it is.
    .global enter_guest
enter_guest:
    sub     sp, sp, #REGISTERS
    mov     x29, xzr
    b       switch

// fp_save(x0 = FloatingPoint), fp_load(x0 = FloatingPoint): V0 to V31, FPCR, FPSR.
    .arch_extension fp
    .arch_extension simd
.macro vectors op
    \op     q0, q1, [x0, #32 * 0]
    \op     q2, q3, [x0, #32 * 1]
    \op     q4, q5, [x0, #32 * 2]
    \op     q6, q7, [x0, #32 * 3]
    \op     q8, q9, [x0, #32 * 4]
    \op     q10, q11, [x0, #32 * 5]
    \op     q12, q13, [x0, #32 * 6]
    \op     q14, q15, [x0, #32 * 7]
    \op     q16, q17, [x0, #32 * 8]
    \op     q18, q19, [x0, #32 * 9]
    \op     q20, q21, [x0, #32 * 10]
    \op     q22, q23, [x0, #32 * 11]
    \op     q24, q25, [x0, #32 * 12]
    \op     q26, q27, [x0, #32 * 13]
    \op     q28, q29, [x0, #32 * 14]
    \op     q30, q31, [x0, #32 * 15]
.endm

    .global fp_save
fp_save:
    vectors stp
    mrs     x1, fpcr
    mrs     x2, fpsr
    str     x1, [x0, #512]
    str     x2, [x0, #520]
    ret

    .global fp_load
fp_load:
    vectors ldp
    ldr     x1, [x0, #512]
    ldr     x2, [x0, #520]
    msr     fpcr, x1
    msr     fpsr, x2
    ret
    .arch_extension nosimd
    .arch_extension nofp
