//! Programs for the target as sequences of A64 instructions.
//!
//! Only as much of the encoding is known as the tests ask for (DDI 0487 L.b, C4.1).

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SectionKind};

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction(pub u32);

/// The register that names zero, or the stack pointer, where a register number stands.
pub const ZERO: u32 = 31;

impl Instruction {
    /// `bits` bits from bit `at` on.
    fn field(self, at: u32, bits: u32) -> u32 {
        self.0 >> at & ((1 << bits) - 1)
    }

    fn is(self, mask: u32, value: u32) -> bool {
        self.0 & mask == value
    }

    /// A load, a store or a prefetch of any kind (C4.1, op0 of `x1x0`).
    pub fn is_memory_access(self) -> bool {
        self.is(0x0A00_0000, 0x0800_0000)
    }

    /// A load of general registers, and no prefetch.
    fn is_load(self) -> bool {
        let simd = self.field(26, 1) == 1;
        let (size, variant) = (self.field(30, 2), self.field(22, 2));
        let literal = self.is(0x3B00_0000, 0x1800_0000) && size != 3;
        let single = self.is(0x3A00_0000, 0x3800_0000) && variant != 0 && (size, variant) != (3, 2);
        let pair = self.is(0x3800_0000, 0x2800_0000) && self.field(22, 1) == 1;
        let compare_and_swap = self.is(0x00A0_0000, 0x00A0_0000);
        let ordered = self.is(0x3F40_0000, 0x0840_0000) && !compare_and_swap;
        !simd && (literal || single || pair || ordered)
    }

    /// The registers that a load writes, but for the base.
    fn loaded(self) -> [u32; 2] {
        let pair = self.is(0x3800_0000, 0x2800_0000) || self.is(0x3F20_0000, 0x0820_0000);
        [self.field(0, 5), if pair { self.field(10, 5) } else { self.field(0, 5) }]
    }

    /// A 64-bit multiply-add or multiply-subtract, long ones among them. A plain multiplication is
    /// one that adds the zero register, and is none here.
    pub fn is_multiply_add(self) -> bool {
        let long_or_64_bit = matches!(self.field(21, 3), 0b000 | 0b001 | 0b101);
        self.is(0xFF00_0000, 0x9B00_0000) && long_or_64_bit && self.field(10, 5) != ZERO
    }

    /// The registers that a multiply-add reads.
    fn multiply_add_reads(self) -> [u32; 3] {
        [self.field(5, 5), self.field(16, 5), self.field(10, 5)]
    }

    /// Whether Cortex-A53 may compute `self`, right behind `before`, wrongly (erratum 835769). A load
    /// of what is multiplied or added is waited for, and harmless.
    pub fn may_go_wrong_after(self, before: Self) -> bool {
        let waits = before.is_load()
            && before.loaded().iter().any(|register| self.multiply_add_reads().contains(register));
        before.is_memory_access() && self.is_multiply_add() && !waits
    }

    /// The register that an ADRP writes.
    pub fn adrp(self) -> Option<u32> {
        self.is(0x9F00_0000, 0x9000_0000).then(|| self.field(0, 5))
    }

    /// A load or store of one register with an immediate offset from `base`.
    pub fn is_access_at_offset_from(self, base: u32) -> bool {
        self.is(0x3B00_0000, 0x3900_0000) && self.field(5, 5) == base
    }

    /// The register that `msr` writes: op1, CRn, CRm and op2 of its name, where op0 is 3.
    pub fn system_write(self) -> Option<[u32; 4]> {
        let name = [self.field(16, 3), self.field(12, 4), self.field(8, 4), self.field(5, 3)];
        self.is(0xFFF8_0000, 0xD518_0000).then_some(name)
    }

    /// The register that `msr` reads.
    pub fn source(self) -> u32 {
        self.field(0, 5)
    }

    /// Cleaning a data cache line by address or by set and way, without invalidating it: DC CVAC,
    /// CVAU, CVAP and CSW.
    pub fn is_plain_clean(self) -> bool {
        let operation = self.0 & 0xFFFF_FFE0;
        [0xD50B_7A20, 0xD50B_7B20, 0xD50B_7C20, 0xD508_7A40].contains(&operation)
    }

    /// ISB.
    pub fn is_isb(self) -> bool {
        self.is(0xFFFF_F0FF, 0xD503_30DF)
    }
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A run of instructions without data in between.
#[derive(Clone, Debug)]
pub struct Code {
    /// The function, or the nearest one before.
    pub name: String,
    /// The first instruction's address.
    pub at: u64,
    /// The instructions.
    pub instructions: Vec<Instruction>,
}

/// All code of a program, split where the assembler put data in between (`$x` and `$d`: Arm's ELF
/// ABI, "Mapping symbols") and at functions.
pub fn read(path: &Path) -> Result<Vec<Code>> {
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::<Endianness>::parse(&*file)?;
    let mut all = Vec::new();
    for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, bytes) = (section.address(), section.data()?);
        let mut marks: Vec<_> = elf
            .symbols()
            .filter(|symbol| symbol.section_index() == Some(section.index()))
            .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
            .filter(|(_, name)| !name.is_empty())
            .collect();
        // Where several stand at one address, the mapping symbol comes first.
        marks.sort_by_key(|(at, name)| (*at, !name.starts_with('$')));
        let end = (start + bytes.len() as u64, "");
        let (mut is_code, mut name) = (true, "");
        for (mark, next) in marks.iter().zip(marks.iter().skip(1).chain([&end])) {
            match mark.1 {
                symbol if symbol.starts_with("$x") => is_code = true,
                symbol if symbol.starts_with("$d") => is_code = false,
                symbol => name = symbol,
            }
            let range = (mark.0 - start) as usize..(next.0 - start) as usize;
            if is_code && !range.is_empty() {
                all.push(code(name, mark.0, &bytes[range]));
            }
        }
    }
    Ok(all)
}

fn code(name: &str, at: u64, bytes: &[u8]) -> Code {
    let (words, _) = bytes.as_chunks();
    let instructions = words.iter().map(|word| Instruction(u32::from_le_bytes(*word))).collect();
    Code { name: name.to_owned(), at, instructions }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Encodings as llvm-mc prints them.
    const LDR_X8_X0: Instruction = Instruction(0xF940_0008);
    const LDP_X8_X9_X0: Instruction = Instruction(0xA940_2408);
    const STR_X3_X0: Instruction = Instruction(0xF900_0003);
    const LDR_D0_X0: Instruction = Instruction(0xFD40_0000);
    const STXR_W9_X8_X0: Instruction = Instruction(0xC809_7C08);
    const MADD_X8_X2_X1_X3: Instruction = Instruction(0x9B01_0C48);
    const MADD_X8_X2_X1_X8: Instruction = Instruction(0x9B01_2048);
    const MADD_X8_X2_X1_X9: Instruction = Instruction(0x9B01_2448);
    const UMADDL_X8_W2_W1_X3: Instruction = Instruction(0x9BA1_0C48);
    const MADD_W8_W2_W1_W3: Instruction = Instruction(0x1B01_0C48);
    const MUL_X8_X2_X1: Instruction = Instruction(0x9B01_7C48);
    const UMULH_X8_X2_X1: Instruction = Instruction(0x9BC1_7C48);
    const NOP: Instruction = Instruction(0xD503_201F);
    const PRFM_8_X0: Instruction = Instruction(0xF980_0008);

    #[test]
    fn a_multiply_add_right_behind_an_unrelated_access_is_found() {
        let accesses = [LDR_X8_X0, STR_X3_X0, LDP_X8_X9_X0, LDR_D0_X0, STXR_W9_X8_X0, PRFM_8_X0];
        for access in accesses {
            for product in [MADD_X8_X2_X1_X3, UMADDL_X8_W2_W1_X3] {
                assert!(product.may_go_wrong_after(access), "{product:?} after {access:?}");
            }
        }
    }

    #[test]
    fn a_multiply_add_that_waits_for_the_load_is_harmless() {
        assert!(!MADD_X8_X2_X1_X8.may_go_wrong_after(LDR_X8_X0));
        assert!(!MADD_X8_X2_X1_X9.may_go_wrong_after(LDP_X8_X9_X0));
        for gives_nothing in [STXR_W9_X8_X0, PRFM_8_X0] {
            assert!(MADD_X8_X2_X1_X8.may_go_wrong_after(gives_nothing), "{gives_nothing:?}");
        }
    }

    #[test]
    fn other_products_and_other_neighbours_are_harmless() {
        for product in [MADD_W8_W2_W1_W3, MUL_X8_X2_X1, UMULH_X8_X2_X1] {
            assert!(!product.may_go_wrong_after(STR_X3_X0), "{product:?}");
        }
        assert!(!MADD_X8_X2_X1_X3.may_go_wrong_after(NOP));
    }

    #[test]
    fn cleaning_without_invalidating_is_found() {
        assert!(Instruction(0xD50B_7A20).is_plain_clean(), "dc cvac, x0");
        assert!(Instruction(0xD50B_7B25).is_plain_clean(), "dc cvau, x5");
        assert!(!Instruction(0xD50B_7E20).is_plain_clean(), "dc civac, x0");
    }

    #[test]
    fn a_system_register_is_named_by_its_encoding() {
        assert_eq!(Instruction(0xD518_2040).system_write(), Some([0, 2, 0, 2]), "tcr_el1");
        assert_eq!(Instruction(0xD51C_2105).system_write(), Some([4, 2, 1, 0]), "vttbr_el2");
        assert_eq!(Instruction(0xD538_2040).system_write(), None, "mrs x0, tcr_el1");
    }
}
