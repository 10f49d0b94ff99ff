//! A GICv3: registers of each CPU in the system, distributor and redistributors in memory.

use core::ptr::NonNull;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{
    GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator, SgiTarget,
    SgiTargetGroup,
};
use arm_gic::{IntId, InterruptGroup, Trigger};
use arm_sysregs::el1::accessors::{
    write_icc_bpr1_el1, write_icc_ctlr_el1, write_icc_dir_el1, write_icc_pmr_el1, write_icc_sre_el1,
};
use arm_sysregs::el1::registers::{IccBpr1El1, IccCtlrEl1, IccDirEl1, IccPmrEl1, IccSreEl1};
use rm::address::Pa;
use safe_mmio::UniqueMmioPointer;

use super::{KICK, PRIVATE};
use crate::stage1::direct;

/// The affinity fields of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Affinity routing, group 1, every SPI off.
///
/// # Safety
///
/// Called once, and nothing else uses the distributor.
pub(super) unsafe fn start(distributor: Pa) {
    // SAFETY: passed on to the caller.
    let mut distributor = unsafe { self::distributor(distributor) };
    distributor.enable_all_interrupts(false);
    distributor.configure_default_settings();
}

/// The distributor's registers.
///
/// # Safety
///
/// Two CPUs do not write the same register at a time.
unsafe fn distributor(at: Pa) -> GicDistributor<'static> {
    // SAFETY: it lies among the devices that EL2 has mapped; the rest is the caller's.
    GicDistributor::new(unsafe { UniqueMmioPointer::new(device::<Gicd>(at)) })
}

/// Prepares this CPU's part and enables the interrupts that EL2 serves; they stay masked in PSTATE.
///
/// # Safety
///
/// Called once on each CPU, and nothing else uses the redistributors.
pub(super) unsafe fn start_cpu(redistributors: Pa) {
    let affinity = MPIDR_EL1.get() & AFFINITY;
    let first = device::<GicrSgi>(redistributors);
    // SAFETY: they lie among the devices that EL2 has mapped. Each CPU reads the identification of
    // all, which never changes, and writes to its own.
    let redistributors = unsafe { GicRedistributorIterator::new(first) };
    let mut redistributor = redistributors
        .expect("the redistributors have the layout of a GICv3 or v4")
        .find(|redistributor| redistributor.typer().core_mpidr() == affinity)
        .expect("this CPU has a redistributor");
    // Firmware may have woken it already.
    let _ = redistributor.mark_core_awake();
    redistributor.configure_default_settings();
    enable_interrupts(&mut redistributor);
    start_cpu_interface();
}

/// Where EL2 sees a device's registers.
fn device<T>(at: Pa) -> NonNull<T> {
    NonNull::new(direct(at).cast()).expect("the direct map does not start at 0")
}

fn enable_interrupts(redistributor: &mut GicRedistributor<'_>) {
    for (intid, priority) in PRIVATE {
        let intid = named(intid);
        redistributor.set_interrupt_priority(intid, priority).expect("SGIs and PPIs are its own");
        redistributor.enable_interrupt(intid, true).expect("SGIs and PPIs are its own");
    }
}

/// System register access for EL2. EL1's attempts to leave it are trapped (ICC_SRE_EL2.Enable = 0),
/// and ICC_SRE_EL1 says that its virtual CPU interface is the register one.
fn start_cpu_interface() {
    ICC_SRE_EL2.write(ICC_SRE_EL2::SRE::SET + ICC_SRE_EL2::DFB::SET + ICC_SRE_EL2::DIB::SET);
    barrier::isb(barrier::SY);
    // SAFETY: no guest has run on this CPU, and what the register changes is EL1's interface only.
    unsafe { write_icc_sre_el1(IccSreEl1::SRE | IccSreEl1::DFB | IccSreEl1::DIB) };
    write_icc_pmr_el1(IccPmrEl1::empty().with_priority(0xff));
    write_icc_bpr1_el1(IccBpr1El1::empty());
    write_icc_ctlr_el1(IccCtlrEl1::EOIMODE);
    ICH_HCR_EL2.set(0);
    GicCpuInterface::enable_group1(true);
    barrier::isb(barrier::SY);
}

/// Lets a shared interrupt come, on the CPU with this affinity.
pub(super) fn enable_shared(at: Pa, intid: u32, affinity: u64, edge: bool) {
    // SAFETY: called while the machine is set up, on the CPU that boots.
    let mut distributor = unsafe { distributor(at) };
    let intid = named(intid);
    let trigger = if edge { Trigger::Edge } else { Trigger::Level };
    let set = distributor
        .set_interrupt_priority(intid, super::GUEST_PRIORITY)
        .and_then(|()| distributor.set_trigger(intid, trigger))
        .and_then(|()| distributor.set_routing(intid, Some(affinity)))
        .and_then(|()| distributor.enable_interrupt(intid, true));
    set.expect("the package has checked that the interrupt is a shared one");
}

/// The INTID of the most urgent interrupt, or why there is none.
pub(super) fn acknowledge() -> u32 {
    let intid = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1);
    // The acknowledge must have happened before the handler looks at the device.
    barrier::dsb(barrier::SY);
    intid.map_or(super::FIRST_SPECIAL, IntId::raw_value)
}

/// Drops the priority of an acknowledged interrupt. It does not fire again before [`deactivate`].
pub(super) fn end(intid: u32) {
    GicCpuInterface::end_interrupt(named(intid), InterruptGroup::Group1);
    barrier::isb(barrier::SY);
}

/// Lets an ended interrupt fire again.
pub(super) fn deactivate(intid: u32) {
    write_icc_dir_el1(IccDirEl1::empty().with_intid(intid));
    barrier::isb(barrier::SY);
}

/// Makes another CPU leave its guest or its sleep. What this CPU wrote before is visible to it then.
pub(super) fn kick(affinity: u64) {
    barrier::dsb(barrier::ISHST);
    let target = SgiTarget::List {
        affinity3: (affinity >> 32) as u8,
        affinity2: (affinity >> 16) as u8,
        affinity1: (affinity >> 8) as u8,
        target_list: 1 << (affinity & 0xf),
    };
    GicCpuInterface::send_sgi(IntId::sgi(KICK), target, SgiTargetGroup::CurrentGroup1)
        .expect("the kick is an SGI");
    barrier::isb(barrier::SY);
}

/// An interrupt by its INTID.
const fn named(intid: u32) -> IntId {
    match intid {
        0..16 => IntId::sgi(intid),
        16..32 => IntId::ppi(intid - 16),
        _ => IntId::spi(intid - 32),
    }
}
