//! A GICv2: distributor and CPU interface in memory (IHI 0048B).
//!
//! EL2 is Non-secure on a machine with two security states, and sees group 1 only: its enable bits are
//! then those that a machine with one state has for group 0. So one bit 0 is right on both.

use core::sync::atomic::{AtomicU8, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::MPIDR_EL1;
use rm::address::Pa;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;

use super::{GUEST_PRIORITY, KICK, PRIVATE};
use crate::board::Gic;
use crate::mmio::{self, ReadOnly, ReadWrite, WriteOnly};

register_structs! {
    /// The distributor.
    Distributor {
        (0x000 => control: ReadWrite<u32>),
        (0x004 => kind: ReadOnly<u32>),
        (0x008 => _gap),
        (0x100 => set_enable: [ReadWrite<u32>; 32]),
        (0x180 => clear_enable: [ReadWrite<u32>; 32]),
        (0x200 => _pending),
        (0x380 => clear_active: [ReadWrite<u32>; 32]),
        (0x400 => priority: [ReadWrite<u8>; 1024]),
        (0x800 => targets: [ReadWrite<u8>; 1024]),
        (0xc00 => trigger: [ReadWrite<u32>; 64]),
        (0xd00 => _rest),
        (0xf00 => software: WriteOnly<u32>),
        (0xf04 => @END),
    },
    /// The CPU interface of the CPU that asks.
    CpuInterface {
        (0x0000 => control: ReadWrite<u32>),
        (0x0004 => mask: ReadWrite<u32>),
        (0x0008 => binary_point: ReadWrite<u32>),
        (0x000c => acknowledge: ReadOnly<u32>),
        (0x0010 => end: WriteOnly<u32>),
        (0x0014 => _gap),
        (0x1000 => deactivate: WriteOnly<u32>),
        (0x1004 => @END),
    }
}

/// GICD_CTLR and GICC_CTLR: forward interrupts.
const ENABLE: u32 = 1;
/// GICC_CTLR: the end of an interrupt does not deactivate it.
const EOI_MODE: u32 = 1 << 9;
/// The INTID in GICC_IAR; above it is the CPU that sent a software generated interrupt.
const INTID: u32 = 0x3ff;
const FIRST_SHARED: usize = 32;
/// CPU interfaces that the architecture allows.
const MAX_INTERFACES: usize = 8;

/// The bit of each CPU's interface in registers that name targets, by the CPU's lowest affinity.
static INTERFACES: [AtomicU8; MAX_INTERFACES] = [const { AtomicU8::new(0) }; MAX_INTERFACES];

/// Every shared interrupt off, and the distributor on.
pub(super) fn start() {
    let distributor = distributor();
    distributor.control.set(0);
    let words = (distributor.kind.get() as usize & 0x1f) + 1;
    for word in FIRST_SHARED / 32..words {
        distributor.clear_enable[word].set(u32::MAX);
        distributor.clear_active[word].set(u32::MAX);
    }
    distributor.control.set(ENABLE);
}

/// This CPU's part.
pub(super) fn start_cpu() {
    let (distributor, interface) = (distributor(), cpu_interface());
    // A CPU that reads its own targets finds its interface's number (4.3.12).
    let own = distributor.targets[0].get();
    INTERFACES[lowest_affinity(MPIDR_EL1.get())].store(own, Ordering::Relaxed);
    distributor.clear_enable[0].set(u32::MAX);
    distributor.clear_active[0].set(u32::MAX);
    for (intid, priority) in PRIVATE {
        distributor.priority[intid as usize].set(priority);
        distributor.set_enable[0].set(1 << intid);
    }
    interface.mask.set(0xff);
    interface.binary_point.set(0);
    interface.control.set(ENABLE | EOI_MODE);
}

/// Lets a shared interrupt come, on the CPU with this affinity.
pub(super) fn enable_shared(intid: u32, affinity: u64, edge: bool) {
    let distributor = distributor();
    let (n, interface) = (intid as usize, lowest_affinity(affinity));
    // The CPUs behind the first have not said yet what their interfaces are; on every machine that we
    // know it is the number of the core.
    let known = INTERFACES[interface].load(Ordering::Relaxed);
    let target = if known == 0 { 1 << interface } else { known };
    let trigger = &distributor.trigger[n / 16];
    let bit = 1 << (n % 16 * 2 + 1);
    trigger.set(if edge { trigger.get() | bit } else { trigger.get() & !bit });
    distributor.priority[n].set(GUEST_PRIORITY);
    distributor.targets[n].set(target);
    distributor.set_enable[n / 32].set(1 << (n % 32));
}

/// The INTID of the most urgent interrupt, or why there is none. A kick has ended then: its end names the
/// CPU that sent it.
pub(super) fn acknowledge() -> u32 {
    let interface = cpu_interface();
    let acknowledged = interface.acknowledge.get();
    // The acknowledge must have happened before the handler looks at the device.
    barrier::dsb(barrier::SY);
    let intid = acknowledged & INTID;
    if intid == KICK {
        interface.end.set(acknowledged);
        interface.deactivate.set(acknowledged);
    }
    intid
}

pub(super) fn end(intid: u32) {
    if intid != KICK {
        cpu_interface().end.set(intid);
    }
}

pub(super) fn deactivate(intid: u32) {
    if intid != KICK {
        cpu_interface().deactivate.set(intid);
    }
}

/// By the distributor: what a CPU interface can end of another's interrupts is not defined.
pub(super) fn deactivate_shared(intid: u32) {
    distributor().clear_active[intid as usize / 32].set(1 << (intid % 32));
}

pub(super) fn kick(affinity: u64) {
    let target = INTERFACES[lowest_affinity(affinity)].load(Ordering::Relaxed);
    // The write below goes to a device: what was written before must be visible to every CPU by then.
    barrier::dsb(barrier::SY);
    distributor().software.set(u32::from(target) << 16 | KICK);
}

fn lowest_affinity(affinity: u64) -> usize {
    affinity as usize % MAX_INTERFACES
}

fn addresses() -> (Pa, Pa) {
    match super::found() {
        Gic::V2 { distributor, cpu_interface, .. } => (*distributor, *cpu_interface),
        Gic::V3 { .. } => unreachable!("the machine has a GICv3"),
    }
}

fn distributor() -> &'static Distributor {
    // SAFETY: the board's, and a GICv2's. CPUs write registers of their own, but for what `start` and
    // `enable_shared` do on the CPU that boots.
    unsafe { mmio::registers(addresses().0) }
}

fn cpu_interface() -> &'static CpuInterface {
    // SAFETY: as above; each CPU sees its own.
    unsafe { mmio::registers(addresses().1) }
}
