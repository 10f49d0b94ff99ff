//! Hypercalls that look at every register.
//!
//! X0 to X29 and the condition flags are filled with a pattern, the arguments put in, and after the trap
//! each register that carries no result must hold what it held. X30 and SP carry the helper across, so
//! they are kept too.

use core::arch::global_asm;

use rm_abi::hypercall::{self, smccc};

/// What is compared: X0 to X29, and NZCV.
const COUNT: usize = 31;
/// The place of NZCV.
const FLAGS: usize = 30;
/// N and C.
const SOME_FLAGS: u64 = 0b1010 << 28;

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The number is in the instruction, arguments start in X0.
    Native,
    /// `hvc #0` with the number in W0, arguments start in X1.
    Smccc,
    /// The same by `smc #0`.
    SmcccBySmc,
}

/// All of them.
pub const FORMS: [Form; 3] = [Form::Native, Form::Smccc, Form::SmcccBySmc];

/// X0 to X29 and NZCV as they are before a trap, and after.
pub type Registers = [u64; COUNT];

/// Functions that load X0 to X29 from an array, trap, and store them back.
macro_rules! traps {
    ($($name:ident $instruction:literal,)*) => {
        $(
            global_asm!(
                ".pushsection .text, \"ax\"",
                concat!(stringify!($name), ":"),
                "    sub  sp, sp, #96",
                "    stp  x19, x20, [sp]",
                "    stp  x21, x22, [sp, #16]",
                "    stp  x23, x24, [sp, #32]",
                "    stp  x25, x26, [sp, #48]",
                "    stp  x27, x28, [sp, #64]",
                "    stp  x29, x30, [sp, #80]",
                "    mov  x30, x0",
                "    ldr  x0, [x30, #240]",
                "    msr  nzcv, x0",
                "    ldp  x0, x1, [x30]",
                "    ldp  x2, x3, [x30, #16]",
                "    ldp  x4, x5, [x30, #32]",
                "    ldp  x6, x7, [x30, #48]",
                "    ldp  x8, x9, [x30, #64]",
                "    ldp  x10, x11, [x30, #80]",
                "    ldp  x12, x13, [x30, #96]",
                "    ldp  x14, x15, [x30, #112]",
                "    ldp  x16, x17, [x30, #128]",
                "    ldp  x18, x19, [x30, #144]",
                "    ldp  x20, x21, [x30, #160]",
                "    ldp  x22, x23, [x30, #176]",
                "    ldp  x24, x25, [x30, #192]",
                "    ldp  x26, x27, [x30, #208]",
                "    ldp  x28, x29, [x30, #224]",
                $instruction,
                "    stp  x0, x1, [x30]",
                "    stp  x2, x3, [x30, #16]",
                "    stp  x4, x5, [x30, #32]",
                "    stp  x6, x7, [x30, #48]",
                "    stp  x8, x9, [x30, #64]",
                "    stp  x10, x11, [x30, #80]",
                "    stp  x12, x13, [x30, #96]",
                "    stp  x14, x15, [x30, #112]",
                "    stp  x16, x17, [x30, #128]",
                "    stp  x18, x19, [x30, #144]",
                "    stp  x20, x21, [x30, #160]",
                "    stp  x22, x23, [x30, #176]",
                "    stp  x24, x25, [x30, #192]",
                "    stp  x26, x27, [x30, #208]",
                "    stp  x28, x29, [x30, #224]",
                "    mrs  x0, nzcv",
                "    str  x0, [x30, #240]",
                "    ldp  x19, x20, [sp]",
                "    ldp  x21, x22, [sp, #16]",
                "    ldp  x23, x24, [sp, #32]",
                "    ldp  x25, x26, [sp, #48]",
                "    ldp  x27, x28, [sp, #64]",
                "    ldp  x29, x30, [sp, #80]",
                "    add  sp, sp, #96",
                "    ret",
                ".popsection",
            );
        )*
        unsafe extern "C" {
            $(fn $name(registers: &mut Registers);)*
        }
    };
}

traps! {
    mailbox_trap_hvc "hvc #0",
    mailbox_trap_smc "smc #0",
    mailbox_trap_00 "hvc #0x6000",
    mailbox_trap_01 "hvc #0x6001",
    mailbox_trap_12 "hvc #0x6012",
    mailbox_trap_13 "hvc #0x6013",
    mailbox_trap_14 "hvc #0x6014",
    mailbox_trap_15 "hvc #0x6015",
    mailbox_trap_1b "hvc #0x601b",
    mailbox_trap_1c "hvc #0x601c",
    mailbox_trap_1d "hvc #0x601d",
    mailbox_trap_1e "hvc #0x601e",
    mailbox_trap_1f "hvc #0x601f",
    mailbox_trap_20 "hvc #0x6020",
    mailbox_trap_1f0 "hvc #0x61f0",
    mailbox_trap_1ff "hvc #0x61ff",
}

/// The function that executes a call.
fn trap_of(form: Form, number: u16) -> unsafe extern "C" fn(&mut Registers) {
    match (form, number) {
        (Form::Smccc, _) => mailbox_trap_hvc,
        (Form::SmcccBySmc, _) => mailbox_trap_smc,
        (_, hypercall::IDENTIFY) => mailbox_trap_00,
        (_, 0x01) => mailbox_trap_01,
        (_, hypercall::DOORBELL_SEND) => mailbox_trap_12,
        (_, hypercall::DOORBELL_RECEIVE) => mailbox_trap_13,
        (_, hypercall::DOORBELL_RESET) => mailbox_trap_14,
        (_, hypercall::DOORBELL_MASK) => mailbox_trap_15,
        (_, hypercall::MSGQUEUE_SEND) => mailbox_trap_1b,
        (_, hypercall::MSGQUEUE_RECEIVE) => mailbox_trap_1c,
        (_, hypercall::MSGQUEUE_FLUSH) => mailbox_trap_1d,
        (_, 0x1e) => mailbox_trap_1e,
        (_, hypercall::MSGQUEUE_CONFIGURE_SEND) => mailbox_trap_1f,
        (_, hypercall::MSGQUEUE_CONFIGURE_RECEIVE) => mailbox_trap_20,
        (_, hypercall::DIRECT_CALL) => mailbox_trap_1f0,
        (_, 0x1ff) => mailbox_trap_1ff,
        _ => panic!("no instruction for number {number:#x}"),
    }
}

/// A value that no other register holds, both halves in use.
const fn pattern(register: usize) -> u64 {
    0xa5a5_5a5a_9696_0000 + 0x0101_0101_0101 * register as u64
}

/// All filled with the pattern, `values` in the first.
pub fn registers(values: &[u64]) -> Registers {
    let mut registers: Registers = core::array::from_fn(pattern);
    registers[FLAGS] = SOME_FLAGS;
    registers[..values.len()].copy_from_slice(values);
    registers
}

/// Traps with exactly these registers; what they are afterwards.
pub fn trap(form: Form, number: u16, before: &Registers) -> Registers {
    let mut registers = *before;
    // SAFETY: the functions keep what the calling convention asks, and EL2 writes only the buffers that
    // the caller has lent to the call.
    unsafe { trap_of(form, number)(&mut registers) };
    registers
}

/// Makes call `number`, checks that all registers but the `N` results are kept, and returns those.
pub fn call<const N: usize>(form: Form, number: u16, arguments: &[u64]) -> [u64; N] {
    let first = usize::from(form != Form::Native);
    let mut before = registers(&[smccc(number).into()][..first]);
    before[first..first + arguments.len()].copy_from_slice(arguments);
    kept_but_results(form, number, &before)
}

/// Makes a call by its function id, which need not be one; see [`call`].
pub fn by_id<const N: usize>(form: Form, id: u64, arguments: &[u64]) -> [u64; N] {
    let mut before = registers(&[id]);
    before[1..=arguments.len()].copy_from_slice(arguments);
    kept_but_results(form, 0, &before)
}

fn kept_but_results<const N: usize>(form: Form, number: u16, before: &Registers) -> [u64; N] {
    let after = trap(form, number, before);
    for register in N..COUNT {
        let (was, is) = (before[register], after[register]);
        // 30 is NZCV.
        assert!(was == is, "{form:?} {number:#x}: X{register} was {was:#x}, is {is:#x}");
    }
    core::array::from_fn(|register| after[register])
}
