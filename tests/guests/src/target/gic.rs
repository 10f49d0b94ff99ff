//! The virtual GICv3 as a guest drives it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::layout::{DISTRIBUTOR, REDISTRIBUTOR, REDISTRIBUTOR_STRIDE};
use crate::memory::{read32, write8, write32};
use crate::{cpu, timer};

/// The interrupts that a VM has: SGIs, PPIs, and eleven SPIs.
pub const INTERRUPTS: usize = 43;
/// The mailbox's "there is room" interrupt.
pub const SPI_TX: u32 = 32;
/// The mailbox's "there is a message" interrupt.
pub const SPI_RX: u32 = 33;
/// The first doorbell's interrupt; the others follow.
pub const SPI_DOORBELLS: u32 = 34;
/// The console's interrupt, a level.
pub const SPI_CONSOLE: u32 = 42;
/// What the CPU interface says when nothing is pending.
const SPURIOUS: u64 = 1020;

// Offsets within the distributor, and within a redistributor's second frame.
const CTLR: u64 = 0;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const IPRIORITYR: u64 = 0x400;
const IROUTER: u64 = 0x6000;
const SGI_FRAME: u64 = 0x1_0000;
const WAKER: u64 = 0x14;

/// How often each interrupt was taken.
static TAKEN: [AtomicU32; INTERRUPTS] = [const { AtomicU32::new(0) }; INTERRUPTS];
/// The order in which the last eight were taken, the latest in the lowest byte.
static ORDER: AtomicU64 = AtomicU64::new(0);

/// Makes the distributor and this vCPU's interface ready: group 1, all priorities let through.
pub fn enable() {
    let redistributor = REDISTRIBUTOR + REDISTRIBUTOR_STRIDE * cpu::index() as u64;
    // Affinity routing and group 1.
    write32(DISTRIBUTOR + CTLR, 1 << 4 | 1 << 1);
    write32(redistributor + WAKER, read32(redistributor + WAKER) & !2);
    write32(redistributor + SGI_FRAME + IGROUPR, !0);
    write32(DISTRIBUTOR + IGROUPR + 4, !0);
    crate::write_register!("S3_0_C12_C12_5", 7); // ICC_SRE_EL1
    cpu::isb();
    set_priority_mask(0xff);
    crate::write_register!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
    cpu::isb();
}

/// Lets interrupts through that are more urgent than `mask`.
pub fn set_priority_mask(mask: u8) {
    crate::write_register!("S3_0_C4_C6_0", mask.into()); // ICC_PMR_EL1
    cpu::isb();
}

/// The frame that holds an interrupt's registers.
fn frame(interrupt: u32) -> u64 {
    if interrupt < 32 {
        REDISTRIBUTOR + REDISTRIBUTOR_STRIDE * cpu::index() as u64 + SGI_FRAME
    } else {
        DISTRIBUTOR
    }
}

fn set_bit(offset: u64, interrupt: u32) {
    write32(frame(interrupt) + offset + u64::from(interrupt / 32) * 4, 1 << (interrupt % 32));
}

/// Lets an interrupt be taken, by this vCPU.
pub fn unmask(interrupt: u32) {
    if interrupt >= 32 {
        let router = DISTRIBUTOR + IROUTER + u64::from(interrupt) * 8;
        write32(router, cpu::index() as u32);
        write32(router + 4, 0);
    }
    set_bit(ISENABLER, interrupt);
}

/// Keeps an interrupt from being taken.
pub fn mask(interrupt: u32) {
    set_bit(ICENABLER, interrupt);
}

/// Makes an interrupt pending.
pub fn pend(interrupt: u32) {
    set_bit(ISPENDR, interrupt);
}

/// Takes a pending interrupt back.
pub fn unpend(interrupt: u32) {
    set_bit(ICPENDR, interrupt);
}

/// Whether an interrupt is pending.
pub fn is_pending(interrupt: u32) -> bool {
    let register = frame(interrupt) + ISPENDR + u64::from(interrupt / 32) * 4;
    read32(register) & 1 << (interrupt % 32) != 0
}

/// Sets how urgent an interrupt is; 0 is most urgent.
pub fn set_priority(interrupt: u32, priority: u8) {
    write8(frame(interrupt) + IPRIORITYR + u64::from(interrupt), priority);
}

/// Sends software interrupt `interrupt` to the vCPU with this number.
pub fn send(interrupt: u32, vcpu: u64) {
    crate::write_register!("S3_0_C12_C11_5", u64::from(interrupt) << 24 | 1 << vcpu); // ICC_SGI1R_EL1
    cpu::isb();
}

/// How often an interrupt was taken, by any vCPU.
pub fn taken(interrupt: u32) -> u32 {
    TAKEN[interrupt as usize].load(Ordering::Acquire)
}

/// The interrupt that was taken `back` interrupts before the latest.
pub fn last_taken(back: u32) -> u32 {
    (ORDER.load(Ordering::Acquire) >> (8 * back)) as u32 & 0xff
}

/// Acknowledges the most urgent pending interrupt, and drops it.
pub fn acknowledge() -> Option<u32> {
    let interrupt = crate::read_register!("S3_0_C12_C12_0"); // ICC_IAR1_EL1
    if interrupt >= SPURIOUS {
        return None;
    }
    crate::write_register!("S3_0_C12_C12_1", interrupt); // ICC_EOIR1_EL1
    cpu::isb();
    Some(interrupt as u32)
}

/// Takes the most urgent pending interrupt. Called by the vectors.
pub(crate) fn take() {
    let interrupt = crate::read_register!("S3_0_C12_C12_0"); // ICC_IAR1_EL1
    if interrupt >= SPURIOUS {
        return;
    }
    assert!((interrupt as usize) < INTERRUPTS, "interrupt {interrupt}");
    if interrupt as u32 == timer::INTERRUPT {
        timer::stop();
    }
    let count = &TAKEN[interrupt as usize];
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    ORDER.store(ORDER.load(Ordering::Relaxed) << 8 | interrupt, Ordering::Release);
    crate::write_register!("S3_0_C12_C12_1", interrupt); // ICC_EOIR1_EL1
    cpu::isb();
}
