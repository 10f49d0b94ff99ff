//! The machine's interrupt controller, a GICv3, as far as EL2 itself needs it.
//!
//! EL2 takes every physical interrupt: kicks from other CPUs (an SGI), its own timer, the guests'
//! virtual timer and the maintenance interrupt of their CPU interfaces, all private to a CPU. Ending
//! an interrupt is split in two (EOImode 1): [`end`] drops its priority, so that EL2 can be
//! interrupted again, and [`deactivate`] lets it fire again. The virtual timer's second half is left
//! to the guest.

use core::ptr::NonNull;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{
    GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator, SgiTarget,
    SgiTargetGroup,
};
use arm_gic::{IntId, InterruptGroup};
use arm_sysregs::el1::accessors::{
    write_icc_bpr1_el1, write_icc_ctlr_el1, write_icc_dir_el1, write_icc_pmr_el1, write_icc_sre_el1,
};
use arm_sysregs::el1::registers::{IccBpr1El1, IccCtlrEl1, IccDirEl1, IccPmrEl1, IccSreEl1};
use rm::address::Pa;
use safe_mmio::UniqueMmioPointer;

use crate::board::Board;
use crate::stage1::direct;
use crate::vgic::TIMER;

/// The SGI by which one CPU makes another leave its guest or its sleep.
pub const KICK: u32 = 0;
/// Maintenance interrupt of the virtual CPU interface.
pub const MAINTENANCE: u32 = 25;
/// EL2's own physical timer (CNTHP).
pub const EL2_TIMER: u32 = 26;

/// The affinity fields of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// From here on INTIDs say why there is none.
const FIRST_SPECIAL: u32 = 1020;
/// Of two interrupts at once the guests' timer comes second: what EL2 wants of itself is short.
const PRIORITY: u8 = 0x80;
const TIMER_PRIORITY: u8 = 0xa0;

/// Prepares the part that all CPUs share: affinity routing, group 1, every SPI off but that of EL2's
/// UART, which the CPU that boots takes. On the CPU that
/// boots, before [`start_cpu`].
///
/// # Safety
///
/// Called once, and nothing else uses the distributor that the board names.
pub unsafe fn start(board: &Board) {
    let distributor = device::<Gicd>(board.gic.distributor);
    // SAFETY: it lies among the devices that EL2 has mapped, and the caller has it for itself.
    let registers = unsafe { UniqueMmioPointer::new(distributor) };
    let mut distributor = GicDistributor::new(registers);
    distributor.enable_all_interrupts(false);
    distributor.configure_default_settings();
    let uart = named(board.uart.intid);
    distributor.set_interrupt_priority(uart, TIMER_PRIORITY).expect("it is an SPI");
    distributor.set_routing(uart, Some(board.cpus[0])).expect("it is an SPI");
    distributor.enable_interrupt(uart, true).expect("it is an SPI");
}

/// Prepares this CPU's part and enables the interrupts that EL2 serves; they stay masked in PSTATE.
///
/// # Safety
///
/// Called once on each CPU, and nothing else uses the redistributors that the board names.
pub unsafe fn start_cpu(board: &Board) {
    let affinity = MPIDR_EL1.get() & AFFINITY;
    let first = device::<GicrSgi>(board.gic.redistributors);
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
    for (intid, priority) in
        [(KICK, PRIORITY), (MAINTENANCE, PRIORITY), (EL2_TIMER, PRIORITY), (TIMER, TIMER_PRIORITY)]
    {
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

/// Takes the most urgent physical interrupt of this CPU, if there is one.
pub fn acknowledge() -> Option<u32> {
    let intid = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1)?;
    // The acknowledge must have happened before the handler looks at the device.
    barrier::dsb(barrier::SY);
    Some(intid.raw_value()).filter(|&intid| intid < FIRST_SPECIAL)
}

/// Drops the priority of an acknowledged interrupt. It does not fire again before [`deactivate`].
pub fn end(intid: u32) {
    GicCpuInterface::end_interrupt(named(intid), InterruptGroup::Group1);
    barrier::isb(barrier::SY);
}

/// Lets an ended interrupt fire again.
pub fn deactivate(intid: u32) {
    write_icc_dir_el1(IccDirEl1::empty().with_intid(intid));
    barrier::isb(barrier::SY);
}

/// Makes another CPU leave its guest or its sleep. What this CPU wrote before is visible to it then.
pub fn kick(affinity: u64) {
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
