//! The registers of a VM are its own: zero when it starts, kept while another VM runs, and kept by every
//! kind of call.
//!
//! Cast: this program as first and second VM, on the same CPU, linked. One has filled all registers
//! when the other starts. Both fill them with values of their own again and again, and look whether
//! they are still there. X0 to X29 around each call are in [`queues`](crate::queues); here are those
//! that a call has nothing to do with.

use core::arch::global_asm;

use rm_abi::extension::{CopySegment, CopySide};
use rm_abi::hypercall::{DOORBELL_SEND, MSGQUEUE_RECEIVE, native};
use rm_abi::{Capability, Handle};
use rm_client::hvc::Native;
use rm_client::{
    Error, ErrorCode, NewParcel, Poll, Queues, Rights, Sanitize, Session, Vmid, grant, pages,
};

use crate::demo::granted;
use crate::fp::{self, Pattern};
use crate::instruction::{execute, hvc, smc};
use crate::layout::{PAGE, PAGES, VMID_A, VMID_B};
use crate::preempt::COUNTERS;
use crate::{life, memory, preempt};

/// Rounds that the general registers are held for: far less than a time slice.
const ROUNDS: u64 = 20_000;
/// Most holds before the peer counts as absent.
const HOLDS: u64 = 100_000;
/// A word behind a counter of [`preempt`]: its VM started when the peer had filled its registers.
const BEHIND: u64 = 16;
/// Pages of the longest copy.
const COUNT: u64 = CopySegment::MAX_LENGTH as u64 / PAGE;
/// PSCI_VERSION.
const PSCI_VERSION: u64 = 0x8400_0000;

/// Declares the system registers that the program can fill without harm to itself.
macro_rules! system_registers {
    ($($name:literal),* $(,)?) => {
        const NAMES: &[&str] = &[$($name),*];

        /// Writes the registers.
        fn write(values: &[u64; NAMES.len()]) {
            let mut values = values.iter();
            $(crate::write_register!($name, *values.next().expect("one for each"));)*
            crate::cpu::isb();
        }

        /// Reads the registers.
        fn read() -> [u64; NAMES.len()] {
            [$(crate::read_register!($name)),*]
        }
    };
}

// Those of stage 1 and exceptions that are in use are not among them: TTBR0, TCR, SCTLR, MAIR, VBAR, CPACR.
// TTBR1 is not walked, and the timer is off.
system_registers! {
    "tpidr_el0", "tpidrro_el0", "tpidr_el1",
    "sp_el0", "elr_el1", "spsr_el1", "esr_el1", "far_el1", "afsr0_el1", "afsr1_el1",
    "ttbr1_el1", "amair_el1", "contextidr_el1", "par_el1", "csselr_el1", "cntv_cval_el0",
}
/// The first of them have 64 bits that mean nothing to the CPU.
const WHOLE: usize = 3;

/// Values that neither the peer nor another round has.
fn values(role: u64, round: u64) -> [u64; NAMES.len()] {
    core::array::from_fn(|index| role << 56 | round << 16 | (0x0101 * (index as u64 + 1)))
}

// hold(x0: 30 values, x1: rounds): X0 to X29 have these values for so many rounds; then they are stored.
global_asm!(
    ".pushsection .text, \"ax\"",
    ".global registers_hold",
    "registers_hold:",
    "    sub  sp, sp, #112",
    "    stp  x19, x20, [sp]",
    "    stp  x21, x22, [sp, #16]",
    "    stp  x23, x24, [sp, #32]",
    "    stp  x25, x26, [sp, #48]",
    "    stp  x27, x28, [sp, #64]",
    "    stp  x29, x30, [sp, #80]",
    "    stp  x0, x1, [sp, #96]",
    "    mov  x30, x0",
    "    .irp n, 0,2,4,6,8,10,12,14,16,18,20,22,24,26,28",
    "    ldr  x\\n, [x30, #8 * \\n]",
    "    .endr",
    "    .irp n, 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29",
    "    ldr  x\\n, [x30, #8 * \\n]",
    "    .endr",
    "    ldr  x30, [sp, #104]",
    "1:  subs x30, x30, #1",
    "    b.ne 1b",
    "    ldr  x30, [sp, #96]",
    "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29",
    "    str  x\\n, [x30, #8 * \\n]",
    "    .endr",
    "    ldp  x19, x20, [sp]",
    "    ldp  x21, x22, [sp, #16]",
    "    ldp  x23, x24, [sp, #32]",
    "    ldp  x25, x26, [sp, #48]",
    "    ldp  x27, x28, [sp, #64]",
    "    ldp  x29, x30, [sp, #80]",
    "    add  sp, sp, #112",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn registers_hold(general: &mut [u64; 30], rounds: u64);
}

/// The program. The runtime has looked at X1 to X30.
pub fn main() {
    fp::check_zero();
    check(&[0; NAMES.len()], "at the start");
    let (page, role) = preempt::page_and_role();
    let (mine, theirs) = (page + COUNTERS[role], page + COUNTERS[1 - role]);
    memory::write(mine + BEHIND, u64::from(memory::read(theirs) > 0));
    let turns = preempt::outlive(page, role, HOLDS, |round| hold(role as u64 + 1, round));
    let behind = memory::read(mine + BEHIND) + memory::read(theirs + BEHIND);
    assert!(behind == 1, "one of the two starts when the other has filled its registers");
    let made = calls(role as u64 + 3);
    println!("my registers outlived {turns} turns of the peer, and {made} kinds of calls");
}

/// Looks whether the system registers have these values.
fn check(expected: &[u64; NAMES.len()], when: &str) {
    for ((name, is), expected) in NAMES.iter().zip(read()).zip(expected) {
        assert!(is == *expected, "{name} {when}: {is:#x}, not {expected:#x}");
    }
}

/// Fills the system registers; what they hold then: not every bit of each can be written.
fn fill(role: u64, round: u64) -> [u64; NAMES.len()] {
    let values = values(role, round);
    write(&values);
    let held = read();
    assert!(held[..WHOLE] == values[..WHOLE], "{held:x?}, not {values:x?}");
    held
}

/// Fills all registers, holds them, and checks them.
fn hold(role: u64, round: u64) {
    let pattern = Pattern::new(role, round);
    pattern.fill();
    let held = fill(role, round);
    let general: [u64; 30] = core::array::from_fn(|n| role << 48 | round << 16 | n as u64);
    let mut found = general;
    // SAFETY: keeps what the calling convention asks for, and writes `found` alone.
    unsafe { registers_hold(&mut found, ROUNDS) };
    assert!(found == general, "{found:x?}, not {general:x?}");
    check(&held, "after a while");
    pattern.check();
}

/// Makes calls of all kinds, each of which must leave all these registers alone; how many.
fn calls(role: u64) -> u64 {
    let mut direct = life::session();
    let acl = [grant(Vmid(VMID_A), Rights::RW), grant(Vmid(VMID_B), Rights::RW)];
    let place = [pages(PAGES, COUNT)];
    let parcel = granted("sharing", direct.share(&NewParcel::new(&place, &acl)));
    let mut queued = Session::<_, 512>::with_capacity(Queues::new(Native, Poll));
    let mut made = 0;
    let mut keeps = |what: &str, call: &mut dyn FnMut()| {
        let pattern = Pattern::new(role, made);
        pattern.fill();
        let held = fill(role, made);
        call();
        check(&held, what);
        pattern.check();
        made += 1;
    };
    let refused = Err(Error::Refused(ErrorCode::HandleInvalid));
    let nothing = Handle(0x7fff_e001);
    keeps("after a direct call", &mut || assert!(direct.vmid().is_ok()));
    keeps("after a refusal", &mut || {
        assert!(direct.release(nothing, Sanitize::empty()) == refused);
    });
    let segment = CopySegment {
        source: CopySide::Parcel(parcel, 0),
        dest: CopySide::Own(PAGES + COUNT * PAGE),
        length: CopySegment::MAX_LENGTH,
    };
    keeps("after a call of many steps", &mut || {
        let mut copied = granted("copying", direct.copy(&[segment]));
        assert!(copied.next() == Some(Ok(())));
    });
    keeps("after a queued call", &mut || assert!(queued.vmid().is_ok()));
    keeps("after a queued refusal", &mut || {
        assert!(queued.release(nothing, Sanitize::empty()) == refused);
    });
    let bell = Capability::SEND_QUEUE.0;
    for (what, instruction, x) in [
        (
            "after an empty queue",
            hvc(native(MSGQUEUE_RECEIVE)),
            [Capability::RECEIVE_QUEUE.0, PAGES, 240, 0, 0, 0],
        ),
        ("after a wrong capability", hvc(native(DOORBELL_SEND)), [bell, 1, 0, 0, 0, 0]),
        ("after a call that there is not", hvc(0x1234), [0; 6]),
        ("after PSCI", hvc(0), [PSCI_VERSION, 0, 0, 0, 0, 0]),
        ("after a function that there is not", smc(0), [0xc600_ffff, 0, 0, 0, 0, 0]),
    ] {
        keeps(what, &mut || assert!(execute(instruction, x).is_ok(), "{what}: refused"));
    }
    made
}
