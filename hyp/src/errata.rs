//! What the cores of our boards do differently from the architecture, and where that is respected.
//!
//! The list is that of Linux (`Documentation/arch/arm64/silicon-errata.rst`) and Trusted Firmware-A
//! (`docs/design/cpu-specific-build-macros.rst`) for these three cores. Numbers are those of Arm's
//! Software Developers Errata Notices (Cortex-A53 EPM048406, Cortex-A57 EPM049219, Cortex-A72
//! EPM012079). What EL2 does costs little, so it does it on every core, and asks which core it runs
//! on only to say so in the log.
//!
//! | core | erratum | what goes wrong | where it is respected |
//! |---|---|---|---|
//! | A53 | 835769 | a multiply-add behind a load or store | compiler: `FEATURE` in the tool's `build.rs` |
//! | A53 | 843419 | ADRP near the end of a page | linker: `--fix-cortex-a53-843419` in the boards' `build.rs` |
//! | A53 | 819472, 824069, 826319, 827319, 855873 | cleaning a line by address | [`cache`](crate::cache) cleans and invalidates |
//! | A53 | 1530924 | a speculative AT walks with half-changed registers | `stop_walks` in `vcpu/context.rs` |
//! | A57 | 1319537 | the same | the same |
//! | A72 | 1319367 | the same | the same |
//! | A57 | 834220 | a stage-1 fault reported as one of stage 2 | [`stage2_fault_may_be_of_stage1`] |
//! | A57 | 832075 | loads of devices among exclusives deadlock | every load of `mmio` is an acquire |
//! | any other | of late stores | a store outlives the invalidation of what it was translated by | [`stores_may_outlive_invalidation`] |
//!
//! The compiler's, the linker's and the walks' are looked for in the finished image
//! (`tests/tests/errata.rs`). A guest's own code must be compiled and linked with the first two
//! switches as well, and load from a device that it drives by acquires on a Cortex-A57; Linux does all
//! three.
//!
//! **Firmware's work**, since EL3 alone may write the control bits: Cortex-A53 826319 (L2ACTLR_EL1),
//! 836870 and 855873 (CPUACTLR_EL1; from r0p3 on it also repairs guests that clean without
//! invalidating); Cortex-A57 806969, 813419, 813420, 814670, 817169, 826974, 826977, 828024, 829520,
//! 833471 and 859972; Cortex-A72 859971. TF-A does so by default for ZCU102, i.MX 8M Plus (855873)
//! and Raspberry Pi 4 (859971: `plat/rpi/rpi4/platform.mk`); the Pi's own `armstub8.S` does not. EL2 does not look
//! whether firmware has done it: reading CPUACTLR_EL1 is allowed by the cores' manuals (ACTLR_EL3 has
//! only write access to give), but QEMU's cores read as zero, so nothing here would test it.
//!
//! **For AArch32 only**, and guests at EL1 are AArch64 (HCR_EL2.RW): Cortex-A53 845719, Cortex-A57
//! 852523 and 1742098, Cortex-A72 853709 and 1655431. Linux, as a guest, respects those that concern
//! its own 32-bit programs. EL2 writes no register of AArch32.
//!
//! **The chips around the cores.** ZCU102's GIC-400 repeats each 4 KiB page of its registers over
//! 64 KiB: its `Board` has the addresses where the two pages of the CPU interfaces meet. Devices and
//! the GPU of the Raspberry Pi 4, and most of those of i.MX 8M Plus, do not snoop the caches; EL2
//! itself uses no DMA. i.MX ERR050104 (TLB maintenance between clusters is corrupted) is of the
//! i.MX 8QuadMax with its two clusters. MMU-500 841119 and 826419 are of an SMMU that we leave off.

use core::fmt;

#[cfg(target_os = "none")]
use crate::vcpu::context::mrs;

/// Variant and revision: r1p2 is (1, 2).
type Revision = (u64, u64);

/// No revision is later.
const ALL: Revision = (0xF, 0xF);

const CORTEX_A53: u64 = 0xd03;
const CORTEX_A57: u64 = 0xd07;
const CORTEX_A72: u64 = 0xd08;

/// Kind and revision of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    midr: u64,
    /// A bit for each erratum that was repaired without a new revision.
    revidr: u64,
}

impl Core {
    const ARM: u64 = 0x41;

    /// The core that runs this code.
    #[cfg(target_os = "none")]
    pub fn current() -> Self {
        Self { midr: mrs!("midr_el1"), revidr: mrs!("revidr_el1") }
    }

    fn part(self) -> u64 {
        self.midr >> 4 & 0xfff
    }

    fn revision(self) -> Revision {
        (self.midr >> 20 & 0xf, self.midr & 0xf)
    }

    fn is_arm(self) -> bool {
        self.midr >> 24 & 0xff == Self::ARM
    }

    /// The errata that it has and that EL2 respects, for the log.
    pub fn errata(self) -> Errata {
        Errata { core: self }
    }
}

/// An erratum that EL2 must respect.
struct Erratum {
    number: u32,
    part: u64,
    /// The last revision that has it.
    last: Revision,
    /// The bit of REVIDR_EL1 that says that it was repaired.
    repaired: Option<u32>,
}

impl Erratum {
    const fn new(part: u64, number: u32, last: Revision) -> Self {
        Self { number, part, last, repaired: None }
    }

    const fn unless(self, bit: u32) -> Self {
        Self { repaired: Some(bit), ..self }
    }

    fn is_in(&self, core: Core) -> bool {
        let repaired = self.repaired.is_some_and(|bit| core.revidr >> bit & 1 == 1);
        core.is_arm() && core.part() == self.part && core.revision() <= self.last && !repaired
    }
}

// Revisions and bits of REVIDR_EL1: `lib/cpus/aarch64/cortex_a53.S` of TF-A and
// `arch/arm64/kernel/cpu_errata.c` of Linux.
const ERRATA: &[Erratum] = &[
    Erratum::new(CORTEX_A53, 819472, (0, 1)),
    Erratum::new(CORTEX_A53, 824069, (0, 2)),
    Erratum::new(CORTEX_A53, 826319, (0, 2)),
    Erratum::new(CORTEX_A53, 827319, (0, 2)),
    Erratum::new(CORTEX_A53, 835769, (0, 4)).unless(7),
    Erratum::new(CORTEX_A53, 843419, (0, 4)).unless(8),
    Erratum::new(CORTEX_A53, 855873, ALL),
    Erratum::new(CORTEX_A53, 1530924, ALL),
    Erratum::new(CORTEX_A57, 832075, (1, 2)),
    Erratum::new(CORTEX_A57, 834220, (1, 2)),
    Erratum::new(CORTEX_A57, 1319537, ALL),
    Erratum::new(CORTEX_A72, 1319367, ALL),
];

/// Cortex-A57 834220, up to r1p2: a fault of stage 2 may in truth be a permission or alignment fault
/// of stage 1. Where the stage-1 walk of the address fails, the guest must run on to take its own.
pub fn stage2_fault_may_be_of_stage1(core: Core) -> bool {
    core.is_arm() && core.part() == CORTEX_A57 && core.revision() <= (1, 2)
}

/// Whether a broadcast invalidation and its barrier may end while a store of this core, translated by what
/// they took away, is still under way; the same once more waits for it (CVE-2025-10263, XSA-493).
///
/// Arm names Cortex-A76 to A78, A710, X1 to X4 and X925, C1-Premium and C1-Ultra, Neoverse N1, N2, V1, V2 and V3
/// (Linux: `ARM64_ERRATUM_4118414`), and before them Cortex-A76 1286807, A55 2441007 and A510 2441009 for loads
/// too. The list grows, so every core is taken for one of them that is not known not to be.
pub fn stores_may_outlive_invalidation(core: Core) -> bool {
    !(core.is_arm() && matches!(core.part(), CORTEX_A53 | CORTEX_A57 | CORTEX_A72))
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variant, revision) = self.revision();
        match (self.is_arm(), self.part()) {
            (true, CORTEX_A53) => write!(f, "Cortex-A53")?,
            (true, CORTEX_A57) => write!(f, "Cortex-A57")?,
            (true, CORTEX_A72) => write!(f, "Cortex-A72")?,
            _ => write!(f, "core with MIDR {:#x}", self.midr)?,
        }
        write!(f, " r{variant}p{revision}")
    }
}

/// What [`Core::errata`] says: numbers, in a line.
#[derive(Clone, Copy, Debug)]
pub struct Errata {
    core: Core,
}

impl Errata {
    fn all(self) -> impl Iterator<Item = &'static Erratum> {
        ERRATA.iter().filter(move |one| one.is_in(self.core))
    }
}

impl fmt::Display for Errata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errata worked around:")?;
        if stores_may_outlive_invalidation(self.core) {
            write!(f, " late stores")?;
        } else if self.all().next().is_none() {
            write!(f, " none known")?;
        }
        self.all().try_for_each(|erratum| write!(f, " {}", erratum.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    const fn core(midr: u64) -> Core {
        Core { midr, revidr: 0 }
    }

    const A53_R0P2: Core = core(0x410f_d032);
    const A53_R0P4: Core = core(0x410f_d034);
    const A57_R1P2: Core = core(0x411f_d072);
    const A57_R1P3: Core = core(0x411f_d073);
    const A72_R0P3: Core = core(0x410f_d083);
    const QEMU_MAX: Core = core(0x000f_0510);

    #[test]
    fn only_early_cortex_a57_report_stage_1_faults_as_stage_2() {
        assert!(stage2_fault_may_be_of_stage1(A57_R1P2));
        assert!(!stage2_fault_may_be_of_stage1(A57_R1P3));
        assert!(!stage2_fault_may_be_of_stage1(A72_R0P3));
    }

    #[test]
    fn a_core_is_named_with_its_revision() {
        assert_eq!(format!("{A57_R1P2}"), "Cortex-A57 r1p2");
        assert_eq!(format!("{QEMU_MAX}"), "core with MIDR 0xf0510 r0p0");
    }

    #[test]
    fn the_log_names_the_errata_of_this_revision() {
        let said = |core: Core| format!("{}", core.errata());
        let a53 = "errata worked around: 835769 843419 855873 1530924";
        assert_eq!(said(A53_R0P4), a53);
        assert!(said(A53_R0P2).contains("824069 826319 827319 835769"));
        assert_eq!(said(A72_R0P3), "errata worked around: 1319367");
        assert_eq!(said(A57_R1P2), "errata worked around: 832075 834220 1319537");
        assert_eq!(said(A57_R1P3), "errata worked around: 1319537");
        assert_eq!(said(QEMU_MAX), "errata worked around: late stores");
    }

    #[test]
    fn xsa_493_stores_may_be_late_on_every_core_that_is_not_known_to_wait_for_them() {
        for known in [A53_R0P4, A57_R1P2, A72_R0P3] {
            assert!(!stores_may_outlive_invalidation(known));
        }
        let [a76, neoverse_n1] = [core(0x414f_d0b1), core(0x414f_d0c1)];
        // Another maker's core with the number of a Cortex-A53.
        for other in [a76, neoverse_n1, QEMU_MAX, core(0x4e0f_d034)] {
            assert!(stores_may_outlive_invalidation(other));
        }
    }

    #[test]
    fn a_repair_without_a_new_revision_counts() {
        let repaired = Core { revidr: 1 << 7 | 1 << 8, ..A53_R0P4 };
        assert_eq!(format!("{}", repaired.errata()), "errata worked around: 855873 1530924");
    }
}
