// From the firmware's jump to Rust, on every CPU.
//
// The CPU arrives at EL2 with the MMU off, somewhere in RAM (the arm64 boot protocol; PSCI CPU_ON
// for the other CPUs). All code up to `in_final_map` lies in the image's first page and reaches data
// only relative to the program counter.
//
// The link addresses may overlap the addresses the image was loaded at, so no single table can hold
// both maps. The way round: the first page is mapped a third time, at an address of its own (the
// bridge), in both of two roots:
//
//   boot_root   first page at its physical address and at the bridge
//   el2_root    first page at the bridge, and the image at its link addresses, for good
//
// The MMU goes on under boot_root, execution moves to the bridge, TTBR0 changes to el2_root, and
// once the old translations are gone execution moves to the link address. No address ever has two
// translations in one TLB. The bridge stays in el2_root: it is one page of read-only code.

.section .boot.header, "ax"
.global _start
_start:
    b       primary_entry
    .long   0
    .quad   __text_offset
    // Patched by the host tool to include the package that follows.
    .quad   __image_size
    // Little endian, 4 KiB pages, anywhere in memory.
    .quad   0xa
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

.section .boot.text, "ax"

// x19: CPU index. x20: physical address of the image. x23: what the first CPU found in x0, the address of
// firmware's device tree. They live until Rust is called.
primary_entry:
    mov     x19, #0
    mov     x23, x0
    bl      reset_el2_state
    adrp    x20, __image_start
    bl      build_tables
    b       enable_translation

// A CPU that a table has released comes with nothing: its index is its lowest affinity.
.global spin_table_entry
spin_table_entry:
    mrs     x0, mpidr_el1
    and     x0, x0, #0xff
// PSCI passes the context value of CPU_ON in x0: the CPU's index.
.global secondary_entry
secondary_entry:
    mov     x19, x0
    bl      reset_el2_state
    adrp    x20, __image_start
    b       enable_translation

// Sets what decides how EL2 itself runs. Firmware and reset leave these registers in any state.
reset_el2_state:
    msr     daifset, #0xf
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    park
    msr     spsel, #1
    // E2H and TGE off before anything else: they change what the other registers mean.
    ldr     x0, ={hcr}
    msr     hcr_el2, x0
    isb
    ldr     x0, ={sctlr_off}
    msr     sctlr_el2, x0
    isb
    ldr     x0, ={cptr}
    msr     cptr_el2, x0
    msr     hstr_el2, xzr
    msr     cnthctl_el2, xzr
    msr     cntvoff_el2, xzr
    msr     vttbr_el2, xzr
    // HPMN keeps all event counters in the guests' half; nothing is trapped yet since no guest runs.
    mrs     x0, pmcr_el0
    ubfx    x0, x0, #11, #5
    msr     mdcr_el2, x0
    ret

// Nothing that EL2 needs exists at another exception level, the UART's address among it.
park:
    wfe
    b       park

.macro map_section from, to, attributes
    adrp    x0, \from
    adrp    x1, \to
    ldr     x2, =\attributes
    bl      map_image_pages
.endm

// Fills both roots. x20: physical address of the image.
build_tables:
    mov     x27, x30
    adrp    x21, link_level3
    add     x21, x21, #{link_level3_skip}
    map_section __image_start, __text_end, {page_code}
    map_section __text_end, __rodata_end, {page_read_only}
    map_section __rodata_end, __image_end, {page_data}

    // Level 2 of the link range: every level-3 table.
    adrp    x0, link_level3
    orr     x0, x0, #{table}
    adrp    x1, link_level2
    add     x1, x1, #{link_level2_skip}
    mov     x2, #{link_level3_tables}
1:  str     x0, [x1], #8
    add     x0, x0, #4096
    subs    x2, x2, #1
    b.ne    1b

    adrp    x0, el2_root
    adrp    x1, link_level2
    orr     x1, x1, #{table}
    str     x1, [x0, #{link_root_offset}]

    // The first page at the bridge, in both roots, and at its physical address in boot_root.
    adrp    x1, boot_level2
    orr     x1, x1, #{table}
    str     x1, [x0, #{bridge_root_offset}]
    adrp    x0, boot_root
    str     x1, [x0, #{bridge_root_offset}]
    lsr     x2, x20, #30
    str     x1, [x0, x2, lsl #3]
    adrp    x0, boot_level2
    adrp    x1, boot_level3
    orr     x3, x1, #{table}
    ubfx    x2, x20, #21, #9
    str     x3, [x0, x2, lsl #3]
    ubfx    x2, x20, #12, #9
    ldr     x3, ={page_code}
    orr     x3, x3, x20
    str     x3, [x1, x2, lsl #3]

    // The tables were written past the caches, which may still hold clean lines of the loaded image.
    adrp    x0, boot_tables_start
    adrp    x1, boot_tables_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x2, x3, x2
    dsb     sy
2:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    2b
    dsb     sy
    ret     x27

// Maps the physical pages from x0 to x1 at their link addresses with attributes x2.
// x20: physical address of the image, x21: the level-3 entry of its first page.
map_image_pages:
    cmp     x0, x1
    b.hs    1f
    sub     x3, x0, x20
    lsr     x3, x3, #9
    orr     x4, x0, x2
    str     x4, [x21, x3]
    add     x0, x0, #4096
    b       map_image_pages
1:  ret

enable_translation:
    tlbi    alle2
    ic      iallu
    ldr     x0, ={mair}
    msr     mair_el2, x0
    // PARange above 48 bits needs descriptors of another format.
    ldr     x0, ={tcr}
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    orr     x0, x0, x1, lsl #16
    msr     tcr_el2, x0
    adrp    x22, el2_root
    adrp    x0, boot_root
    msr     ttbr0_el2, x0
    dsb     nsh
    isb
    ldr     x0, ={sctlr_on}
    msr     sctlr_el2, x0
    isb
    adr     x0, 1f
    and     x0, x0, #0x3fffffff
    orr     x0, x0, #{bridge}
    br      x0
1:  msr     ttbr0_el2, x22
    isb
    tlbi    alle2
    dsb     nsh
    isb
    ldr     x0, =in_final_map
    br      x0

.section .text.boot, "ax"

// Link addresses from here on. x19: CPU index, x20: physical address of the image.
in_final_map:
    ldr     x0, ={stacks}
    ldr     x1, ={stacks_size}
    madd    x0, x19, x1, x0
    ldr     x1, ={stack_top}
    add     x0, x0, x1
    mov     sp, x0
    ldr     x0, ={cpus}
    ldr     x1, ={cpu_size}
    madd    x0, x19, x1, x0
    msr     tpidr_el2, x0
    ldr     x0, =vectors
    msr     vbar_el2, x0
    isb
    // A frame record of zeros ends every backtrace.
    mov     x29, #0
    mov     x30, #0
    cbnz    x19, 1f
    mov     x0, x20
    mov     x1, x23
    b       {primary}
1:  b       {secondary}

.section .bss.boot_tables, "aw", %nobits
.balign 4096
boot_tables_start:
boot_root:
    .zero   4096
boot_level2:
    .zero   4096
boot_level3:
    .zero   4096
link_level2:
    .zero   4096
link_level3:
    .zero   4096 * {link_level3_tables}
.global el2_root
el2_root:
    .zero   4096
boot_tables_end:
