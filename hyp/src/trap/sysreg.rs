//! System registers that a guest reads or writes through EL2.
//!
//! The identification registers tell a guest only of features whose state EL2 switches or that have no
//! state. A field that is not named here reads as *not implemented*, so a new CPU's features stay
//! hidden until somebody has thought about them.

use crate::vcpu::Vcpu;
use crate::vcpu::context::{Registers, mrs};

/// An access as ESR_EL2.ISS describes it (EC 0x18).
#[derive(Clone, Copy)]
pub(crate) struct Access {
    iss: u64,
}

/// Op0, Op1, CRn, CRm and Op2 as one number, one octal digit or two each.
const fn register(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
}

/// The bits of the ISS that name the register.
const NAME: u64 = register(3, 7, 15, 15, 7);

const OSLSR_EL1: u64 = register(2, 0, 1, 1, 4);
const ACTLR_EL1: u64 = register(3, 0, 1, 0, 1);
const ICC_SGI1R_EL1: u64 = register(3, 0, 12, 11, 5);
const ICC_ASGI1R_EL1: u64 = register(3, 0, 12, 11, 6);
const ICC_SGI0R_EL1: u64 = register(3, 0, 12, 11, 7);
const ICC_SRE_EL1: u64 = register(3, 0, 12, 12, 5);

/// ICC_SRE_EL1: system registers, no bypass, and no way back to the memory-mapped interface.
const SYSTEM_REGISTERS_ONLY: u64 = 0b111;

impl Access {
    pub(crate) const fn new(iss: u64) -> Self {
        Self { iss }
    }

    const fn name(self) -> u64 {
        self.iss & NAME
    }

    /// Op0, Op1, CRn, CRm, Op2, as the assembler writes `s<op0>_<op1>_c<n>_c<m>_<op2>`.
    pub(crate) const fn encoding(self) -> (u64, u64, u64, u64, u64) {
        let iss = self.iss;
        (iss >> 20 & 3, iss >> 14 & 7, iss >> 10 & 15, iss >> 1 & 15, iss >> 17 & 7)
    }

    const fn operand(self) -> usize {
        (self.iss >> 5 & 31) as usize
    }

    const fn is_read(self) -> bool {
        self.iss & 1 == 1
    }
}

/// Does what the register does for this vCPU; `false` if the register does not exist for it.
pub(crate) fn emulate(vcpu: Vcpu, registers: &mut Registers, access: Access) -> bool {
    if access.is_read() {
        let Some(value) = read(access) else { return false };
        registers.set(access.operand(), value);
        return true;
    }
    write(vcpu, access, registers.get(access.operand()))
}

fn read(access: Access) -> Option<u64> {
    match access.encoding() {
        (3, 0, 0, 1..=7, _) => Some(identification(access.name())),
        _ if access.name() == ICC_SRE_EL1 => Some(SYSTEM_REGISTERS_ONLY),
        _ if access.name() == OSLSR_EL1 => Some(OS_LOCK_IMPLEMENTED),
        _ if access.name() == ACTLR_EL1 || is_debug(access) => Some(0),
        _ => None,
    }
}

fn write(vcpu: Vcpu, access: Access, value: u64) -> bool {
    match access.name() {
        ICC_SGI1R_EL1 => vcpu.send_sgi(value),
        // A guest has no other security state and no group 0.
        ICC_ASGI1R_EL1 | ICC_SGI0R_EL1 => {}
        ACTLR_EL1 | ICC_SRE_EL1 => {}
        _ => return is_debug(access),
    }
    true
}

/// OSLSR_EL1.OSLM: the OS lock exists, and is not locked.
const OS_LOCK_IMPLEMENTED: u64 = 1 << 3;

/// Breakpoints, watchpoints, MDSCR_EL1 and the OS lock: they read as zero and ignore writes, so that
/// systems that reset them at boot come up. The trace registers (Op1 = 1) do not exist.
fn is_debug(access: Access) -> bool {
    matches!(access.encoding(), (2, 0, 0, _, 2 | 4..=7) | (2, 0, 1, 0 | 1 | 3, 4))
}

const ID_AA64PFR0_EL1: u64 = register(3, 0, 0, 4, 0);
const ID_AA64PFR1_EL1: u64 = register(3, 0, 0, 4, 1);
const ID_AA64DFR0_EL1: u64 = register(3, 0, 0, 5, 0);
const ID_AA64ISAR0_EL1: u64 = register(3, 0, 0, 6, 0);
const ID_AA64ISAR1_EL1: u64 = register(3, 0, 0, 6, 1);
const ID_AA64MMFR0_EL1: u64 = register(3, 0, 0, 7, 0);
const ID_AA64MMFR1_EL1: u64 = register(3, 0, 0, 7, 1);
const ID_AA64MMFR2_EL1: u64 = register(3, 0, 0, 7, 2);

/// The mask of the four-bit fields that start at these bits.
const fn fields<const N: usize>(at: [u32; N]) -> u64 {
    let (mut mask, mut i) = (0, 0);
    while i < N {
        mask |= 0xF << at[i];
        i += 1;
    }
    mask
}

/// A register of the identification space (CRn = 0, CRm 1 to 7). The AArch32 ones read as zero, as on
/// a CPU without AArch32.
fn identification(name: u64) -> u64 {
    match name {
        // EL0 and EL1 in AArch64 only, no EL2 or EL3. Kept: FP, AdvSIMD, GIC, DIT, CSV3. CSV2 at
        // most 1: from 2 on there would be SCXTNUM_ELx to switch.
        ID_AA64PFR0_EL1 => {
            let real = mrs!("id_aa64pfr0_el1");
            let csv2 = u64::from(real >> 56 & 0xF != 0) << 56;
            real & fields([16, 20, 24, 48, 60]) | csv2 | 0x11
        }
        // BTI and SSBS live in PSTATE.
        ID_AA64PFR1_EL1 => mrs!("id_aa64pfr1_el1") & fields([0, 4]),
        // The debug architecture and its smallest numbers of break- and watchpoints; no double lock.
        ID_AA64DFR0_EL1 => mrs!("id_aa64dfr0_el1") & fields([0]) | 1 << 12 | 1 << 20 | 0xF << 36,
        // Instructions without state; not the transactional memory of bits 24 to 27.
        ID_AA64ISAR0_EL1 => mrs!("id_aa64isar0_el1") & !fields([0, 24]),
        // DPB, JSCVT, FCMA, LRCPC, FRINTTS, SB, SPECRES, BF16, DGH, I8MM; not pointer authentication.
        ID_AA64ISAR1_EL1 => {
            mrs!("id_aa64isar1_el1") & fields([0, 12, 16, 20, 32, 36, 40, 44, 48, 52])
        }
        // 36 bits of address: the largest size with an encoding that every VM's space contains.
        // Kept: ASID size, endianness, granules.
        ID_AA64MMFR0_EL1 => {
            let real = mrs!("id_aa64mmfr0_el1");
            real & fields([4, 8, 16, 20, 24, 28]) | (real & 0xF).min(1)
        }
        // HAFDBS, HPDS, PAN.
        ID_AA64MMFR1_EL1 => mrs!("id_aa64mmfr1_el1") & fields([0, 12, 20]),
        // CnP, UAO, LSM, VARange, CCIDX, AT, IDS, TTL, BBM, E0PD.
        ID_AA64MMFR2_EL1 => {
            mrs!("id_aa64mmfr2_el1") & fields([0, 4, 8, 16, 20, 32, 36, 48, 52, 60])
        }
        _ => 0,
    }
}
