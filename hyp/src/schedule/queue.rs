//! A CPU's own part of the scheduler: its vCPUs, its timer, its sleep.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm;
use aarch64_cpu::asm::barrier::{SY, dsb};
use heapless::Vec;
use rm::config::MAX_VMS;
use spin::Once;

use crate::cpu::{self, MAX_CPUS};
use crate::vcpu::Vcpu;
use crate::vm::{self, Vm};
use crate::{gic, input, log, run, timer, vgic};

/// Time slices a second.
const SLICES: u64 = 1_000;
/// Steps a second for messages that no other entry writes out. Sixteen bytes each, that is more than a
/// UART with 115,200 bits a second sends.
const LOG_STEPS: u64 = 1_000;
/// Steps a second for work that the resource manager has left and nobody's entry brings about.
const STEPS: u64 = 20_000;

/// A CPU's own part.
pub(super) struct Queue {
    /// The vCPUs pinned to the CPU.
    vcpus: Vec<Vcpu, MAX_VMS>,
    /// VMs whose left-over work is stepped here: those whose first vCPU is.
    homes: Vec<&'static Vm, MAX_VMS>,
    /// Who is loaded.
    pub(super) current: Cell<Option<Vcpu>>,
    /// Place in `vcpus` of who had the last turn.
    turn: Cell<usize>,
    /// Somebody on this CPU may be due: set here, read at the end of the stay in EL2.
    pub(super) look_around: Cell<bool>,
    /// When somebody other than the running vCPU is due.
    turn_ends: Cell<Option<u64>>,
    /// More was typed than one entry reads.
    keyboard_waits: Cell<bool>,
    /// What the EL2 timer is set to.
    armed: Cell<Option<u64>>,
    /// When the guest was left.
    pub(super) entered: Cell<u64>,
    /// The longest time between leaving a guest and entering one, without sleep.
    worst: AtomicU64,
}

// SAFETY: the cells are used by the CPU whose queue it is (`Queue::of_this_cpu`), where EL2 runs with
// interrupts masked.
unsafe impl Sync for Queue {}

/// Made by each CPU for itself.
pub(super) static QUEUES: [Once<Queue>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

impl Queue {
    /// The queue of the CPU that runs this code.
    #[inline]
    pub(super) fn of_this_cpu() -> &'static Self {
        QUEUES[cpu::current().index].get().expect("guests run after `start` has made the queue")
    }

    /// A queue of all that is pinned to `cpu`.
    pub(super) fn new(cpu: usize) -> Self {
        let mut queue = Self {
            vcpus: Vec::new(),
            homes: Vec::new(),
            current: Cell::new(None),
            turn: Cell::new(0),
            look_around: Cell::new(false),
            turn_ends: Cell::new(None),
            keyboard_waits: Cell::new(false),
            armed: Cell::new(None),
            entered: Cell::new(timer::now()),
            worst: AtomicU64::new(0),
        };
        for vm in vm::all() {
            if vm.vcpu(0).cpu() == cpu {
                let _ = queue.homes.push(vm);
            }
            for vcpu in vm.vcpus().filter(|vcpu| vm.vcpu(vcpu.index()).cpu() == cpu) {
                let _ = queue.vcpus.push(vcpu);
            }
        }
        queue
    }

    /// The next vCPU that is ready, after the one that had the last turn; it is claimed for this CPU.
    pub(super) fn choose(&self) -> Option<Vcpu> {
        let count = self.vcpus.len();
        for step in 1..=count {
            let place = (self.turn.get() + step) % count;
            if self.vcpus[place].is_ready() && self.vcpus[place].vm().claim() {
                self.turn.set(place);
                return Some(self.vcpus[place]);
            }
        }
        None
    }

    /// Sleeps until a vCPU is ready. The time asleep is not the guest's wait for EL2.
    pub(super) fn idle(&self) -> Vcpu {
        loop {
            self.serve_interrupts();
            let more = self.step() | self.background();
            if let Some(vcpu) = self.choose() {
                self.entered.set(timer::now());
                return vcpu;
            }
            if vm::all_ended() && !more {
                super::rest();
            }
            if more || log::drain() {
                continue;
            }
            self.arm(None);
            // What was written for other CPUs is on its way before this one stops.
            dsb(SY);
            asm::wfi();
        }
    }

    /// One step for every VM at home here that has work left. Whether there is more.
    pub(super) fn step(&self) -> bool {
        self.homes.iter().filter(|vm| vm.has_work()).fold(false, |more, vm| more | vm.step())
    }

    /// One unit of what can wait, for every VM at home here. Whether there is more.
    fn background(&self) -> bool {
        self.homes.iter().fold(false, |more, vm| more | vm.background())
    }

    /// Sets the timer for whoever must be looked at next, while `running` runs, and for left-over work.
    pub(super) fn arm(&self, running: Option<Vcpu>) {
        let now = timer::now();
        let mut at: Option<u64> = None;
        let mut earliest = |candidate: u64| at = Some(at.map_or(candidate, |at| at.min(candidate)));
        for vcpu in &self.vcpus {
            if running.is_some_and(|running| running.is(*vcpu)) {
                continue;
            }
            vcpu.deadline().map(&mut earliest);
            if running.is_some() && vcpu.is_ready() {
                earliest(now + timer::frequency() / SLICES);
            }
        }
        self.turn_ends.set(at);
        self.rearm();
    }

    /// Sets the timer for the end of the turn, for lines that are to be shown, for left-over work
    /// and for the log.
    pub(super) fn rearm(&self) {
        self.disarm();
        let lines = self.vcpus.iter().filter_map(|vcpu| vcpu.vm().line_due());
        if let Some(at) = lines.chain(self.turn_ends.get()).min() {
            self.arm_by(at);
        }
        if self.keyboard_waits.get() || self.homes.iter().any(|vm| vm.has_work()) {
            self.arm_for_work();
        }
        if log::pending() {
            self.arm_for_log();
        }
    }

    fn disarm(&self) {
        timer::disarm();
        self.armed.set(None);
    }

    /// Sets the timer to `at` unless it is set to an earlier moment.
    fn arm_by(&self, at: u64) {
        if self.armed.get().is_none_or(|armed| at < armed) {
            timer::arm(at);
            self.armed.set(Some(at));
        }
    }

    /// Serves what the interrupt controller signals; whether somebody else may be due now.
    pub(super) fn serve_interrupts(&self) -> bool {
        let mut look_around = false;
        while let Some(intid) = gic::acknowledge() {
            gic::end(intid);
            match (intid, self.current.get()) {
                (vgic::TIMER, Some(vcpu)) => {
                    vcpu.vm().vgic().on_virtual_timer(vcpu.vm().machine(), vcpu.index());
                    continue;
                }
                (gic::MAINTENANCE, Some(vcpu)) => vcpu.vm().vgic().on_maintenance(vcpu.index()),
                (gic::EL2_TIMER, _) => {
                    look_around |= self.timer_fired();
                }
                (gic::KICK, _) => look_around = true,
                (intid, _) if intid == run::keyboard() => {
                    self.read_keyboard();
                    continue;
                }
                (32.., _) if vm::device_interrupt(intid) => {
                    look_around = true;
                    continue;
                }
                _ => {}
            }
            gic::deactivate(intid);
        }
        look_around
    }

    /// Reads what was typed. What is too much for one entry is read a little later, and until then the
    /// keyboard does not interrupt.
    fn read_keyboard(&self) {
        let more = input::receive();
        self.keyboard_waits.set(more);
        if more {
            self.arm_for_work();
        } else {
            gic::deactivate(run::keyboard());
        }
    }

    /// The EL2 timer fired: for the end of a turn, which the result says, for a line that is to be shown,
    /// or for left-over work.
    fn timer_fired(&self) -> bool {
        self.disarm();
        if self.keyboard_waits.get() {
            self.read_keyboard();
        }
        for vm in self.vcpus.iter().map(|vcpu| vcpu.vm()) {
            if vm.line_due().is_some_and(|at| at <= timer::now()) {
                vm.show_line();
            }
        }
        if self.turn_ends.get().is_some_and(|at| at <= timer::now()) {
            return true;
        }
        // The running VM's own work is stepped at the end of its stay in EL2.
        let running = self.current.get().map(|vcpu| vcpu.vm().index());
        for vm in self.homes.iter().filter(|vm| Some(vm.index()) != running && vm.has_work()) {
            vm.step();
        }
        self.rearm();
        false
    }

    /// Asks for an entry, which writes a little of the log, soon.
    pub(super) fn arm_for_log(&self) {
        self.arm_by(timer::now() + timer::frequency() / LOG_STEPS);
    }

    /// Asks for a step of left-over work soon.
    pub(super) fn arm_for_work(&self) {
        self.arm_by(timer::now() + timer::frequency() / STEPS);
    }

    /// The longest stay in EL2 on this CPU, in ticks.
    pub(super) fn worst(&self) -> u64 {
        self.worst.load(Ordering::Relaxed)
    }

    /// Notes a stay in EL2 that ends now.
    pub(super) fn note_residency(&self, since: u64) {
        let ticks = timer::now().saturating_sub(since);
        if ticks > self.worst.load(Ordering::Relaxed) {
            self.worst.store(ticks, Ordering::Relaxed);
        }
    }
}
