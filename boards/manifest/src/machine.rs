//! The machine that every VM sees, whatever the board: addresses and interrupts of what EL2 emulates.

use std::ops::Range;

use hyp::console::{CONSOLE, CONSOLE_SIZE};
use package::EMULATED;

use crate::map::range;

/// The interrupt controller's distributor.
pub(crate) const DISTRIBUTOR: Range<u64> = 0x0800_0000..0x0801_0000;
/// The CPU interface of a GICv2.
pub(crate) const CPU_INTERFACE: Range<u64> = 0x0801_0000..0x0801_2000;
/// The redistributors of a GICv3.
pub(crate) const REDISTRIBUTORS: u64 = 0x080a_0000;
/// Bytes of one of them.
pub(crate) const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// The PPI of the virtual timer: INTID 27.
pub(crate) const TIMER_PPI: u32 = 11;
/// There is room in the VM's send queue.
pub(crate) const SEND_INTERRUPT: u32 = 32;
/// Something is in its receive queue.
pub(crate) const RECEIVE_INTERRUPT: u32 = 33;
/// Its first doorbell; the others follow.
pub(crate) const DOORBELL_INTERRUPT: u32 = 34;
/// Its console.
pub(crate) const CONSOLE_INTERRUPT: u32 = 42;

/// The first INTID of a shared interrupt, from which device trees count.
pub(crate) const FIRST_SHARED: u32 = 32;

const _: () =
    assert!(EMULATED.start <= DISTRIBUTOR.start && CONSOLE + CONSOLE_SIZE <= EMULATED.end);
const _: () = assert!(DOORBELL_INTERRUPT + rm::doorbell::MAX_DOORBELLS as u32 == CONSOLE_INTERRUPT);
const _: () = assert!(CONSOLE_INTERRUPT < *package::DEVICE_INTERRUPTS.start());

/// What is at which addresses of a VM with so many vCPUs.
pub(crate) fn emulated(gic: u8, vcpus: u64) -> Vec<(Range<u64>, &'static str)> {
    let mut all = vec![(DISTRIBUTOR, "interrupt controller")];
    if gic == 2 {
        all.push((CPU_INTERFACE, "interrupts of the CPU"));
    } else {
        all.push((range(REDISTRIBUTORS, vcpus * REDISTRIBUTOR_SIZE), "interrupts of each vCPU"));
    }
    all.push((range(CONSOLE, CONSOLE_SIZE), "console"));
    all
}
