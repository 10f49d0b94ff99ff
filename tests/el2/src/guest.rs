//! A guest of a few instructions: it watches one word for ever, or tries one store or one fetch.
//!
//! Its stage 1 is off, so its addresses are guest physical ones. Every exception ends it.

use core::arch::global_asm;
use core::slice;

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, Readable, SPSR_EL2, VBAR_EL1, Writeable};
use rm::address::{Ipa, PAGE_SIZE, Pa};

use crate::view::View;

global_asm!(include_str!("guest.s"));

unsafe extern "C" {
    // SAFETY: labels of the guest's program, used for their addresses and the bytes between them.
    safe static program_start: u8;
    // SAFETY: as above.
    safe static program_watch: u8;
    // SAFETY: as above.
    safe static program_store: u8;
    // SAFETY: as above.
    safe static program_fetch: u8;
    // SAFETY: as above.
    safe static program_vectors: u8;
    // SAFETY: as above.
    safe static program_end: u8;
    fn run_guest(registers: &mut [u64; 4]) -> u64;
}

/// SPSR_EL2: EL1h, all interrupts masked.
const EL1H: u64 = 0x3c5;

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Stage 2 has no translation for the address.
    Unmapped(Ipa),
    /// Stage 2 does not allow the access.
    Denied(Ipa),
    /// The guest came to its end.
    Done,
    /// Anything else: the kind of exception and ESR_EL2.
    Other(u64, u64),
}

/// Copies the program to a page of a VM.
pub fn install(page: Pa) {
    let length = offset(&program_end) as usize;
    assert!(length as u64 <= PAGE_SIZE, "the program fits its page");
    // SAFETY: the labels are start and end of one stretch of code.
    let code = unsafe { slice::from_raw_parts(&raw const program_start, length) };
    let target = hyp::stage1::direct(page);
    // SAFETY: the page is RAM of a VM that does not run yet, in the direct map.
    unsafe { target.copy_from_nonoverlapping(code.as_ptr(), length) };
    hyp::cache::sync_code(page, PAGE_SIZE);
}

/// Where in the program a label lies.
fn offset(label: &'static u8) -> u64 {
    &raw const *label as u64 - &raw const program_start as u64
}

/// A guest while it is not running.
#[derive(Debug)]
pub struct Guest {
    registers: [u64; 4],
    at: u64,
    vectors: u64,
}

impl Guest {
    fn new(program: Ipa, label: &'static u8, registers: [u64; 4]) -> Self {
        let vectors = program.0 + offset(&program_vectors);
        Self { registers, at: program.0 + offset(label), vectors }
    }

    /// Reads `word` for ever, and writes to `report` how often it did and what it read.
    pub fn watching(program: Ipa, word: Ipa, report: Ipa) -> Self {
        Self::new(program, &program_watch, [word.0, report.0, 0, 0])
    }

    /// Writes a zero to `word`.
    pub fn storing(program: Ipa, word: Ipa) -> Self {
        Self::new(program, &program_store, [word.0, 0, 0, 0])
    }

    /// Executes what is at `word`.
    pub fn fetching(program: Ipa, word: Ipa) -> Self {
        Self::new(program, &program_fetch, [word.0, 0, 0, 0])
    }

    /// Runs it on this CPU, in the VM that is loaded, until it stops. Run again, it goes on there.
    pub fn run(&mut self, _vm: &View) -> Stop {
        VBAR_EL1.set(self.vectors);
        ELR_EL2.set(self.at);
        SPSR_EL2.set(EL1H);
        isb(SY);
        // SAFETY: the guest touches its own memory and four registers, and every exception comes
        // back here.
        let kind = unsafe { run_guest(&mut self.registers) };
        self.at = ELR_EL2.get();
        let (class, status) = (ESR_EL2.read(ESR_EL2::EC), ESR_EL2.get() & 0x3c);
        const HVC: u64 = 0x16;
        const FETCH: u64 = 0x20;
        const LOAD_OR_STORE: u64 = 0x24;
        match (kind, class, status) {
            (0, HVC, _) => Stop::Done,
            (0, FETCH | LOAD_OR_STORE, 0x04) => Stop::Unmapped(Ipa(FAR_EL2.get())),
            (0, FETCH | LOAD_OR_STORE, 0x0c) => Stop::Denied(Ipa(FAR_EL2.get())),
            _ => Stop::Other(kind, ESR_EL2.get()),
        }
    }
}
