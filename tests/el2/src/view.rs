//! What this CPU's own table walk makes of a guest physical address.

use core::arch::asm;

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{
    HCR_EL2, PAR_EL1, ReadWriteable, Readable, SCTLR_EL1, VTTBR_EL2, Writeable,
};
use rm::address::{Ipa, Pa};
use rm::machine::TranslationContext;

/// SCTLR_EL1 with the MMU off: its RES1 bits.
const MMU_OFF: u64 = 0x30d0_0800;

/// Memory attributes in MAIR's encoding: write-back, as stage 1 is when it is off here.
pub const WRITE_BACK: u8 = 0xff;

/// Normal memory that is not cacheable.
pub const UNCACHED: u8 = 0x44;

/// Device nGnRnE, as stage 1 is when it is off otherwise.
pub const DEVICE: u8 = 0;

/// The hardware's answer for a page that it maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Machine address.
    pub pa: Pa,
    /// Attributes of both stages together.
    pub attributes: u8,
}

/// A VM's stage 2, loaded on this CPU with stage 1 off, until dropped.
#[derive(Debug)]
pub struct View(());

impl View {
    /// Loads it. The CPU is set up for guests ([`hyp::configure`]).
    pub fn of(context: TranslationContext) -> Self {
        // What a guest does is cached, as what EL2 does with the same memory is.
        HCR_EL2.modify(HCR_EL2::DC::SET);
        Self::load_tables(context)
    }

    /// As [`View::of`], for a guest whose own tables bypass the caches as far as stage 2 lets them. No
    /// translation of the VM is in a TLB.
    pub fn past_caches(context: TranslationContext) -> Self {
        HCR_EL2.modify(HCR_EL2::DC::CLEAR);
        Self::load_tables(context)
    }

    fn load_tables(context: TranslationContext) -> Self {
        SCTLR_EL1.set(MMU_OFF);
        VTTBR_EL2.set(u64::from(context.tag.0) << 48 | context.root.0);
        isb(SY);
        Self(())
    }

    /// What the hardware finds for a load by EL1.
    pub fn load(&self, at: Ipa) -> Option<Found> {
        // SAFETY: walks the tables and writes PAR_EL1 only, which no guest has in use.
        unsafe { asm!("at s12e1r, {}", in(reg) at.0, options(nostack, preserves_flags)) };
        Self::answer(at)
    }

    /// What the hardware finds for a store by EL1. Not for a page that may be loaded but not stored
    /// to: QEMU 10.0 fails an assertion of its own there (`do_ats_write`).
    pub fn store(&self, at: Ipa) -> Option<Found> {
        // SAFETY: as in `load`.
        unsafe { asm!("at s12e1w, {}", in(reg) at.0, options(nostack, preserves_flags)) };
        Self::answer(at)
    }

    fn answer(at: Ipa) -> Option<Found> {
        isb(SY);
        let answer = PAR_EL1.get();
        let faulted = PAR_EL1.is_set(PAR_EL1::F);
        (!faulted).then_some(Found {
            pa: Pa(answer & 0x000f_ffff_ffff_f000 | at.0 & 0xfff),
            attributes: (answer >> 56) as u8,
        })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        VTTBR_EL2.set(0);
        isb(SY);
    }
}
