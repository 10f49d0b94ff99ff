//! The CPU, its devices and all addresses, used in any way.

use core::arch::global_asm;

use rm_abi::hypercall::{native, smccc};

use super::{Wild, spared};
use crate::instruction::{System, execute, hvc, smc, unusual};
use crate::probe::{self, Abort};

global_asm!(
    ".pushsection .rodata, \"a\"",
    ".balign 4",
    "wild_accesses:",
    "    ldr   x0, [x1]",
    "    str   x0, [x1]",
    "    ldr   w0, [x1]",
    "    str   w0, [x1]",
    "    ldrh  w0, [x1]",
    "    strh  w0, [x1]",
    "    ldrb  w0, [x1]",
    "    strb  w0, [x1]",
    "    ldrsw x0, [x1]",
    "    ldrsb x0, [x1]",
    "    str   xzr, [x1]",
    "    ldp   x0, x2, [x1]",
    "    stp   x0, x2, [x1]",
    "    ldr   x0, [x1], #8",
    "    str   x0, [x1], #8",
    "    ldar  x0, [x1]",
    "    stlr  x0, [x1]",
    "    ldxr  x0, [x1]",
    "    stxr  w2, x0, [x1]",
    "    ldaxp x0, x2, [x1]",
    "    ldtr  x0, [x1]",
    "    prfm  pldl1keep, [x1]",
    "    .inst 0x3dc00020", // ldr q0, [x1]
    "    .inst 0x3d800020", // str q0, [x1]
    "    .inst 0x4c402020", // ld1 {v0.16b-v3.16b}, [x1]
    "    dc    zva, x1",
    "    dc    ivac, x1",
    "    dc    civac, x1",
    "    dc    cvau, x1",
    "    ic    ivau, x1",
    "    at    s1e1w, x1",
    "    at    s1e0r, x1",
    "wild_accesses_end:",
    ".popsection",
);

unsafe extern "C" {
    static wild_accesses: u32;
    static wild_accesses_end: u32;
}

/// Instructions that use the memory at X1.
fn accesses() -> &'static [u32] {
    let (start, end) = (&raw const wild_accesses, &raw const wild_accesses_end);
    let count = (end.addr() - start.addr()) / size_of::<u32>();
    // SAFETY: the labels enclose so many instructions, aligned and in read-only data.
    unsafe { core::slice::from_raw_parts(start, count) }
}

/// Numbers of hypercalls there are.
const NUMBERS: [u16; 12] = [0, 0x12, 0x13, 0x14, 0x15, 0x1b, 0x1c, 0x1d, 0x1f, 0x20, 0x3b, 0x1f0];
/// What standard function ids begin with: the architecture's, PSCI's (DEN 0022F), the standard and the vendor
/// hypervisor's services.
const RANGES: [u32; 8] = [
    0x8000_0000,
    0xc000_0000,
    0x8400_0000,
    0xc400_0000,
    0x8500_0000,
    0x8600_0000,
    0xc600_0000,
    0x8600_ff00,
];
/// What all capabilities have in common.
const CAPABILITIES: u64 = 0x6d62_6f78_0000_0000;

impl Wild {
    /// A trap with any immediate and any function id.
    pub(super) fn any_hypercall(&mut self) {
        let mut x = [0; 6];
        x.iter_mut().for_each(|x| *x = self.argument());
        let number = self.hypercall_number();
        let trap = match self.random.below(8) {
            0 => hvc(self.random.word() as u16),
            1 => smc(self.number() as u16),
            2..=3 => {
                x[0] = self.function_id();
                if self.random.once_in(2) { hvc(0) } else { smc(0) }
            }
            4 => {
                x[0] = u64::from(smccc(number)) | self.number() << 32;
                hvc(0)
            }
            _ => hvc(native(number)),
        };
        x[0] = spared::call(x[0]);
        let outcome = execute(trap, x);
        self.count(outcome);
    }

    fn hypercall_number(&mut self) -> u16 {
        if self.random.once_in(4) {
            return self.random.below(0x200) as u16;
        }
        self.random.one_of(&NUMBERS)
    }

    /// A function id of some service.
    fn function_id(&mut self) -> u64 {
        let id = self.random.one_of(&RANGES) | self.random.below(0x40) as u32;
        u64::from(id) ^ if self.random.once_in(4) { self.number() } else { 0 }
    }

    /// An argument of a hypercall: a capability, a buffer, a number.
    fn argument(&mut self) -> u64 {
        match self.random.below(4) {
            0 => {
                let kind = self.random.below(3) << 8;
                CAPABILITIES | kind | self.random.below(4)
            }
            1 => self.address(),
            _ => spared::address(self.number()),
        }
    }

    /// Any access to any address.
    pub(super) fn access_memory(&mut self) {
        let instruction = self.random.one_of(accesses());
        let at = self.address();
        let outcome = execute(instruction, [self.number(), at, self.number(), 0, 0, 0]);
        self.count(outcome);
    }

    /// A fetch from any address but of the own memory.
    pub(super) fn fetch(&mut self) {
        let misaligned = if self.random.once_in(4) { 0 } else { 3 };
        let outcome = probe::execute(spared::fetch(self.address() & !misaligned));
        self.count(outcome);
    }

    /// Any system register, or an instruction of the system's.
    pub(super) fn use_register(&mut self) {
        let system = if self.random.once_in(3) {
            self.random.one_of(unusual::REGISTERS).1
        } else {
            // Those with op0 = 0 are hints and barriers, WFI among them.
            let [op0, op1, op2] = [1 + self.random.below(3), self.number() & 7, self.number() & 7];
            let [crn, crm] = [self.random.below(16), self.random.below(16)];
            System([op0, op1, crn, crm, op2].map(|field| field as u8))
        };
        let value = if self.random.once_in(2) { self.address() } else { self.number() };
        let write = self.random.once_in(2) && spared::register(system);
        let instruction = if write { system.write() } else { system.read() };
        let outcome = execute(instruction, [spared::address(value), 0, 0, 0, 0, 0]);
        self.count(outcome);
    }

    fn count<T>(&mut self, outcome: Result<T, Abort>) {
        match outcome {
            Ok(_) => self.counts.done += 1,
            Err(_) => self.counts.refused += 1,
        }
    }
}
