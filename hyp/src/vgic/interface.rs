//! A VM's controller on a CPU: the lock, and when the hardware's part of it is read and written.

use core::mem::take;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::*;
use rm::lock::{Guard, Lock, Rank, Strategy};
use rm::machine::Machine;

use super::hardware::{ActivePriorities, Hardware};
use super::lists::MAX_LISTS;
use super::{MAX_VCPUS, Place, TIMER, VcpuSet, Version, VirtualGic, Wires};
use crate::gic;

/// A VM's interrupts and the CPU interfaces of those of its vCPUs that are on no CPU.
struct State {
    gic: VirtualGic,
    active_priorities: [ActivePriorities; MAX_VCPUS],
    /// vCPUs that must hear of a change and have not yet been reported to a caller.
    owed: VcpuSet,
}

/// One VM's interrupt controller. Methods that name a vCPU as *loaded* are for the CPU on which it is
/// ([`Vgic::load`] to [`Vgic::save`]).
pub struct Vgic<R> {
    version: Version,
    wires: Wires,
    state: Lock<State, R>,
    /// vCPUs whose list registers must be chosen anew before they run on.
    changed: [AtomicBool; MAX_VCPUS],
}

impl<R: Strategy> Vgic<R> {
    /// The controller of a VM with that many vCPUs and devices of its own, as after a reset.
    pub fn new(vcpus: usize, wires: Wires) -> Self {
        let version = Version::found();
        let state = State {
            gic: VirtualGic::new(vcpus, version, wires),
            active_priorities: [ActivePriorities::default(); MAX_VCPUS],
            owed: VcpuSet::default(),
        };
        Self {
            version,
            wires,
            state: Lock::new(Rank::VirtualGic, state),
            changed: Default::default(),
        }
    }

    /// Makes the controller as new. None of the vCPUs is loaded.
    pub fn reset<M: Machine<Relax = R>>(&self, machine: &M) {
        let mut state = self.lock(machine);
        state.gic = VirtualGic::new(state.gic.vcpus, self.version, self.wires);
        state.active_priorities = [ActivePriorities::default(); MAX_VCPUS];
        state.owed = VcpuSet::default();
        // What came meanwhile, or was never ended, may come again.
        self.wires.all().for_each(gic::deactivate_shared);
    }

    /// Which controller the VM sees.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Puts the vCPU's interrupts on this CPU. Called once before the first of a series of entries.
    pub fn load<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize) {
        let mut state = self.lock(machine);
        self.changed[vcpu].store(false, Ordering::Relaxed);
        let hardware = Hardware::found();
        hardware.set_control(state.gic.interfaces[vcpu].control);
        hardware.set_active_priorities(&state.active_priorities[vcpu]);
        let lists = state.gic.fill(vcpu, hardware.list_count());
        hardware.write_lists(&lists);
    }

    /// Takes the vCPU's interrupts off this CPU, where no guest runs until the next [`Vgic::load`].
    /// Gives the other vCPUs that must hear of it.
    pub fn save<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize) -> VcpuSet {
        let mut state = self.lock(machine);
        let others = fold(&mut state.gic, vcpu).and(take(&mut state.owed));
        let hardware = Hardware::found();
        hardware.disable();
        if state.gic.release_timer(vcpu) {
            gic::deactivate(TIMER);
        }
        state.active_priorities[vcpu] = hardware.active_priorities();
        drop(state);
        self.mark(others);
        others
    }

    /// Brings the list registers of a loaded vCPU up to date; called before every entry. Costs one
    /// load while nothing changed.
    ///
    /// Gives the other vCPUs that must hear of it: each is to leave its guest or its sleep.
    #[inline]
    pub fn refresh<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize) -> VcpuSet {
        if !self.changed[vcpu].load(Ordering::Relaxed) {
            return VcpuSet::default();
        }
        let mut state = self.update(machine, vcpu);
        take(&mut state.owed)
    }

    /// Reads a register for a guest; `None` where the VM has none, which is an external abort. The
    /// vCPU is loaded.
    pub fn read<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        vcpu: usize,
        place: Place,
        size: u8,
    ) -> Option<u64> {
        // What the vCPU's own list registers say is part of what it may read. What another vCPU's
        // say is only asked for: the guest polls.
        let mut state = self.update(machine, vcpu);
        let lagging = state.gic.lagging(vcpu, place);
        self.owe(&mut state, vcpu, lagging);
        state.gic.has(place).then(|| state.gic.read(place, size.into()))
    }

    /// Writes a register for a guest; `None` where the VM has none, which is an external abort.
    /// Otherwise the other vCPUs that must hear of it.
    pub fn write<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        vcpu: usize,
        place: Place,
        size: u8,
        value: u64,
    ) -> Option<VcpuSet> {
        let mut state = self.lock(machine);
        if !state.gic.has(place) {
            return None;
        }
        let affected = state.gic.write(place, size.into(), value);
        drop(state);
        self.mark(affected);
        Some(affected.without(vcpu))
    }

    /// Makes a shared interrupt pending. Gives the vCPU that must hear of it.
    pub fn raise<M: Machine<Relax = R>>(&self, machine: &M, intid: u32) -> VcpuSet {
        let target = self.lock(machine).gic.raise(intid);
        self.mark(target);
        target
    }

    /// The physical interrupt of a device of the VM was acknowledged and its priority dropped ([`gic::end`]);
    /// the caller does not deactivate it. Gives the vCPU that must hear of it; `None` if it is no interrupt
    /// of this VM.
    pub fn on_device<M: Machine<Relax = R>>(&self, machine: &M, physical: u32) -> Option<VcpuSet> {
        let intid = self.wires.virtual_of(physical)?;
        let target = self.lock(machine).gic.take_physical(intid);
        self.mark(target);
        Some(target)
    }

    /// Whether a physical interrupt is one of the VM's.
    pub fn has_wire(&self, physical: u32) -> bool {
        self.wires.virtual_of(physical).is_some()
    }

    /// Sets the line of a shared interrupt. Gives the vCPUs that must hear of it.
    pub fn set_line<M: Machine<Relax = R>>(&self, machine: &M, intid: u32, high: bool) -> VcpuSet {
        let targets = self.lock(machine).gic.set_line(intid, high);
        self.mark(targets);
        targets
    }

    /// `vcpu` wrote `value` to ICC_SGI1R_EL1. Gives the other vCPUs that must hear of it.
    pub fn send_sgi<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize, value: u64) -> VcpuSet {
        let targets = self.lock(machine).gic.send_sgi(vcpu, value);
        self.mark(targets);
        targets.without(vcpu)
    }

    /// The physical interrupt [`TIMER`] was acknowledged on this CPU, where the vCPU is loaded, and
    /// its priority dropped ([`gic::end`]). The caller does not deactivate it.
    pub fn on_virtual_timer<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize) {
        if CNTV_CTL_EL0.matches_all(
            CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR + CNTV_CTL_EL0::ISTATUS::SET,
        ) {
            self.lock(machine).gic.interfaces[vcpu].timer_fired = true;
            self.mark(VcpuSet::only(vcpu));
        } else {
            // It fired for a vCPU that was here before and has been switched away from.
            gic::deactivate(TIMER);
        }
    }

    /// The maintenance interrupt came: the loaded vCPU ended an interrupt whose end was asked for.
    pub fn on_maintenance(&self, vcpu: usize) {
        // It is a level, which the list registers hold until they are written on the way back.
        Hardware::found().pause();
        self.mark(VcpuSet::only(vcpu));
    }

    /// Whether an interrupt waits that would wake the vCPU, which is not loaded, from WFI. Its timer
    /// is not considered: its comparator is among the saved registers, and whoever put the vCPU to
    /// sleep watches that.
    pub fn has_pending<M: Machine<Relax = R>>(&self, machine: &M, vcpu: usize) -> bool {
        self.lock(machine).gic.has_pending(vcpu)
    }

    fn lock<'a, M: Machine<Relax = R>>(&'a self, machine: &'a M) -> Guard<'a, State, R> {
        self.state.lock(machine)
    }

    fn mark(&self, vcpus: VcpuSet) {
        for vcpu in vcpus.iter() {
            // The state it is about was changed under the lock, and whoever sees the mark takes it.
            self.changed[vcpu].store(true, Ordering::Release);
        }
    }

    /// Notes that other vCPUs must hear of something, which the next [`Vgic::refresh`] of the loaded
    /// vCPU reports.
    fn owe(&self, state: &mut State, vcpu: usize, others: VcpuSet) {
        if others != VcpuSet::default() {
            state.owed = state.owed.and(others);
            self.mark(others.and(VcpuSet::only(vcpu)));
        }
    }

    /// Reads the loaded vCPU's list registers back and chooses them anew.
    #[cold]
    fn update<'a, M: Machine<Relax = R>>(
        &'a self,
        machine: &'a M,
        vcpu: usize,
    ) -> Guard<'a, State, R> {
        let mut state = self.lock(machine);
        self.changed[vcpu].store(false, Ordering::Relaxed);
        let others = fold(&mut state.gic, vcpu);
        let hardware = Hardware::found();
        let lists = state.gic.fill(vcpu, hardware.list_count());
        hardware.write_lists(&lists);
        self.owe(&mut state, vcpu, others);
        state
    }
}

/// Reads everything back that the hardware may have changed, except the active priorities. Gives the
/// other vCPUs for which that set interrupts free.
fn fold(gic: &mut VirtualGic, vcpu: usize) -> VcpuSet {
    let hardware = Hardware::found();
    let mut registers = [0; MAX_LISTS];
    for (n, register) in registers[..hardware.list_count()].iter_mut().enumerate() {
        *register = hardware.read_list(n);
    }
    gic.interfaces[vcpu].control = hardware.control();
    gic.fold(vcpu, &registers, hardware.unlisted_ends())
}
