//! The virtual distributor: what a VM's vCPUs share.
//!
//! As a GICv3 it has one security state and affinity routing always on, as a GICv2 no security extensions
//! and all interrupts in group 0. Of 32 SPI numbers a VM has eleven. What it lacks reads as zero and
//! ignores writes.

use rm::doorbell::MAX_DOORBELLS;

use super::bank::{Bank, Wiring};
use super::{CONSOLE, VcpuSet, Version, Wires};

/// First INTID that vCPUs share.
pub(super) const SPI_BASE: u32 = 32;
/// The SPIs that every VM has, as bits from [`SPI_BASE`] on: two of its mailbox, its doorbells, and the lines.
const SPIS: u32 = ((1 << (2 + MAX_DOORBELLS)) - 1) | LINES;
/// Those that are pending as long as a device of the VM holds their line high.
const LINES: u32 = 1 << (CONSOLE - SPI_BASE);

const CTLR: u64 = 0x0000;
const TYPER: u64 = 0x0004;
const IROUTER: u64 = 0x6000 + 8 * SPI_BASE as u64;
const IROUTER_END: u64 = IROUTER + 8 * 32;
/// Peripheral ID 2, at the same place in every GICv3 register block of 64 KiB.
pub(super) const PIDR2: u64 = 0xffe8;
/// Architecture revision 3; the rest says "not Arm's own part".
pub(super) const PIDR2_GICV3: u32 = 0x3b;

/// GICD_CTLR of one security state: affinity routing (ARE) and DS are fixed, group 1 can be enabled.
const CTLR_FIXED: u32 = 1 << 6 | 1 << 4;
const CTLR_GROUP1: u32 = 1 << 1;
/// GICD_TYPER: 64 INTIDs, ten bits of INTID, no "1 of N" routing.
const TYPER_VALUE: u32 = 1 << 25 | 9 << 19 | 1;
/// The affinity fields of GICD_IROUTER that can be written; Aff3 is not implemented (TYPER.A3V).
const AFFINITY: u32 = 0x00ff_ffff;

/// GICD_CTLR of a GICv2: all interrupts can be enabled.
const CTLR_ENABLE: u32 = 1;
/// GICD_TYPER of a GICv2: 64 INTIDs; above them is the number of CPU interfaces, less one.
const TYPER_V2: u32 = 1;
const TYPER_CPUS: u32 = 5;
/// GICD_IGROUPR, which a GICv2 without security extensions lacks.
const GROUPS: core::ops::Range<u64> = 0x080..0x100;
/// GICD_ITARGETSR of the shared interrupts, a byte each.
const TARGETS: u64 = 0x800 + SPI_BASE as u64;
const TARGETS_END: u64 = TARGETS + 32;
/// Peripheral ID 2 of a GICv2: architecture revision 2 (IHI 0048B, 4.3.18).
const PIDR2_V2: u64 = 0xfe8;
const PIDR2_GICV2: u32 = 0x2b;
/// The route of an interrupt that goes to nobody.
const NOBODY: u32 = 0xff;

/// State of the shared interrupts.
#[derive(Clone, Debug)]
pub(super) struct Distributor {
    version: Version,
    vcpus: usize,
    enabled: bool,
    pub(super) bank: Bank,
    /// SPIs that exist.
    present: u32,
    /// Lines that are high.
    lines: u32,
    /// What stands behind SPIs of devices that the VM drives itself.
    wires: Wires,
    /// Those of them whose physical interrupt came and is not yet pending here.
    arrived: u32,
    /// Those whose physical interrupt is active on behalf of the virtual one.
    in_flight: u32,
    /// Where each SPI goes: the affinity that GICD_IROUTER holds.
    routes: [u32; 32],
    /// The vCPU in whose list registers an SPI stood last, which is where it ends if it is active.
    pub(super) holders: [u8; 32],
}

impl Distributor {
    pub(super) fn new(version: Version, vcpus: usize, wires: Wires) -> Self {
        let (present, own) = (SPIS | wires.map(), SPIS & !LINES);
        let edge = own | wires.edges;
        let bank = Bank::new(Wiring { present, pulsed: edge, configurable: own, edge });
        Self {
            version,
            vcpus,
            enabled: false,
            bank,
            present,
            lines: 0,
            wires,
            arrived: 0,
            in_flight: 0,
            routes: [0; 32],
            holders: [0; 32],
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether a device's line stands behind SPI number `n`.
    pub(super) fn is_line(&self, n: u32) -> bool {
        LINES >> n & 1 == 1
    }

    /// Sets the line of SPI number `n`.
    pub(super) fn set_line(&mut self, n: u32, high: bool) {
        let bit = 1 << n & LINES;
        if high {
            self.lines |= bit;
            self.raise_lines();
        } else {
            self.lines &= !bit;
            self.bank.withdraw(bit);
        }
    }

    /// Makes pending what a line holds so, also while it is served: its end alone does not lower it.
    pub(super) fn raise_lines(&mut self) {
        (0..32).filter(|&n| self.lines >> n & 1 == 1).for_each(|n| self.bank.raise(n));
    }

    /// The physical interrupt behind SPI number `n` came, and is active from now on.
    pub(super) fn take_physical(&mut self, n: u32) {
        self.arrived |= 1 << n;
        self.settle_arrived();
    }

    /// Makes pending what has arrived. Not while it stands in a list register: that is about the interrupt
    /// before, which the guest has ended, and whose end is not yet known here.
    pub(super) fn settle_arrived(&mut self) {
        let settled = select(self.arrived, |n| !self.bank.is_listed(n));
        self.arrived &= !settled;
        self.in_flight |= settled;
        (0..32).filter(|&n| settled >> n & 1 == 1).for_each(|n| self.bank.raise(n));
    }

    /// The vCPU in whose list register an arrived SPI number `n` stands from before.
    pub(super) fn late_holder(&self, n: u32) -> Option<usize> {
        (self.arrived >> n & 1 == 1).then(|| self.holders[n as usize].into())
    }

    /// The physical interrupt that is active on behalf of SPI number `n`.
    pub(super) fn in_flight(&self, n: u32) -> Option<u32> {
        (self.in_flight >> n & 1 == 1).then(|| self.wires.physical[n as usize].into())
    }

    /// The guest's end of SPI number `n` ended the physical interrupt, too.
    pub(super) fn ended_with_guest(&mut self, n: u32) {
        self.in_flight &= !(1 << n);
    }

    /// Physical interrupts that are active for nobody any more, because the guest took the virtual one back,
    /// or ended it in no list register. They are the caller's to end.
    pub(super) fn forget_idle(&mut self) -> [u16; 32] {
        let idle = (0..32).filter(|&n| !self.bank.is_busy(n) && !self.bank.is_listed(n));
        let idle = idle.fold(0, |map, n| map | 1 << n) & self.in_flight;
        self.in_flight &= !idle;
        core::array::from_fn(|n| if idle >> n & 1 == 1 { self.wires.physical[n] } else { 0 })
    }

    /// Whether SPI number `n` goes to the vCPU; one routed to nobody stays pending.
    pub(super) fn is_routed(&self, n: u32, vcpu: usize) -> bool {
        self.routes[n as usize] as usize == vcpu
    }

    /// SPIs that wait for a place in `vcpu`'s list registers.
    pub(super) fn deliverable_to(&self, vcpu: usize) -> u32 {
        select(self.bank.deliverable(), |n| self.is_routed(n, vcpu))
    }

    /// SPIs that are pending for `vcpu`, in a list register or out of it.
    pub(super) fn waiting_for(&self, vcpu: usize) -> u32 {
        select(self.bank.waiting(), |n| self.is_routed(n, vcpu))
    }

    /// vCPUs in whose list registers SPIs stand.
    pub(super) fn listing(&self) -> VcpuSet {
        let listed = (0..32).filter(|&n| self.bank.is_listed(n));
        listed.fold(VcpuSet::default(), |set, n| {
            set.and(VcpuSet::only(self.holders[n as usize].into()))
        })
    }

    /// SPIs that are active on `vcpu` and in no list register.
    pub(super) fn active_on(&self, vcpu: usize) -> u32 {
        select(self.bank.active(), |n| usize::from(self.holders[n as usize]) == vcpu)
    }

    pub(super) fn read(&self, offset: u64) -> u32 {
        match self.version {
            Version::V2 => self.read_v2(offset),
            Version::V3 => self.read_v3(offset),
        }
    }

    pub(super) fn write(&mut self, offset: u64, value: u32, mask: u32) {
        match self.version {
            Version::V2 => self.write_v2(offset, value, mask),
            Version::V3 => self.write_v3(offset, value, mask),
        }
    }

    fn read_v2(&self, offset: u64) -> u32 {
        match offset {
            CTLR => self.enabled.into(),
            TYPER => TYPER_V2 | (self.vcpus as u32 - 1) << TYPER_CPUS,
            PIDR2_V2 => PIDR2_GICV2,
            TARGETS..TARGETS_END => {
                let first = (offset - TARGETS) as usize;
                let mask = |route: u32| 1_u8.checked_shl(route).unwrap_or(0);
                u32::from_le_bytes(core::array::from_fn(|n| {
                    match self.present >> (first + n) & 1 {
                        1 => mask(self.routes[first + n]),
                        _ => 0,
                    }
                }))
            }
            _ if GROUPS.contains(&offset) => 0,
            _ => self.bank.read(1, offset),
        }
    }

    fn write_v2(&mut self, offset: u64, value: u32, mask: u32) {
        match offset {
            CTLR if mask & CTLR_ENABLE != 0 => self.enabled = value & CTLR_ENABLE != 0,
            CTLR => {}
            TARGETS..TARGETS_END => {
                let first = (offset - TARGETS) as usize;
                for (n, (targets, mask)) in
                    value.to_le_bytes().into_iter().zip(mask.to_le_bytes()).enumerate()
                {
                    if mask != 0 {
                        // One of several targets takes the interrupt; here it is always the first.
                        let all = u32::from(targets) & ((1 << self.vcpus) - 1);
                        self.routes[first + n] =
                            if all == 0 { NOBODY } else { all.trailing_zeros() };
                    }
                }
            }
            _ if GROUPS.contains(&offset) => {}
            _ => self.bank.write(1, offset, value, mask),
        }
    }

    fn read_v3(&self, offset: u64) -> u32 {
        match offset {
            CTLR if self.enabled => CTLR_FIXED | CTLR_GROUP1,
            CTLR => CTLR_FIXED,
            TYPER => TYPER_VALUE,
            PIDR2 => PIDR2_GICV3,
            IROUTER..IROUTER_END => self.route(offset).map_or(0, |n| self.routes[n]),
            _ => self.bank.read(1, offset),
        }
    }

    fn write_v3(&mut self, offset: u64, value: u32, mask: u32) {
        match offset {
            CTLR if mask & CTLR_GROUP1 != 0 => self.enabled = value & CTLR_GROUP1 != 0,
            CTLR => {}
            IROUTER..IROUTER_END => {
                if let Some(n) = self.route(offset) {
                    let mask = mask & AFFINITY;
                    self.routes[n] = self.routes[n] & !mask | value & mask;
                }
            }
            _ => self.bank.write(1, offset, value, mask),
        }
    }

    /// The SPI whose route's low word lies at `offset`.
    fn route(&self, offset: u64) -> Option<usize> {
        let (n, low) = ((offset - IROUTER) / 8, offset.is_multiple_of(8));
        (low && self.present >> n & 1 == 1).then_some(n as usize)
    }
}

/// The bits of `map` for whose number `chosen` holds.
fn select(map: u32, chosen: impl Fn(u32) -> bool) -> u32 {
    (0..32).filter(|&n| map >> n & 1 == 1 && chosen(n)).fold(0, |bits, n| bits | 1 << n)
}
