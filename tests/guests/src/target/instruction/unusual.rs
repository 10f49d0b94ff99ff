//! What no VM has: registers of extensions that EL2 hides, of debuggers and counters, of EL2 and EL3.

use super::System;

/// Registers that a VM may find undefined, or that hold nothing, by name.
pub const REGISTERS: &[(&str, System)] = &[
    ("ZCR_EL1", System([3, 0, 1, 2, 0])),
    ("SMCR_EL1", System([3, 0, 1, 2, 6])),
    ("SVCR", System([3, 3, 4, 2, 2])),
    ("PMCR_EL0", System([3, 3, 9, 12, 0])),
    ("PMCNTENSET_EL0", System([3, 3, 9, 12, 1])),
    ("PMCCNTR_EL0", System([3, 3, 9, 13, 0])),
    ("PMINTENSET_EL1", System([3, 0, 9, 14, 1])),
    ("PMSCR_EL1", System([3, 0, 9, 9, 0])),
    ("TRBLIMITR_EL1", System([3, 0, 9, 11, 0])),
    ("TRCPRGCTLR", System([2, 1, 0, 1, 0])),
    ("AMCR_EL0", System([3, 3, 13, 2, 0])),
    ("MDSCR_EL1", System([2, 0, 0, 2, 2])),
    ("DBGBVR0_EL1", System([2, 0, 0, 0, 4])),
    ("DBGBCR0_EL1", System([2, 0, 0, 0, 5])),
    ("DBGWCR0_EL1", System([2, 0, 0, 0, 7])),
    ("OSDLR_EL1", System([2, 0, 1, 3, 4])),
    ("MDCCINT_EL1", System([2, 0, 0, 2, 0])),
    ("ACTLR_EL1", System([3, 0, 1, 0, 1])),
    ("an implementation's own", System([3, 0, 15, 0, 0])),
    ("an implementation's own", System([3, 1, 15, 2, 1])),
    ("APIAKEYLO_EL1", System([3, 0, 2, 1, 0])),
    ("TFSR_EL1", System([3, 0, 5, 6, 0])),
    ("LORC_EL1", System([3, 0, 10, 4, 3])),
    ("CNTP_CTL_EL0", System([3, 3, 14, 2, 1])),
    ("CNTP_CVAL_EL0", System([3, 3, 14, 2, 2])),
    ("HCR_EL2", System([3, 4, 1, 1, 0])),
    ("VTTBR_EL2", System([3, 4, 2, 1, 0])),
    ("ELR_EL2", System([3, 4, 4, 0, 1])),
    ("ICC_SRE_EL2", System([3, 4, 12, 9, 5])),
    ("ICH_HCR_EL2", System([3, 4, 12, 11, 0])),
    ("SCR_EL3", System([3, 6, 1, 1, 0])),
    ("nothing", System([3, 7, 15, 15, 7])),
    ("nothing", System([3, 0, 0, 7, 7])),
];

/// Registers that may only be read.
pub const TO_READ: &[(&str, System)] = &[
    ("CNTPCT_EL0", System([3, 3, 14, 0, 1])),
    ("ID_AA64ZFR0_EL1", System([3, 0, 0, 4, 4])),
    ("OSLSR_EL1", System([2, 0, 1, 1, 4])),
    ("ICC_HPPIR0_EL1", System([3, 0, 12, 8, 2])),
];
