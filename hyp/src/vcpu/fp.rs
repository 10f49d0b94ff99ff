//! The FP and SIMD registers of a vCPU.
//!
//! EL2 is built without them (softfloat), so a trap leaves them alone and only a switch of vCPUs
//! moves them: always, because a lazy switch is a known way to leak them by speculation.

/// V0 to V31, FPCR and FPSR, where `guest.s` expects them.
#[repr(C, align(16))]
pub(crate) struct FloatingPoint {
    v: [u128; 32],
    fpcr: u64,
    fpsr: u64,
}

unsafe extern "C" {
    fn fp_save(to: *mut FloatingPoint);
    fn fp_load(from: *const FloatingPoint);
}

impl FloatingPoint {
    /// All zero, as a VM starts.
    pub(crate) const fn new() -> Self {
        Self { v: [0; 32], fpcr: 0, fpsr: 0 }
    }

    /// Takes the CPU's registers.
    pub(crate) fn save(&mut self) {
        // SAFETY: writes the 528 bytes of `self` and nothing else; the layout is `repr(C)`.
        unsafe { fp_save(self) }
    }

    /// Puts them back. No EL2 code uses them, so nothing of EL2 is lost.
    pub(crate) fn load(&self) {
        // SAFETY: reads the 528 bytes of `self`; only guests use the registers it changes.
        unsafe { fp_load(self) }
    }
}
