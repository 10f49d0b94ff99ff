//! The register contract: what a guest at EL1 may do by itself and what comes to EL2.
//!
//! Every register that decides it is written here, on each CPU and whatever reset or firmware left.

use aarch64_cpu::asm::barrier::{SY, isb};
use rm::machine::Features;

use super::context::{mrs, msr, stop_walks};
use crate::tlb;

/// HCR_EL2 by its bits (DDI 0487 L.b, HCR_EL2). API, APK, ATA, E2H and TGE stay 0.
const HCR: u64 = 1 // VM: stage 2 on
    | 1 << 1 // SWIO: set/way invalidation also cleans
    | 1 << 2 // PTW: no table walk through device memory
    | 1 << 3 // FMO: FIQ to EL2
    | 1 << 4 // IMO: IRQ to EL2
    | 1 << 5 // AMO: SError to EL2
    | 1 << 9 // FB: TLB maintenance reaches all CPUs
    | 1 << 10 // BSU: barriers reach at least the inner shareable domain
    | 1 << 13 // TWI: WFI
    | 1 << 18 // TID3: identification registers
    | 1 << 19 // TSC: SMC
    | 1 << 20 // TIDCP: implementation defined registers
    | 1 << 21 // TACR: ACTLR_EL1
    | 1 << 31 // RW: EL1 is AArch64
    | 1 << 35 // TLOR: limited ordering regions
    | 1 << 36; // TERR: error records
/// HCR_EL2.FWB: stage 2 alone decides the memory type.
const HCR_FWB: u64 = 1 << 46;

/// CPTR_EL2: RES1 bits (which trap SVE and SME where they exist), trace and activity monitors. FP and
/// SIMD are not trapped.
const CPTR: u64 = 0x33FF | 1 << 20 | 1 << 30;

/// MDCR_EL2: performance monitors, debug registers, OS lock, profiling, trace filter, debug channel.
/// Zero fields leave profiling and trace buffers to EL2.
const MDCR: u64 = 1 << 5 // TPMCR
    | 1 << 6 // TPM
    | 1 << 9 // TDA
    | 1 << 10 // TDOSA
    | 1 << 11 // TDRA
    | 1 << 14 // TPMS
    | 1 << 17 // HPMD: no counting in EL2
    | 1 << 19 // TTRF
    | 1 << 23 // HCCD: no cycle counting in EL2
    | 1 << 27; // TDCC

/// CNTHCTL_EL2: the physical counter may be read, the physical timer is EL2's.
const CNTHCTL: u64 = 1;

/// VTCR_EL2: 39 bits, 4 KiB granule, start at level 1, walks write-back and inner shareable, 8-bit
/// VMIDs, RES1. The physical size is added at run time.
const VTCR: u64 = 1 << 31 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25;

/// Sets up this CPU for guests. None runs before.
pub fn configure(features: Features) {
    // Nothing is walked from what firmware left in the registers of EL1 until a vCPU is loaded.
    stop_walks(0, 0);
    let forced = if features.forced_write_back { HCR_FWB } else { 0 };
    msr!("hcr_el2", HCR | forced);
    msr!("cptr_el2", CPTR);
    msr!("mdcr_el2", MDCR | event_counters());
    msr!("cnthctl_el2", CNTHCTL);
    msr!("cntvoff_el2", 0);
    msr!("hstr_el2", 0);
    msr!("hacr_el2", 0);
    msr!("vpidr_el2", mrs!("midr_el1"));
    msr!("vtcr_el2", VTCR | (mrs!("id_aa64mmfr0_el1") & 0xF).min(5) << 16);
    // No breakpoint that anybody left fires in a guest.
    msr!("mdscr_el1", 0);
    extensions();
    isb(SY);
    tlb::configure();
}

/// MDCR_EL2.HPMN: all event counters, which TPM traps anyway. Smaller is reserved on older CPUs.
fn event_counters() -> u64 {
    let monitors = mrs!("id_aa64dfr0_el1") >> 8 & 0xF;
    if matches!(monitors, 0 | 0xF) { 0 } else { mrs!("pmcr_el0") >> 11 & 0x1F }
}

/// Whether the four-bit field of an identification register that starts at bit `at` names a feature.
const fn has(register: u64, at: u32) -> bool {
    register >> at & 0xF != 0
}

/// Controls that exist only with later extensions, by encoding because the assembler knows the names
/// only with the extension.
fn extensions() {
    let features = mrs!("id_aa64pfr0_el1");
    // FEAT_RAS: a guest that reads DISR_EL1 sees VDISR_EL2; VSESR_EL2 goes with it.
    if has(features, 28) {
        msr!("s3_4_c12_c1_1", 0);
        msr!("s3_4_c5_c2_3", 0);
    }
    // MPAM: MPAMHCR_EL2 traps MPAMIDR_EL1, MPAM2_EL2 traps MPAM0_EL1 and MPAM1_EL1.
    if has(features, 40) {
        msr!("s3_4_c10_c4_0", 1 << 31);
        msr!("s3_4_c10_c5_0", 0b11 << 48);
    }
    // FEAT_TRF: TRFCR_EL2, no trace of EL2.
    if has(mrs!("id_aa64dfr0_el1"), 40) {
        msr!("s3_4_c1_c2_1", 0);
    }
    // FEAT_HCX: HCRX_EL2, none of its extensions for guests.
    if has(mrs!("id_aa64mmfr1_el1"), 40) {
        msr!("s3_4_c1_c2_2", 0);
    }
    // FEAT_FGT: HFGRTR, HFGWTR, HFGITR, HDFGRTR and HDFGWTR_EL2. Zeros trap what is newer than they
    // are, and nothing else.
    if has(mrs!("id_aa64mmfr0_el1"), 56) {
        msr!("s3_4_c1_c1_4", 0);
        msr!("s3_4_c1_c1_5", 0);
        msr!("s3_4_c1_c1_6", 0);
        msr!("s3_4_c3_c1_4", 0);
        msr!("s3_4_c3_c1_5", 0);
    }
}
