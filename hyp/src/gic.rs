//! The machine's interrupt controller, GICv3 or GICv2, as far as EL2 itself needs it.
//!
//! EL2 takes every physical interrupt: kicks from other CPUs (an SGI), its own timer, the guests'
//! virtual timer and the maintenance interrupt of their CPU interfaces, all private to a CPU; and of
//! the shared ones its UART's and those of devices that VMs drive themselves. Ending an interrupt is
//! split in two (EOImode 1): [`end`] drops its priority, so that EL2 can be interrupted again, and
//! [`deactivate`] lets it fire again. What is handed to a guest is deactivated by the guest.

mod v2;
mod v3;

use aarch64_cpu::registers::{ID_AA64PFR0_EL1, Readable};
use spin::Once;

use crate::board::{Board, Gic};
use crate::vgic::TIMER;

/// The SGI by which one CPU makes another leave its guest or its sleep.
pub const KICK: u32 = 0;
/// Maintenance interrupt of the virtual CPU interface.
pub const MAINTENANCE: u32 = 25;
/// EL2's own physical timer (CNTHP).
pub const EL2_TIMER: u32 = 26;

/// The interrupts of each CPU that EL2 serves, and their priorities. Of two at once the guests' timer
/// comes second: what EL2 wants of itself is short.
const PRIVATE: [(u32, u8); 4] =
    [(KICK, PRIORITY), (MAINTENANCE, PRIORITY), (EL2_TIMER, PRIORITY), (TIMER, GUEST_PRIORITY)];
const PRIORITY: u8 = 0x80;
const GUEST_PRIORITY: u8 = 0xa0;
/// From here on INTIDs say why there is none.
const FIRST_SPECIAL: u32 = 1020;

static GIC: Once<Gic> = Once::new();

/// The version of the machine's controller: 2 or 3. Which one it is, its CPU interface tells.
pub fn version() -> u8 {
    // ID_AA64PFR0_EL1.GIC: how the CPU interface's registers are reached.
    if ID_AA64PFR0_EL1.get() >> 24 & 0xf == 0 { 2 } else { 3 }
}

/// Finds the controller and prepares the part that all CPUs share: every shared interrupt is off. On the
/// CPU that boots, before [`start_cpu`].
///
/// # Safety
///
/// Called once, and nothing else uses the controllers that the board names.
pub unsafe fn start(board: &Board) {
    let version = version();
    let gic = board.gics.iter().find(|gic| gic.version() == version);
    let gic =
        GIC.call_once(|| *gic.expect("the board names a controller of the machine's version"));
    match *gic {
        Gic::V2 { .. } => v2::start(),
        // SAFETY: passed on to the caller.
        Gic::V3 { distributor, .. } => unsafe { v3::start(distributor) },
    }
}

/// Prepares this CPU's part and enables the interrupts that EL2 serves; they stay masked in PSTATE.
///
/// # Safety
///
/// Called once on each CPU, and nothing else uses the controllers that the board names.
pub unsafe fn start_cpu() {
    match found() {
        Gic::V2 { .. } => v2::start_cpu(),
        // SAFETY: passed on to the caller.
        Gic::V3 { redistributors, .. } => unsafe { v3::start_cpu(*redistributors) },
    }
}

/// The controller that [`start`] has found.
#[inline]
pub fn found() -> &'static Gic {
    GIC.get().expect("`start` has found the controller before anybody asks")
}

/// Whether it is a GICv2, whose registers lie in memory.
#[inline]
pub fn is_v2() -> bool {
    matches!(found(), Gic::V2 { .. })
}

/// Lets a shared interrupt of the machine come, on the CPU with this affinity. `edge`: its source signals
/// by an edge.
pub fn enable_shared(intid: u32, affinity: u64, edge: bool) {
    match found() {
        Gic::V2 { .. } => v2::enable_shared(intid, affinity, edge),
        Gic::V3 { distributor, .. } => v3::enable_shared(*distributor, intid, affinity, edge),
    }
}

/// Takes the most urgent physical interrupt of this CPU, if there is one.
pub fn acknowledge() -> Option<u32> {
    let intid = if is_v2() { v2::acknowledge() } else { v3::acknowledge() };
    Some(intid).filter(|&intid| intid < FIRST_SPECIAL)
}

/// Drops the priority of an acknowledged interrupt. It does not fire again before [`deactivate`].
pub fn end(intid: u32) {
    if is_v2() { v2::end(intid) } else { v3::end(intid) }
}

/// Lets an ended interrupt fire again.
pub fn deactivate(intid: u32) {
    if is_v2() { v2::deactivate(intid) } else { v3::deactivate(intid) }
}

/// Lets an ended shared interrupt fire again, whichever CPU took it.
pub fn deactivate_shared(intid: u32) {
    if is_v2() { v2::deactivate_shared(intid) } else { v3::deactivate(intid) }
}

/// Makes another CPU leave its guest or its sleep. What this CPU wrote before is visible to it then.
pub fn kick(affinity: u64) {
    if is_v2() { v2::kick(affinity) } else { v3::kick(affinity) }
}
