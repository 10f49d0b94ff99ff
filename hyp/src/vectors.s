// EL2's exception vectors: sixteen slots of 128 bytes, in the architecture's order.
//
// EL2 never provokes an exception of its own, so the current-level slots all end in `fatal`. (An SError
// of a guest that is pending at its exit goes back to be taken there, see `guest.s`.) A lower
// level's exceptions go to four symbols that the guest half defines, each entered with every register
// as the guest left it. AArch32 at EL0 is a guest's choice, so its slots lead there too.

.section .text.vectors, "ax"

// An exception of EL2 itself. The stack pointer may be what is broken, so everything is saved on the
// CPU's emergency stack. TPIDR_EL0 and TPIDRRO_EL0 belong to a guest that will not run again.
.macro fatal_slot kind
    .balign 128
    msr     tpidr_el0, x0
    mov     x0, sp
    msr     tpidrro_el0, x0
    mrs     x0, tpidr_el2
    ldr     x0, [x0, #{emergency_offset}]
    mov     sp, x0
    mov     x0, #\kind
    b       save_fatal_frame
.endm

.macro guest_slot target
    .balign 128
    b       \target
.endm

.balign 2048
.global vectors
vectors:
    fatal_slot 0
    fatal_slot 1
    fatal_slot 2
    fatal_slot 3

    fatal_slot 0
    fatal_slot 1
    fatal_slot 2
    fatal_slot 3

    guest_slot lower_el_sync
    guest_slot lower_el_irq
    guest_slot lower_el_fiq
    guest_slot lower_el_serror

    guest_slot lower_el_sync
    guest_slot lower_el_irq
    guest_slot lower_el_fiq
    guest_slot lower_el_serror

// x0: the kind of exception; the interrupted x0 and sp are in TPIDR_EL0 and TPIDRRO_EL0.
save_fatal_frame:
    sub     sp, sp, #{frame_size}
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, tpidr_el0
    stp     x2, x1, [sp]
    mrs     x2, tpidrro_el0
    stp     x30, x2, [sp, #240]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [sp, #256]
    mrs     x2, esr_el2
    mrs     x3, far_el2
    stp     x2, x3, [sp, #272]
    mov     x1, sp
    // The handler's own frame record continues the interrupted code's.
    bl      {fatal_exception}
