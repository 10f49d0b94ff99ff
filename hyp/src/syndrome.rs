//! ESR_EL2 in words.

/// The exception class, as the architecture names it (Arm ARM, ESR_EL2, field EC).
pub fn cause(esr: u64) -> &'static str {
    match esr >> 26 & 0x3f {
        0x00 => "unknown reason or undefined instruction",
        0x01 => "trapped WFI or WFE",
        0x07 => "trapped FP, SIMD or SVE access",
        0x09 => "trapped pointer authentication",
        0x0d => "branch target exception",
        0x0e => "illegal execution state",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        0x18 => "trapped system register access",
        0x19 => "trapped SVE access",
        0x20 | 0x21 => instruction_abort(esr),
        0x22 => "program counter not aligned",
        0x24 | 0x25 => data_abort(esr),
        0x26 => "stack pointer not aligned",
        0x2f => "SError",
        0x30..=0x35 => "debug exception",
        0x3c => "BRK instruction",
        _ => "reserved exception class",
    }
}

fn instruction_abort(esr: u64) -> &'static str {
    match esr & 0x3c {
        0x04 => "instruction abort: address not mapped",
        0x0c => "instruction abort: address not executable",
        _ => "instruction abort",
    }
}

fn data_abort(esr: u64) -> &'static str {
    let write = esr & 1 << 6 != 0;
    match (esr & 0x3f, write) {
        (0x04..=0x07, false) => "data abort: read of an address that is not mapped",
        (0x04..=0x07, true) => "data abort: write to an address that is not mapped",
        (0x0c..=0x0f, _) => "data abort: write to a read-only address",
        (0x21, _) => "data abort: address not aligned",
        (0x10 | 0x14..=0x17, _) => "data abort: nothing answers at this address",
        (0x30, _) => "data abort: conflicting translations",
        _ => "data abort",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart() {
        assert_eq!(cause(0x9600_0047), "data abort: write to an address that is not mapped");
        assert_eq!(cause(0x9600_0005), "data abort: read of an address that is not mapped");
        assert_eq!(cause(0x9600_004f), "data abort: write to a read-only address");
        assert_eq!(cause(0x8600_000e), "instruction abort: address not executable");
        assert_eq!(cause(0x0200_0000), "unknown reason or undefined instruction");
        assert_eq!(cause(0xbe00_0000), "SError");
    }
}
