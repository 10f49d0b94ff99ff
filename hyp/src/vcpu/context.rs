//! What a vCPU is made of while it does not run: its general and EL1 registers.

use aarch64_cpu::asm::barrier::{SY, isb};

/// The general registers of a trapped guest, on the stack of its CPU. `guest.s` knows this layout.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    x: [u64; 31],
    _alignment: u64,
}

impl Registers {
    /// All zero, as a VM starts.
    pub(crate) const fn new() -> Self {
        Self { x: [0; 31], _alignment: 0 }
    }

    /// Operand `index` of an instruction, where 31 names the zero register.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.x.get(index).copied().unwrap_or(0)
    }

    /// Writes operand `index`; a write to the zero register is lost, as in the instruction.
    pub(crate) fn set(&mut self, index: usize, value: u64) {
        if let Some(register) = self.x.get_mut(index) {
            *register = value;
        }
    }
}

/// Reads a system register by name.
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reads a register of the guest that runs on this CPU; memory is not touched.
        unsafe {
            core::arch::asm!(
                concat!("mrs {}, ", $name),
                out(reg) value,
                options(nomem, nostack, preserves_flags)
            );
        }
        value
    }};
}

/// Writes a system register by name. A compiler barrier for memory, so that tables and contexts
/// written before stay before.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register configures what a guest at EL1 does and sees; EL2 does not depend on it.
        unsafe {
            core::arch::asm!(
                concat!("msr ", $name, ", {}"),
                in(reg) value,
                options(nostack, preserves_flags)
            );
        }
    }};
}

pub(crate) use {mrs, msr};

macro_rules! registers {
    ($($field:ident: $name:literal),* $(,)?) => {
        /// The system registers that a guest at EL1 owns, but for those of address translation,
        /// which are loaded in a particular order.
        #[derive(Clone, Copy, Default)]
        struct Plain { $($field: u64),* }

        impl Plain {
            fn save() -> Self {
                Self { $($field: mrs!($name)),* }
            }

            fn load(&self) {
                $(msr!($name, self.$field);)*
            }
        }
    };
}

registers! {
    elr_el2: "elr_el2",
    spsr_el2: "spsr_el2",
    sp_el0: "sp_el0",
    sp_el1: "sp_el1",
    elr_el1: "elr_el1",
    spsr_el1: "spsr_el1",
    esr_el1: "esr_el1",
    far_el1: "far_el1",
    afsr0_el1: "afsr0_el1",
    afsr1_el1: "afsr1_el1",
    ttbr0_el1: "ttbr0_el1",
    ttbr1_el1: "ttbr1_el1",
    mair_el1: "mair_el1",
    amair_el1: "amair_el1",
    contextidr_el1: "contextidr_el1",
    vbar_el1: "vbar_el1",
    cpacr_el1: "cpacr_el1",
    cntkctl_el1: "cntkctl_el1",
    csselr_el1: "csselr_el1",
    par_el1: "par_el1",
    tpidr_el0: "tpidr_el0",
    tpidrro_el0: "tpidrro_el0",
    tpidr_el1: "tpidr_el1",
    vmpidr_el2: "vmpidr_el2",
}

/// SCTLR_EL1 of a VM that starts: MMU and caches off, little endian, RES1 bits of ARMv8.0 set.
const SCTLR_EL1_START: u64 = 0x30D0_0800;
/// SCTLR_EL1.M.
const MMU_ON: u64 = 1;
/// TCR_EL1.EPD0 and EPD1: no walk from either base register.
const NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// Keeps stage 1 from being walked until [`resume_walks`].
///
/// A speculative AT in EL2's code may walk one guest's tables under another's stage 2 and leave the
/// result in a TLB (Cortex-A53 1530924, Cortex-A57 1319537, Cortex-A72 1319367). With the MMU on and
/// no base register to walk from there is no result, not even that an address translates to itself.
/// EPD takes effect first: the MMU alone would walk from what a guest without MMU has left there.
pub(super) fn stop_walks(tcr: u64, sctlr: u64) {
    msr!("tcr_el1", tcr | NO_WALKS);
    isb(SY);
    msr!("sctlr_el1", sctlr | MMU_ON);
    isb(SY);
}

/// Gives stage 1 back, when all else that a walk uses has been written. The other way round than
/// [`stop_walks`], for the same reason.
fn resume_walks(tcr: u64, sctlr: u64) {
    isb(SY);
    msr!("sctlr_el1", sctlr);
    isb(SY);
    msr!("tcr_el1", tcr);
}
/// PSTATE of a VM that starts: EL1 with SP_EL1, all interrupts masked.
const PSTATE_START: u64 = 0x3C5;
/// VMPIDR_EL2.RES1.
const MPIDR_RES1: u64 = 1 << 31;

/// The EL1 registers of a vCPU, and what VTTBR_EL2 holds while it runs.
#[derive(Clone, Copy)]
pub(crate) struct El1 {
    plain: Plain,
    sctlr: u64,
    tcr: u64,
}

impl El1 {
    /// A vCPU that has not run: number `index` of its VM, about to execute at `entry`.
    pub(crate) fn new(index: u8, entry: u64) -> Self {
        let plain = Plain {
            elr_el2: entry,
            spsr_el2: PSTATE_START,
            vmpidr_el2: MPIDR_RES1 | u64::from(index),
            ..Plain::default()
        };
        Self { plain, sctlr: SCTLR_EL1_START, tcr: 0 }
    }

    /// Takes the CPU's registers.
    pub(crate) fn save(&mut self) {
        self.plain = Plain::save();
        self.sctlr = mrs!("sctlr_el1");
        self.tcr = mrs!("tcr_el1");
    }

    /// Makes this the context of EL1, under the stage-2 tables that `vttbr` names.
    pub(crate) fn load(&self, vttbr: u64) {
        stop_walks(self.tcr, self.sctlr);
        msr!("vttbr_el2", vttbr);
        self.plain.load();
        resume_walks(self.tcr, self.sctlr);
    }
}

/// Another VM's stage 2 in VTTBR_EL2, for as long as the value lives.
///
/// TLB maintenance acts on the VMID of VTTBR_EL2. Dropping puts back the VM that was loaded.
pub(crate) struct Visit {
    sctlr: u64,
    tcr: u64,
    vttbr: u64,
}

impl Visit {
    /// Loads `vttbr` if it is not what is loaded.
    pub(crate) fn new(vttbr: u64) -> Option<Self> {
        let loaded = mrs!("vttbr_el2");
        if loaded == vttbr {
            return None;
        }
        let visit = Self { sctlr: mrs!("sctlr_el1"), tcr: mrs!("tcr_el1"), vttbr: loaded };
        stop_walks(visit.tcr, visit.sctlr);
        msr!("vttbr_el2", vttbr);
        isb(SY);
        Some(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        msr!("vttbr_el2", self.vttbr);
        resume_walks(self.tcr, self.sctlr);
        isb(SY);
    }
}
