//! A VM's interrupt controller: a small GICv3, or a GICv2 where the machine has one.
//!
//! Distributor and redistributors are trapped and emulated from the state here; the CPU interface is
//! the hardware's, fed through list registers. A vCPU has sixteen SGIs and the virtual timer (PPI 27),
//! a VM has two SPIs for its mailbox, eight for its doorbells and one for its console. Everything a
//! guest can write is a few words of this state, so no write costs more than a pass over 64
//! interrupts, and none reaches a physical interrupt.
//!
//! **The console's line** is a level. It makes its interrupt pending whenever the state is read back
//! and the line is high; a list register that holds it reports its end, so that it comes again until
//! the guest has served the console.
//!
//! **The virtual timer** is a physical interrupt that the guest's own comparator raises. EL2 takes it
//! and drops its priority but does not deactivate it; a list register with HW set hands it to the
//! guest, whose end of interrupt then deactivates it in hardware. So a tick costs one exit, and
//! between the two the level cannot fire again. When the vCPU leaves its CPU, EL2 deactivates the
//! interrupt itself: a pending tick is forgotten, because the level raises it anew when the vCPU is
//! back, and one that the guest is just serving is tied to the physical interrupt again as soon as
//! that fires. No other VM ever finds the physical interrupt blocked.
//!
//! **Devices that a VM drives itself** interrupt in the same way as its timer: EL2 takes the physical
//! interrupt, drops its priority, and a list register with HW set lets the guest's end deactivate it.
//! Since these are shared interrupts, none of it depends on the CPU. While the VM is down its interrupts
//! stay active, so they do not come again before it starts.
//!
//! **The two versions** differ in what the distributor shows and in how an SGI is sent. A GICv2 has the
//! registers of a vCPU's own interrupts in the distributor, where each vCPU sees its own; behind
//! [`Place::at`] they are those of a redistributor.
//!
//! `VirtualGic` is only logic and runs on the host too. `interface` holds the lock, `hardware` the
//! registers.

mod bank;
mod distributor;
#[cfg(target_os = "none")]
mod hardware;
#[cfg(target_os = "none")]
mod interface;
mod lists;
mod redistributor;
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "for the registers of the target"))]
mod translate;

#[cfg(test)]
mod tests;

use distributor::{Distributor, SPI_BASE};
#[cfg(target_os = "none")]
pub use interface::Vgic;
use redistributor::{Interface, SGI_FRAME, STRIDE};

/// vCPUs that a VM may have.
pub const MAX_VCPUS: usize = 2;
/// INTID of the virtual timer, physical and virtual.
pub const TIMER: u32 = 27;
/// INTID of a VM's console, whose line is a level.
pub const CONSOLE: u32 = 42;
/// Guest address of the distributor, 64 KiB.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// Guest address of the first vCPU's redistributor; the others follow at intervals of 128 KiB.
pub const REDISTRIBUTORS: u64 = 0x080a_0000;
/// Bytes of one vCPU's redistributor.
pub const REDISTRIBUTOR_SIZE: u64 = STRIDE;

/// Bytes of the distributor.
pub const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// Guest address of a GICv2's CPU interface, which is the hardware's virtual one.
pub const CPU_INTERFACE: u64 = 0x0801_0000;
/// Bytes of the CPU interface.
pub const CPU_INTERFACE_SIZE: u64 = 0x2000;

/// Physical interrupts that stand behind a VM's, of devices that it drives itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wires {
    /// The physical INTID of each shared interrupt; 0 for none.
    physical: [u16; 32],
    /// Those that are edges.
    edges: u32,
}

impl Wires {
    /// Puts a physical interrupt behind a VM's. Nothing happens for an INTID that a VM does not have.
    pub fn connect(&mut self, intid: u32, physical: u32, edge: bool) {
        let n = intid.wrapping_sub(SPI_BASE) as usize;
        if let Some(wire) = self.physical.get_mut(n) {
            *wire = physical as u16;
            self.edges |= u32::from(edge) << n;
        }
    }

    /// The VM's interrupt in front of a physical one.
    pub fn virtual_of(&self, physical: u32) -> Option<u32> {
        let wires = self.physical.iter();
        let n = wires.zip(0..).find(|&(&wire, _)| wire != 0 && u32::from(wire) == physical)?.1;
        Some(SPI_BASE + n)
    }

    /// All physical interrupts.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.physical.iter().filter(|&&wire| wire != 0).map(|&wire| wire.into())
    }

    /// The shared interrupts that have one, as bits.
    fn map(&self) -> u32 {
        (0..32).filter(|&n| self.physical[n] != 0).fold(0, |map, n| map | 1 << n)
    }
}

/// Which controller a VM sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Distributor and CPU interface in memory.
    V2,
    /// Affinity routing, redistributors, a CPU interface of system registers.
    V3,
}

/// A set of a VM's vCPUs, by index.
#[must_use = "the vCPUs must hear of what changed"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSet(u8);

impl VcpuSet {
    /// All vCPUs of a VM that has this many.
    pub const fn all(count: usize) -> Self {
        Self((1 << count) - 1)
    }

    /// The set of one.
    pub const fn only(vcpu: usize) -> Self {
        Self(1 << vcpu)
    }

    /// Whether the vCPU is in the set.
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 >> vcpu & 1 == 1
    }

    /// The set with those of another.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without one vCPU.
    pub const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !(1 << vcpu))
    }

    /// Its members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_VCPUS).filter(move |&vcpu| self.contains(vcpu))
    }
}

/// A register of the controller, as a guest's access names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Offset into the distributor.
    Distributor(u64),
    /// A vCPU's redistributor and the offset into it.
    Redistributor(usize, u64),
    /// GICv2: where a vCPU's own interrupts go, which is to itself.
    OwnTargets(usize),
    /// GICv2: the register by which a vCPU sends an SGI.
    SoftwareInterrupt(usize),
}

impl Place {
    /// What `vcpu` finds at a guest address; `None` where a VM of any size has nothing of its controller.
    pub fn at(ipa: u64, version: Version, vcpu: usize) -> Option<Self> {
        if let Some(offset) = ipa.checked_sub(REDISTRIBUTORS).filter(|_| version == Version::V3) {
            let owner = offset / STRIDE;
            return (owner < MAX_VCPUS as u64)
                .then_some(Self::Redistributor(owner as usize, offset % STRIDE));
        }
        let offset = ipa.checked_sub(DISTRIBUTOR).filter(|&offset| offset < DISTRIBUTOR_SIZE)?;
        Some(match version {
            Version::V3 => Self::Distributor(offset),
            Version::V2 => Self::of_v2(offset, vcpu),
        })
    }

    /// What lies at an offset of a GICv2's distributor (IHI 0048B, 4.3). The first word of each kind of
    /// register is about a CPU's own interrupts.
    fn of_v2(offset: u64, vcpu: usize) -> Self {
        let own_bits = (0x100..0x400).contains(&offset) && offset % 0x80 < 4;
        match offset {
            0x400..0x420 | 0xc00..0xc08 => Self::Redistributor(vcpu, SGI_FRAME + offset),
            0x800..0x820 => Self::OwnTargets(vcpu),
            0xf00..0xf04 => Self::SoftwareInterrupt(vcpu),
            _ if own_bits => Self::Redistributor(vcpu, SGI_FRAME + offset),
            _ => Self::Distributor(offset),
        }
    }

    /// The place `bytes` further on.
    fn add(self, bytes: u64) -> Self {
        match self {
            Self::Distributor(offset) => Self::Distributor(offset + bytes),
            Self::Redistributor(vcpu, offset) => Self::Redistributor(vcpu, offset + bytes),
            Self::OwnTargets(_) | Self::SoftwareInterrupt(_) => self,
        }
    }

    /// The word that holds the place.
    fn word(self) -> Self {
        match self {
            Self::Distributor(offset) => Self::Distributor(offset & !3),
            Self::Redistributor(vcpu, offset) => Self::Redistributor(vcpu, offset & !3),
            Self::OwnTargets(_) | Self::SoftwareInterrupt(_) => self,
        }
    }

    fn offset(self) -> u64 {
        match self {
            Self::Distributor(offset) | Self::Redistributor(_, offset) => offset,
            Self::OwnTargets(_) | Self::SoftwareInterrupt(_) => 0,
        }
    }
}

/// State of one VM's controller.
#[derive(Clone, Debug)]
struct VirtualGic {
    version: Version,
    vcpus: usize,
    distributor: Distributor,
    interfaces: [Interface; MAX_VCPUS],
}

impl VirtualGic {
    fn new(vcpus: usize, version: Version, wires: Wires) -> Self {
        assert!((1..=MAX_VCPUS).contains(&vcpus), "a VM has 1 to {MAX_VCPUS} vCPUs");
        Self {
            version,
            vcpus,
            distributor: Distributor::new(version, vcpus, wires),
            interfaces: core::array::from_fn(|_| Interface::new()),
        }
    }

    fn all(&self) -> VcpuSet {
        VcpuSet::all(self.vcpus)
    }

    /// Whether the VM has the place. An access to a redistributor of a vCPU it lacks is a fault.
    fn has(&self, place: Place) -> bool {
        !matches!(place, Place::Redistributor(vcpu, _) if vcpu >= self.vcpus)
    }

    /// A guest's read of 1, 2, 4 or 8 bytes. An unaligned one reads as zero.
    fn read(&self, place: Place, size: u64) -> u64 {
        let offset = place.offset();
        if !offset.is_multiple_of(size) {
            return 0;
        }
        if size == 8 {
            let (low, high) = (self.read_word(place), self.read_word(place.add(4)));
            return u64::from(high) << 32 | u64::from(low);
        }
        let lane = (offset % 4) as u32 * 8;
        let mask = u32::MAX >> (32 - 8 * size as u32);
        u64::from(self.read_word(place.word()) >> lane & mask)
    }

    /// A guest's write of 1, 2, 4 or 8 bytes; tells which vCPUs' interrupts it may have changed. An
    /// unaligned one is ignored.
    fn write(&mut self, place: Place, size: u64, value: u64) -> VcpuSet {
        let offset = place.offset();
        if offset.is_multiple_of(size) {
            if size == 8 {
                self.write_word(place, value as u32, u32::MAX);
                self.write_word(place.add(4), (value >> 32) as u32, u32::MAX);
            } else {
                let lane = (offset % 4) as u32 * 8;
                let mask = (u32::MAX >> (32 - 8 * size as u32)) << lane;
                self.write_word(place.word(), (value as u32) << lane, mask);
            }
        }
        match place {
            Place::Distributor(_) => self.all(),
            Place::Redistributor(vcpu, _) | Place::OwnTargets(vcpu) => VcpuSet::only(vcpu),
            Place::SoftwareInterrupt(vcpu) => self.send_software_interrupt(vcpu, value as u32),
        }
    }

    fn read_word(&self, place: Place) -> u32 {
        match place {
            Place::Distributor(offset) => self.distributor.read(offset),
            Place::Redistributor(vcpu, offset) => {
                self.interfaces[vcpu].read(vcpu, vcpu + 1 == self.vcpus, offset)
            }
            Place::OwnTargets(vcpu) => u32::from_le_bytes([1 << vcpu; 4]),
            Place::SoftwareInterrupt(_) => 0,
        }
    }

    fn write_word(&mut self, place: Place, value: u32, mask: u32) {
        match place {
            Place::Distributor(offset) => self.distributor.write(offset, value, mask),
            Place::Redistributor(vcpu, offset) => {
                self.interfaces[vcpu].write(offset, value, mask);
            }
            Place::OwnTargets(_) | Place::SoftwareInterrupt(_) => {}
        }
    }

    /// Makes a shared interrupt pending; tells whose it is. Nothing happens for an INTID that a VM
    /// does not have.
    fn raise(&mut self, intid: u32) -> VcpuSet {
        let Some(n) = intid.checked_sub(SPI_BASE).filter(|&n| n < 32) else {
            return VcpuSet::default();
        };
        self.distributor.bank.raise(n);
        self.target(n)
    }

    /// The vCPU that SPI number `n` goes to.
    fn target(&self, n: u32) -> VcpuSet {
        let target = (0..self.vcpus).find(|&vcpu| self.distributor.is_routed(n, vcpu));
        target.map_or(VcpuSet::default(), VcpuSet::only)
    }

    /// Sets the line of a shared interrupt; tells whose interrupts that may have changed.
    fn set_line(&mut self, intid: u32, high: bool) -> VcpuSet {
        let Some(n) = intid.checked_sub(SPI_BASE).filter(|&n| n < 32) else {
            return VcpuSet::default();
        };
        self.distributor.set_line(n, high);
        let is_routed = |&vcpu: &usize| self.distributor.is_routed(n, vcpu);
        let target = (0..self.vcpus).find(is_routed).map_or(VcpuSet::default(), VcpuSet::only);
        // One that is to be served may have been routed elsewhere since.
        target.and(self.distributor.listing())
    }

    /// The physical interrupt behind a shared one came, and is active until the guest has ended the virtual
    /// one; tells whose it is.
    fn take_physical(&mut self, intid: u32) -> VcpuSet {
        let n = intid - SPI_BASE;
        self.distributor.take_physical(n);
        match self.distributor.late_holder(n) {
            Some(vcpu) => VcpuSet::only(vcpu),
            None => self.target(n),
        }
    }

    /// `vcpu` wrote `value` to ICC_SGI1R_EL1; tells which vCPUs got the interrupt. Affinities other
    /// than 0.0.0.n name nobody.
    fn send_sgi(&mut self, vcpu: usize, value: u64) -> VcpuSet {
        let intid = (value >> 24 & 0xf) as u32;
        let all_others = value >> 40 & 1 == 1;
        let higher_affinity = value & 0x00ff_f0ff_00ff_0000 & !(1 << 40);
        let targets = if all_others {
            self.all().without(vcpu)
        } else if higher_affinity == 0 {
            VcpuSet(value as u8 & self.all().0)
        } else {
            VcpuSet::default()
        };
        self.raise_own(targets, intid)
    }

    /// `vcpu` wrote `value` to GICD_SGIR (IHI 0048B, 4.3.15); tells which vCPUs got the interrupt.
    fn send_software_interrupt(&mut self, vcpu: usize, value: u32) -> VcpuSet {
        let targets = match value >> 24 & 0b11 {
            0b00 => VcpuSet((value >> 16) as u8 & self.all().0),
            0b01 => self.all().without(vcpu),
            0b10 => VcpuSet::only(vcpu),
            _ => VcpuSet::default(),
        };
        self.raise_own(targets, value & 0xf)
    }

    /// Makes an interrupt of their own pending for some vCPUs.
    fn raise_own(&mut self, targets: VcpuSet, intid: u32) -> VcpuSet {
        for target in targets.iter() {
            self.interfaces[target].bank.raise(intid);
        }
        targets
    }

    /// The physical timer interrupt came while `vcpu` was loaded. Called after a fold.
    fn take_timer(&mut self, vcpu: usize) {
        let interface = &mut self.interfaces[vcpu];
        if core::mem::take(&mut interface.timer_fired) {
            interface.timer_in_flight = true;
            interface.bank.raise_unless_active(TIMER);
        }
    }

    /// Unties the timer from its physical interrupt because `vcpu` leaves its CPU. Called after a
    /// fold; tells whether the physical interrupt must be deactivated.
    fn release_timer(&mut self, vcpu: usize) -> bool {
        let interface = &mut self.interfaces[vcpu];
        let fired = core::mem::take(&mut interface.timer_fired);
        let in_flight = core::mem::take(&mut interface.timer_in_flight);
        interface.bank.withdraw(1 << TIMER);
        fired || in_flight
    }

    /// Whether an interrupt waits that `vcpu`'s CPU interface would signal.
    fn has_pending(&self, vcpu: usize) -> bool {
        let group = match self.version {
            Version::V2 => 1 << 0,
            Version::V3 => 1 << 1,
        };
        let interface = &self.interfaces[vcpu];
        let mask = (interface.control >> 24) as u8;
        let waiting = join(interface.bank.waiting(), self.distributor.waiting_for(vcpu));
        self.distributor.is_enabled()
            && interface.control & group != 0
            && lists::intids(waiting).any(|intid| self.priority(vcpu, intid) < mask)
    }

    /// Interrupts to deliver to `vcpu`, as a map of INTIDs.
    fn deliverable(&self, vcpu: usize) -> u64 {
        if !self.distributor.is_enabled() {
            return 0;
        }
        let own = self.interfaces[vcpu].bank.deliverable();
        join(own, self.distributor.deliverable_to(vcpu))
    }

    /// Interrupts that are active on `vcpu` but in none of its list registers, as a map of INTIDs.
    fn active(&self, vcpu: usize) -> u64 {
        join(self.interfaces[vcpu].bank.active(), self.distributor.active_on(vcpu))
    }

    /// vCPUs other than `vcpu` that may have SPIs of the map delivered.
    fn others_served(&self, vcpu: usize, shared: u32) -> VcpuSet {
        let is_served = |&other: &usize| {
            (0..32).any(|n| shared >> n & 1 == 1 && self.distributor.is_routed(n, other))
        };
        let others = self.all().without(vcpu);
        others
            .iter()
            .filter(is_served)
            .fold(VcpuSet::default(), |set, other| set.and(VcpuSet::only(other)))
    }

    /// Running vCPUs other than `vcpu` whose list registers know better than the word at `place`.
    fn lagging(&self, vcpu: usize, place: Place) -> VcpuSet {
        let is_state = matches!(place, Place::Distributor(0x200..0x400));
        let holders = if is_state { self.distributor.listing() } else { VcpuSet::default() };
        holders.without(vcpu)
    }

    fn priority(&self, vcpu: usize, intid: u32) -> u8 {
        if intid < SPI_BASE {
            self.interfaces[vcpu].bank.priority(intid)
        } else {
            self.distributor.bank.priority(intid - SPI_BASE)
        }
    }
}

/// A map of INTIDs from the ones a vCPU has for itself and the shared ones.
fn join(own: u32, shared: u32) -> u64 {
    u64::from(shared) << SPI_BASE | u64::from(own)
}
