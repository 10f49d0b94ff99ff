//! The hardware under the resource manager.

use core::sync::atomic::AtomicU64;

use aarch64_cpu::asm::barrier::{ISHST, SY, dsb, isb};
use aarch64_cpu::registers::{ID_AA64MMFR2_EL1, Readable};
use rm::address::{PAGE_SIZE, Pa, VmIndex};
use rm::machine::{Features, Frame, Line, Machine, Scope, TranslationContext};

use crate::{cache, cpu, guest_memory, timer, tlb, vm};

/// EL2 of the machine that this code runs on.
pub struct El2 {
    frames: &'static [Frame],
    base: Pa,
    features: Features,
}

impl El2 {
    /// The machine with these frames, which lie at `base` and are all zero.
    pub fn new(frames: &'static [Frame], base: Pa) -> Self {
        Self { frames, base, features: features() }
    }
}

/// What the CPU says of itself. All CPUs of a board say the same.
pub fn features() -> Features {
    let forced_write_back = ID_AA64MMFR2_EL1.read(ID_AA64MMFR2_EL1::FWB) != 0;
    // No SMMU is driven here, so no device is said to be confined by one.
    Features { forced_write_back, smmu: false }
}

impl Machine for El2 {
    type Relax = crate::Relax;

    fn features(&self) -> Features {
        self.features
    }

    fn frames(&self) -> &[Frame] {
        self.frames
    }

    fn frames_base(&self) -> Pa {
        self.base
    }

    fn publish(&self) {
        dsb(ISHST);
        isb(SY);
    }

    fn invalidate(&self, context: TranslationContext, scope: Scope<'_>) {
        tlb::invalidate(context, scope);
    }

    fn milliseconds(&self) -> u64 {
        timer::now() / (timer::frequency() / 1000).max(1)
    }

    fn zero_page(&self, page: Pa) {
        cache::zero_page(page);
    }

    fn clean_invalidate_page(&self, page: Pa) {
        cache::clean_invalidate(page, PAGE_SIZE);
    }

    fn read(&self, from: Pa, into: &mut [u8], cached: bool) {
        guest_memory::read_page(from, into, cached);
    }

    fn write(&self, to: Pa, from: &[u8], cached: bool) {
        guest_memory::write_page(to, from, cached);
    }

    fn interrupt(&self, vm: VmIndex, line: Line) {
        vm::interrupt(vm, line);
    }

    fn stop(&self, vm: VmIndex) {
        vm::stop(vm);
    }

    fn start(&self, vm: VmIndex) {
        vm::start(vm);
    }

    fn work(&self, vm: VmIndex) {
        vm::work(vm);
    }

    fn held_ranks(&self) -> &AtomicU64 {
        &cpu::current().held_ranks
    }
}
