//! The VMs: what EL2 keeps of each beside what the resource manager does.

mod build;
mod channels;
mod console;
mod life;

use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

use heapless::Vec;
use package::{Name, OnFault, Start};
use rm::address::{Ipa, VmIndex};
use rm::config::MAX_VMS;
use rm::machine;
use rm::operation::STEP;
use rm::operation::budget::Budget;
use rm::stage2::Access;
use spin::Once;

use crate::console::{CONSOLE, CONSOLE_SIZE};
use crate::machine::El2;
use crate::rate::{self, Notes};
use crate::vcpu::{self, Vcpu};
use crate::vgic::{Place, VcpuSet, Vgic};
use crate::{Exit, run, schedule, timer};
use console::Terminal;
use life::Life;

pub(crate) use build::{build, connect_interrupts};
pub(crate) use life::End;

/// The resource manager over this machine.
pub(crate) type Manager = rm::manager::Manager<'static, El2>;

/// One VM.
pub(crate) struct Vm {
    index: VmIndex,
    name: Name,
    on_fault: OnFault,
    manager: &'static Manager,
    vttbr: u64,
    vgic: Vgic<crate::Relax>,
    terminal: Terminal,
    vcpus: [vcpu::State; package::MAX_VCPUS],
    vcpu_count: usize,
    /// vCPUs that are not switched off.
    vcpus_on: AtomicU8,
    /// Which of them start by themselves.
    start: Start,
    /// Its memory, as guest physical addresses.
    memory: Range<u64>,
    /// What lies there when it starts, as it is in the package.
    loads: Vec<(Ipa, &'static [u8]), MAX_LOADS>,
    /// It is reset by others only.
    waits: bool,
    life: Life,
    notes: Notes,
}

/// What a VM can start with: program, device tree, initial RAM disk.
const MAX_LOADS: usize = 3;

/// INTID of a VM's interrupt for room in its queue to the manager.
const MAILBOX_SEND: u32 = 32;
/// INTID of a VM's interrupt for packets in its queue from the manager.
const MAILBOX_RECEIVE: u32 = 33;
/// INTID of a VM's first doorbell.
const DOORBELLS: u32 = 34;

static VMS: [Once<Vm>; MAX_VMS] = [const { Once::new() }; MAX_VMS];

/// All VMs.
pub(crate) fn all() -> impl Iterator<Item = &'static Vm> {
    VMS.iter().map_while(Once::get)
}

impl Vm {
    pub(crate) const fn index(&self) -> VmIndex {
        self.index
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) const fn on_fault(&self) -> OnFault {
        self.on_fault
    }

    pub(crate) const fn manager(&self) -> &'static Manager {
        self.manager
    }

    pub(crate) fn machine(&self) -> &'static El2 {
        self.manager.machine()
    }

    /// What VTTBR_EL2 holds while the VM runs.
    pub(crate) const fn vttbr(&self) -> u64 {
        self.vttbr
    }

    pub(crate) const fn vgic(&self) -> &Vgic<crate::Relax> {
        &self.vgic
    }

    /// State of vCPU `index`.
    pub(crate) fn vcpu(&self, index: usize) -> &vcpu::State {
        &self.vcpus[index]
    }

    /// The vCPUs of this VM.
    pub(crate) fn vcpus(&'static self) -> impl Iterator<Item = Vcpu> {
        (0..self.vcpu_count).map(move |index| Vcpu::new(self, index))
    }

    /// Whether the tables let the VM use the page so.
    pub(crate) fn allows(&self, at: Ipa, access: Access) -> bool {
        self.manager.allows(self.index, at, access).is_some()
    }

    /// Whether there is work left for the VM: calls, its end, its start.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.manager.pending(self.index) || self.has_life_to_do()
    }

    /// One step of that work. Whether there is more.
    pub(crate) fn step(&'static self) -> bool {
        if self.has_life_to_do() {
            self.step_life();
        }
        if let Some(code) = self.manager.step(self.index, &mut Budget::new(STEP)) {
            self.end(End::Exit(code));
        }
        let more = self.has_work();
        if !more && self.is_over() {
            // Also those that sleep: with the last VM their work is done.
            (0..run::cpus()).for_each(run::kick);
        }
        more
    }

    /// One unit of work that can wait. Whether there is more.
    pub(crate) fn background(&self) -> bool {
        self.manager.idle(self.index)
    }

    /// Logs something that the guest can bring about at will: a few times a second, then only counts.
    pub(crate) fn note(&self, log: impl FnOnce(&str)) {
        match self.notes.allow(timer::now(), timer::frequency()) {
            rate::Verdict::Log { suppressed: 0 } => log(self.name()),
            rate::Verdict::Log { suppressed } => {
                defmt::warn!("{=str}: {=u32} messages were suppressed", self.name(), suppressed);
                log(self.name());
            }
            rate::Verdict::Suppress => {}
        }
    }

    /// A guest's access to a device of its own; `None` if there is none at `at`.
    pub(crate) fn mmio(&self, vcpu: usize, at: Ipa, size: u8, write: Option<u64>) -> Option<u64> {
        if let Some(offset) = at.0.checked_sub(CONSOLE).filter(|&offset| offset < CONSOLE_SIZE) {
            return Some(self.console(offset, write));
        }
        let place = Place::at(at.0, self.vgic.version(), vcpu)?;
        let Some(value) = write else {
            return self.vgic.read(self.machine(), vcpu, place, size);
        };
        let others = self.vgic.write(self.machine(), vcpu, place, size, value)?;
        self.kick(others);
        Some(0)
    }

    /// Makes the CPUs of these vCPUs look around.
    pub(crate) fn kick(&self, vcpus: VcpuSet) {
        for vcpu in vcpus.iter() {
            run::kick(self.vcpus[vcpu].cpu());
        }
    }

    /// How many vCPUs run when the VM starts.
    fn starting(&self) -> u8 {
        match self.start {
            Start::All => self.vcpu_count as u8,
            Start::First => 1,
        }
    }

    /// A vCPU is switched on, by another one.
    pub(crate) fn vcpu_on(&self) {
        self.vcpus_on.fetch_add(1, Ordering::Relaxed);
    }

    /// A vCPU switched itself off. The last one takes the VM along: nobody could switch it on again.
    pub(crate) fn vcpu_off(&self) {
        if self.vcpus_on.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.end(End::PowerOff);
        }
    }
}

/// Raises an interrupt of a VM. Test programs have a manager without VMs that run; those hear nothing.
pub(crate) fn interrupt(vm: VmIndex, line: machine::Line) {
    if let Some(vm) = VMS[usize::from(vm.0)].get() {
        let intid = match line {
            machine::Line::Send => MAILBOX_SEND,
            machine::Line::Receive => MAILBOX_RECEIVE,
            machine::Line::Doorbell(n) => DOORBELLS + u32::from(n),
        };
        let targets = vm.vgic.raise(vm.machine(), intid);
        vm.kick_others(targets);
    }
}

/// A physical interrupt came that may be a device's of a VM; whether it is one's. Its VM ends it, or its
/// next life does.
pub(crate) fn device_interrupt(physical: u32) -> bool {
    let Some(vm) = all().find(|vm| vm.vgic.has_wire(physical)) else { return false };
    if !vm.has_ended()
        && let Some(targets) = vm.vgic.on_device(vm.machine(), physical)
    {
        vm.kick(targets);
    }
    true
}

/// The resource manager wants a VM ended.
pub(crate) fn stop(vm: VmIndex) {
    if let Some(vm) = VMS[usize::from(vm.0)].get() {
        vm.end(End::Stopped);
    }
}

/// The resource manager wants a VM started that it has reset.
pub(crate) fn start(vm: VmIndex) {
    if let Some(vm) = VMS[usize::from(vm.0)].get() {
        vm.begin_load();
    }
}

/// The resource manager has steps to do for a VM that does not run.
pub(crate) fn work(vm: VmIndex) {
    if let Some(vm) = VMS[usize::from(vm.0)].get() {
        vm.kick_home();
    }
}

/// Whether no VM will run any more.
pub(crate) fn all_ended() -> bool {
    all().all(Vm::is_over)
}

/// Whether every page is where it belongs (G8).
fn audit() -> bool {
    let manager = all().next().expect("a package has a VM").manager;
    match manager.audit() {
        Ok(report) => defmt::info!("conservation holds: {}", report),
        Err(broken) => {
            defmt::error!("conservation is broken: {}", broken);
            return false;
        }
    }
    true
}

/// Checks that nothing was lost, and ends the run. No other CPU does anything any more.
pub(crate) fn finish() -> ! {
    let failed = all().find(|vm| !vm.last_end().is_some_and(End::is_success));
    // Before the audit, which has the machine to itself.
    #[cfg(feature = "lock-times")]
    defmt::info!("longest lock hold: {=u64} ticks", crate::lock_times::longest());
    let conserved = audit();
    defmt::info!("worst stay in EL2: {=u64} ticks", schedule::worst_residency());
    match (failed, conserved) {
        (_, false) => crate::exit(Exit::Fail, "conservation"),
        (Some(vm), true) => crate::exit(Exit::Fail, vm.name()),
        (None, true) => crate::exit(Exit::Pass, "all VMs ended well"),
    }
}
