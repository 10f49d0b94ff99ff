//! The workarounds of `hyp/src/errata.rs` that the compiler, the linker or the order of a few
//! instructions must bring: looked for in the programs, since no machine here has the errata.

use std::sync::OnceLock;

use package::Board;
use qemu::build::{self, Profile};
use tests::machine_code::{self, Code, Instruction, ZERO};

/// The code of what is flashed, for all boards.
fn image() -> &'static [Code] {
    static IMAGE: OnceLock<Vec<Code>> = OnceLock::new();
    IMAGE.get_or_init(|| read(Profile::Image))
}

fn read(profile: Profile) -> Vec<Code> {
    let programs = build::programs(profile).expect("the programs can be built");
    let of_a_board = |board: Board| {
        let path = programs.path(board.name()).expect("each board has its program");
        let code = machine_code::read(path).expect("the program can be read");
        let length: usize = code.iter().map(|code| code.instructions.len()).sum();
        assert!(length > 10_000, "that of {} has only {length} instructions", board.name());
        code
    };
    boards::ids().flat_map(of_a_board).collect()
}

/// Where `wanted` holds for the instructions from there on, by function and address.
fn places(code: &[Code], wanted: impl Fn(u64, &[Instruction]) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for run in code {
        for index in 0..run.instructions.len() {
            let at = run.at + 4 * index as u64;
            if wanted(at, &run.instructions[index..]) {
                found.push(format!("{at:#x} in {}", run.name));
            }
        }
    }
    found
}

const NOWHERE: Vec<String> = Vec::new();

#[test]
fn no_multiply_add_follows_an_unrelated_memory_access() {
    let products = places(image(), |_, code| code[0].is_multiply_add());
    assert!(products.len() > 100, "what is looked for is there: {}", products.len());
    let wrong = |_, code: &[Instruction]| matches!(code, [access, product, ..] if product.may_go_wrong_after(*access));
    assert_eq!(places(image(), wrong), NOWHERE, "Cortex-A53 835769");
    assert_eq!(places(&read(Profile::Check), wrong), NOWHERE, "Cortex-A53 835769");
}

/// In the words of the errata notice: an ADRP in the last two words of a page, a load or store, at
/// most one more instruction, and an access with an offset from what the ADRP has written.
#[test]
fn no_adrp_at_the_end_of_a_page_serves_an_access_right_behind() {
    let wrong = |at: u64, code: &[Instruction]| {
        let Some(base) = code[0].adrp() else { return false };
        let accesses = code.iter().skip(2).take(2).any(|next| next.is_access_at_offset_from(base));
        at & 0xFFF >= 0xFF8 && code.get(1).is_some_and(|next| next.is_memory_access()) && accesses
    };
    assert_eq!(places(image(), wrong), NOWHERE, "Cortex-A53 843419");
}

#[test]
fn no_cache_line_is_cleaned_without_being_invalidated() {
    let found = places(image(), |_, code| code[0].is_plain_clean());
    assert_eq!(found, NOWHERE, "Cortex-A53 819472, 824069, 826319, 827319, 855873");
}

/// What matters about an instruction where address translation is switched over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Control,
    Tables,
    Isb,
    Stage2,
}

fn step(instruction: Instruction) -> Option<Step> {
    if instruction.is_isb() {
        return Some(Step::Isb);
    }
    match instruction.system_write()? {
        [0, 1, 0, 0] => Some(Step::Control), // SCTLR_EL1
        [0, 2, 0, 2] => Some(Step::Tables),  // TCR_EL1
        // VTTBR_EL2. Zeros are written before any guest, while stage 2 is off.
        [4, 2, 1, 0] if instruction.source() != ZERO => Some(Step::Stage2),
        _ => None,
    }
}

/// Walks go off before the VMID changes, or come back after it: each write of its own takes effect
/// before the next, and where the MMU is off again no table is walked before that is known.
#[test]
fn walks_are_off_while_the_stage_2_tables_change() {
    use Step::{Control, Isb, Stage2, Tables};
    let (off, on) = ([Tables, Isb, Control, Isb], [Isb, Control, Isb, Tables]);
    let mut both = 0;
    for run in image() {
        let steps: Vec<_> = run.instructions.iter().copied().filter_map(step).collect();
        for (index, _) in steps.iter().enumerate().filter(|(_, step)| **step == Stage2) {
            let goes_off = steps[..index].ends_with(&off);
            let comes_back = steps[index + 1..].starts_with(&on);
            assert!(goes_off || comes_back, "Cortex-A72 1319367: {steps:?} in {}", run.name);
            both += usize::from(goes_off && comes_back);
        }
    }
    assert!(both > 0, "a vCPU is loaded somewhere");
}
