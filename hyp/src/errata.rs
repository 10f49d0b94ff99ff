//! What the cores of our boards do differently from the architecture, and where that is respected.
//!
//! Numbers are those of Arm's Software Developers Errata Notices.
//!
//! | core | erratum | what goes wrong | where it is respected |
//! |---|---|---|---|
//! | A53 | 843419 | ADRP near the end of a page | linker option in the boards' `build.rs` |
//! | A53 | 819472, 824069, 826319, 827319 | cleaning a line by address | `cache` cleans and invalidates |
//! | A53 | 855873 | cleaning evicts newer data | as above |
//! | A57 | 834220 | a stage-1 fault reported as one of stage 2 | [`stage2_fault_may_be_of_stage1`] |
//! | A57 | 1319537 | speculative walks with half-changed registers | walks are off while they change |
//! | A72 | 1319367 | the same | the same |
//!
//! Left to firmware, because only EL3 can: the control bits for Cortex-A57 832075 and Cortex-A72
//! 859971. Not respected: Cortex-A53 835769 (a wrong multiply-add after a load); the compiler's
//! switch for it is not stable, so a board with a core before r0p5 has to wait.

use core::fmt;

use aarch64_cpu::registers::{MIDR_EL1, Readable};

/// Kind and revision of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    midr: u64,
}

impl Core {
    const ARM: u64 = 0x41;
    const CORTEX_A53: u64 = 0xd03;
    const CORTEX_A57: u64 = 0xd07;
    const CORTEX_A72: u64 = 0xd08;

    /// The core that runs this code.
    pub fn current() -> Self {
        Self { midr: MIDR_EL1.get() }
    }

    fn part(self) -> u64 {
        self.midr >> 4 & 0xfff
    }

    /// Variant and revision: r1p2 is (1, 2).
    fn revision(self) -> (u64, u64) {
        (self.midr >> 20 & 0xf, self.midr & 0xf)
    }

    fn is_arm(self) -> bool {
        self.midr >> 24 & 0xff == Self::ARM
    }
}

/// Cortex-A57 834220, up to r1p2: a fault of stage 2 may in truth be a permission or alignment fault
/// of stage 1. Where the stage-1 walk of the address fails, the guest must run on to take its own.
pub fn stage2_fault_may_be_of_stage1(core: Core) -> bool {
    core.is_arm() && core.part() == Core::CORTEX_A57 && core.revision() <= (1, 2)
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variant, revision) = self.revision();
        match (self.is_arm(), self.part()) {
            (true, Self::CORTEX_A53) => write!(f, "Cortex-A53")?,
            (true, Self::CORTEX_A57) => write!(f, "Cortex-A57")?,
            (true, Self::CORTEX_A72) => write!(f, "Cortex-A72")?,
            _ => write!(f, "core with MIDR {:#x}", self.midr)?,
        }
        write!(f, " r{variant}p{revision}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    const A57_R1P2: Core = Core { midr: 0x411f_d072 };
    const A57_R1P3: Core = Core { midr: 0x411f_d073 };
    const A72_R0P3: Core = Core { midr: 0x410f_d083 };

    #[test]
    fn only_early_cortex_a57_report_stage_1_faults_as_stage_2() {
        assert!(stage2_fault_may_be_of_stage1(A57_R1P2));
        assert!(!stage2_fault_may_be_of_stage1(A57_R1P3));
        assert!(!stage2_fault_may_be_of_stage1(A72_R0P3));
    }

    #[test]
    fn a_core_is_named_with_its_revision() {
        assert_eq!(format!("{A57_R1P2}"), "Cortex-A57 r1p2");
        assert_eq!(format!("{}", Core { midr: 0x000f_0510 }), "core with MIDR 0xf0510 r0p0");
    }
}
