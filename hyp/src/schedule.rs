//! Which vCPU runs: round robin on each CPU, with time slices, and sleep when nobody wants it.
//!
//! A vCPU is pinned to a CPU, so a CPU's queue is its own and needs no lock. Others change what it
//! finds (an interrupt for a sleeping vCPU, a VM that ended) and then send it the kick, an SGI.
//!
//! Work that the resource manager has left is stepped at entries of its VM, at each turn, and by the
//! EL2 timer while there is some.

mod queue;

use core::sync::atomic::{AtomicUsize, Ordering};

use aarch64_cpu::asm;
use spin::Once;

use crate::trap::Next;
use crate::vcpu::Vcpu;
use crate::vcpu::context::Registers;
use crate::{cpu, log, run, timer, vm};
use queue::{QUEUES, Queue};

/// The vCPU that trapped.
#[inline]
pub(crate) fn current() -> Vcpu {
    Queue::of_this_cpu().current.get().expect("a trap from a guest comes from the loaded vCPU")
}

/// The vCPU that this CPU will go back to unless somebody else is due.
pub(crate) fn loaded() -> Option<Vcpu> {
    Queue::of_this_cpu().current.get()
}

/// Serves the physical interrupts that wait.
pub(crate) fn interrupts() -> Next {
    if Queue::of_this_cpu().serve_interrupts() { Next::Leave } else { Next::Resume }
}

/// Makes this CPU ask who is due before it returns to a guest.
pub(crate) fn look_around() {
    Queue::of_this_cpu().look_around.set(true);
}

/// Sets this CPU's timer anew: what an unfinished line of a console waits for has changed.
pub(crate) fn rearm() {
    Queue::of_this_cpu().rearm();
}

/// One stay in EL2, from a guest's exit on.
pub(crate) struct Entry {
    since: u64,
}

impl Entry {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { since: timer::now() }
    }

    /// Ends the stay as [`Entry::end`] does, after a step of the VM's left-over work.
    pub(crate) fn leave(self, vcpu: Vcpu, next: Next) -> Next {
        if vcpu.vm().has_work() {
            vcpu.vm().step();
        }
        self.end(vcpu, next)
    }

    /// Ends the stay, or hands it to [`guest_switch`]: writes a little of the log, brings the
    /// interrupts up to date, and sees to it that left-over work goes on.
    #[inline]
    pub(crate) fn end(self, vcpu: Vcpu, next: Next) -> Next {
        let queue = Queue::of_this_cpu();
        if vcpu.vm().has_work() {
            queue.arm_for_work();
        }
        if log::pending() {
            log::drain();
            if log::pending() {
                queue.arm_for_log();
            }
        }
        queue.entered.set(self.since);
        if next == Next::Leave || queue.look_around.get() || vcpu.vm().has_ended() {
            return Next::Leave;
        }
        vcpu.refresh();
        queue.note_residency(self.since);
        Next::Resume
    }
}

/// Replaces the vCPU whose registers these are by the one that is due. Called by `guest.s`.
#[unsafe(no_mangle)]
extern "C" fn guest_switch(registers: &mut Registers) {
    let queue = Queue::of_this_cpu();
    queue.look_around.set(false);
    if let Some(vcpu) = queue.current.take() {
        vcpu.save(registers);
    }
    queue.step();
    let next = queue.choose().unwrap_or_else(|| queue.idle());
    next.load(registers);
    queue.current.set(Some(next));
    queue.arm(Some(next));
    queue.note_residency(queue.entered.get());
}

/// Nothing is left to do for this CPU. The last one that comes here ends the run, so that nobody
/// changes a table any more while pages are counted.
fn rest() -> ! {
    static RESTING: AtomicUsize = AtomicUsize::new(0);
    if RESTING.fetch_add(1, Ordering::AcqRel) + 1 == run::cpus() {
        vm::finish();
    }
    loop {
        asm::wfi();
    }
}

/// Gives this CPU to its vCPUs, for good.
pub(crate) fn start() -> ! {
    let cpu = cpu::current().index;
    QUEUES[cpu].call_once(|| Queue::new(cpu));
    // SAFETY: the traps and vectors of this CPU are set up for guests, and nothing on this stack is
    // used again.
    unsafe { enter_guest() }
}

unsafe extern "C" {
    fn enter_guest() -> !;
}

/// The longest stay in EL2 of any CPU, in ticks.
pub(crate) fn worst_residency() -> u64 {
    let queues = QUEUES.iter().filter_map(Once::get);
    queues.map(Queue::worst).max().unwrap_or(0)
}
