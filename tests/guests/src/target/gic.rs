//! The virtual interrupt controller as a guest drives it: a GICv3, or a GICv2 where the machine has one.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::layout::{CPU_INTERFACE, DISTRIBUTOR, REDISTRIBUTOR, REDISTRIBUTOR_STRIDE};
use crate::memory::{read32, write8, write32};
use crate::{cpu, timer};

/// The interrupts that a VM has: SGIs, PPIs, and eleven SPIs.
pub const INTERRUPTS: usize = 64;
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
const ITARGETSR: u64 = 0x800;
const SGIR: u64 = 0xf00;
const IROUTER: u64 = 0x6000;
const SGI_FRAME: u64 = 0x1_0000;
const WAKER: u64 = 0x14;
// Offsets within a GICv2's CPU interface.
const CPU_CTLR: u64 = 0;
const CPU_PMR: u64 = 4;
const CPU_IAR: u64 = 0xc;
const CPU_EOIR: u64 = 0x10;
/// The INTID in what was acknowledged; above it a GICv2 names the sender.
const INTID: u64 = 0x3ff;

/// How often each interrupt was taken.
static TAKEN: [AtomicU32; INTERRUPTS] = [const { AtomicU32::new(0) }; INTERRUPTS];
/// The order in which the last eight were taken, the latest in the lowest byte.
static ORDER: AtomicU64 = AtomicU64::new(0);

/// Whether the CPU interface lies in memory. Asked once: the register that says so traps.
static IS_V2: AtomicBool = AtomicBool::new(false);

/// Whether the VM has a GICv2. Known after [`enable`].
pub fn is_v2() -> bool {
    IS_V2.load(Ordering::Relaxed)
}

/// Makes the distributor and this vCPU's interface ready: all priorities let through.
pub fn enable() {
    let in_system = crate::read_register!("ID_AA64PFR0_EL1") >> 24 & 0xf != 0;
    IS_V2.store(!in_system, Ordering::Relaxed);
    if in_system { enable_v3() } else { enable_v2() }
}

fn enable_v2() {
    write32(DISTRIBUTOR + CTLR, 1);
    set_priority_mask(0xff);
    write32(CPU_INTERFACE + CPU_CTLR, 1);
}

fn enable_v3() {
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
    if is_v2() {
        return write32(CPU_INTERFACE + CPU_PMR, mask.into());
    }
    crate::write_register!("S3_0_C4_C6_0", mask.into()); // ICC_PMR_EL1
    cpu::isb();
}

/// The frame that holds an interrupt's registers.
fn frame(interrupt: u32) -> u64 {
    if interrupt < 32 && !is_v2() {
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
    if interrupt >= 32 && is_v2() {
        write8(DISTRIBUTOR + ITARGETSR + u64::from(interrupt), 1 << cpu::index());
    } else if interrupt >= 32 {
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
    if is_v2() {
        return write32(DISTRIBUTOR + SGIR, 1 << (16 + vcpu) | interrupt);
    }
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
    let acknowledged = begin()?;
    end(acknowledged);
    Some((acknowledged & INTID) as u32)
}

/// What the CPU interface says of the most urgent pending interrupt, which is active then.
fn begin() -> Option<u64> {
    let acknowledged = if is_v2() {
        read32(CPU_INTERFACE + CPU_IAR).into()
    } else {
        crate::read_register!("S3_0_C12_C12_0") // ICC_IAR1_EL1
    };
    (acknowledged & INTID < SPURIOUS).then_some(acknowledged)
}

fn end(acknowledged: u64) {
    if is_v2() {
        return write32(CPU_INTERFACE + CPU_EOIR, acknowledged as u32);
    }
    crate::write_register!("S3_0_C12_C12_1", acknowledged); // ICC_EOIR1_EL1
    cpu::isb();
}

/// Takes the most urgent pending interrupt. Called by the vectors.
pub(crate) fn take() {
    let Some(acknowledged) = begin() else { return };
    let interrupt = acknowledged & INTID;
    assert!((interrupt as usize) < INTERRUPTS, "interrupt {interrupt}");
    if interrupt as u32 == timer::INTERRUPT {
        timer::stop();
    }
    let count = &TAKEN[interrupt as usize];
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    ORDER.store(ORDER.load(Ordering::Relaxed) << 8 | interrupt, Ordering::Release);
    end(acknowledged);
}
