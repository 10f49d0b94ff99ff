//! A virtual CPU: what it is made of, and how it comes on and off the CPU it is pinned to.

pub(crate) mod context;
mod fp;
pub(crate) mod inject;
mod traps;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use aarch64_cpu::asm::barrier::{SY, isb};
use rm::address::Ipa;

use crate::timer;
use crate::vm::Vm;
use context::{El1, Registers, mrs, msr};
use fp::FloatingPoint;

pub use traps::configure;

/// The guest's virtual timer while its vCPU is on no CPU.
#[derive(Clone, Copy, Default)]
struct VirtualTimer {
    control: u64,
    compare: u64,
}

/// CNTV_CTL_EL0: enabled and not masked.
const TIMER_ON: u64 = 0b01;
const TIMER_ON_OR_MASKED: u64 = 0b11;

impl VirtualTimer {
    /// Takes the timer, which is then off: it must not fire for whoever runs next.
    fn save(&mut self) {
        *self = Self { control: mrs!("cntv_ctl_el0"), compare: mrs!("cntv_cval_el0") };
        msr!("cntv_ctl_el0", 0);
        isb(SY);
    }

    fn load(&self) {
        msr!("cntv_cval_el0", self.compare);
        msr!("cntv_ctl_el0", self.control);
    }

    /// When it will want to interrupt. CNTVOFF_EL2 is 0, so both counters agree.
    fn deadline(&self) -> Option<u64> {
        (self.control & TIMER_ON_OR_MASKED == TIMER_ON).then_some(self.compare)
    }
}

/// Everything of a vCPU that another one overwrites in the CPU.
struct Saved {
    registers: Registers,
    el1: El1,
    floating_point: FloatingPoint,
    timer: VirtualTimer,
}

impl Saved {
    /// vCPU `index` of its VM, about to start at `entry` with all registers zero but X0.
    fn new(index: u8, entry: u64, context: u64) -> Self {
        let mut registers = Registers::new();
        registers.set(0, context);
        Self {
            registers,
            el1: El1::new(index, entry),
            floating_point: FloatingPoint::new(),
            timer: VirtualTimer { control: 0, compare: 0 },
        }
    }
}

/// Whether a vCPU wants its CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Wish {
    Run = 0,
    /// It executed WFI: an interrupt must be due first.
    Wait = 1,
    /// It is switched off.
    Off = 2,
    /// Another vCPU is about to switch it on.
    Starting = 3,
}

/// How a vCPU begins.
#[derive(Clone, Copy)]
pub(crate) struct Begin {
    /// Where.
    pub(crate) entry: u64,
    /// What is in X0: the address of the device tree, or what CPU_ON passes on.
    pub(crate) context: u64,
    /// Whether it runs by itself.
    pub(crate) on: bool,
}

impl Begin {
    const fn wish(&self) -> u8 {
        if self.on { Wish::Run as u8 } else { Wish::Off as u8 }
    }
}

/// The state of a vCPU, part of its VM.
pub(crate) struct State {
    index: u8,
    cpu: u8,
    /// How it begins with its VM.
    begin: Begin,
    /// Where it starts over, and with what in X0.
    entry: AtomicU64,
    context: AtomicU64,
    wish: AtomicU8,
    /// It starts over when it comes onto its CPU next.
    fresh: AtomicBool,
    saved: UnsafeCell<Saved>,
}

// SAFETY: `saved` is used by the CPU named in `cpu` only ([`Vcpu::saved`]), where EL2 runs with
// interrupts masked; the rest is atomic or constant.
unsafe impl Sync for State {}

impl State {
    /// vCPU `index` of its VM, pinned to `cpu`.
    pub(crate) fn new(index: u8, cpu: u8, begin: Begin) -> Self {
        Self {
            index,
            cpu,
            begin,
            entry: AtomicU64::new(begin.entry),
            context: AtomicU64::new(begin.context),
            wish: AtomicU8::new(begin.wish()),
            fresh: AtomicBool::new(false),
            saved: UnsafeCell::new(Saved::new(index, begin.entry, begin.context)),
        }
    }

    /// Whether the vCPU is switched off.
    fn is_off(&self) -> bool {
        self.wish.load(Ordering::Relaxed) == Wish::Off as u8
    }

    /// Lets the vCPU begin anew. It is switched off, or its VM has ended.
    fn begin(&self, begin: Begin) {
        self.entry.store(begin.entry, Ordering::Relaxed);
        self.context.store(begin.context, Ordering::Relaxed);
        self.fresh.store(true, Ordering::Release);
        // Whoever sees that it runs, sees where.
        self.wish.store(begin.wish(), Ordering::Release);
    }

    /// The CPU it runs on.
    pub(crate) fn cpu(&self) -> usize {
        self.cpu.into()
    }
}

/// One vCPU of one VM, by name.
#[derive(Clone, Copy)]
pub(crate) struct Vcpu {
    vm: &'static Vm,
    index: usize,
}

impl Vcpu {
    pub(crate) const fn new(vm: &'static Vm, index: usize) -> Self {
        Self { vm, index }
    }

    pub(crate) const fn vm(self) -> &'static Vm {
        self.vm
    }

    pub(crate) const fn index(self) -> usize {
        self.index
    }

    /// Whether both name the same vCPU.
    pub(crate) fn is(self, other: Self) -> bool {
        self.index == other.index && core::ptr::eq(self.vm, other.vm)
    }

    fn state(self) -> &'static State {
        self.vm.vcpu(self.index)
    }

    /// The saved registers, on the CPU that the vCPU is pinned to.
    fn saved(self) -> *mut Saved {
        debug_assert!(self.state().cpu() == crate::cpu::current().index, "a vCPU stays on its CPU");
        self.state().saved.get()
    }

    /// Puts the vCPU on this CPU; `registers` is what the return to the guest restores.
    pub(crate) fn load(self, registers: &mut Registers) {
        let state = self.state();
        // SAFETY: this CPU alone uses what it has pinned, and holds no other reference to it.
        let saved = unsafe { &mut *self.saved() };
        if state.fresh.swap(false, Ordering::Acquire) {
            let (entry, context) = (&state.entry, &state.context);
            *saved = Saved::new(
                state.index,
                entry.load(Ordering::Relaxed),
                context.load(Ordering::Relaxed),
            );
        }
        *registers = saved.registers;
        saved.el1.load(self.vm.vttbr());
        saved.floating_point.load();
        self.vm.vgic().load(self.vm.machine(), self.index);
        saved.timer.load();
    }

    /// Takes the vCPU off this CPU.
    pub(crate) fn save(self, registers: &Registers) {
        // SAFETY: as in `load`.
        let saved = unsafe { &mut *self.saved() };
        saved.registers = *registers;
        saved.el1.save();
        saved.floating_point.save();
        saved.timer.save();
        let others = self.vm.vgic().save(self.vm.machine(), self.index);
        self.vm.kick(others);
        self.vm.unclaim();
    }

    /// The vCPU is to begin as at boot. Its VM has ended, so it is on no CPU.
    pub(crate) fn start_over(self) {
        let state = self.state();
        state.begin(state.begin);
    }

    /// Whether the vCPU is switched off.
    pub(crate) fn is_off(self) -> bool {
        self.state().is_off()
    }

    /// Switches the vCPU on, at the wish of another one. False: it is on already.
    pub(crate) fn power_on(self, entry: u64, context: u64) -> bool {
        let state = self.state();
        let (off, run) = (Wish::Off as u8, Wish::Starting as u8);
        // Of two that ask at once, one is first.
        let order = Ordering::Relaxed;
        if state.wish.compare_exchange(off, run, order, order).is_err() {
            return false;
        }
        self.vm.vcpu_on();
        state.begin(Begin { entry, context, on: true });
        self.vm.kick(crate::vgic::VcpuSet::only(self.index));
        true
    }

    /// Whether the vCPU, which is on no CPU, has something to do. Asked by its own CPU.
    pub(crate) fn is_ready(self) -> bool {
        if self.vm.has_ended() {
            return false;
        }
        let wish = &self.state().wish;
        match wish.load(Ordering::Acquire) {
            run if run == Wish::Run as u8 => true,
            wait if wait == Wish::Wait as u8 && self.is_due() => {
                wish.store(Wish::Run as u8, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    fn is_due(self) -> bool {
        self.timer().is_some_and(|at| at <= timer::now())
            || self.vm.vgic().has_pending(self.vm.machine(), self.index)
    }

    /// When the vCPU must be looked at again, if it sleeps until its virtual timer.
    pub(crate) fn deadline(self) -> Option<u64> {
        let waits = self.state().wish.load(Ordering::Relaxed) == Wish::Wait as u8;
        if waits && !self.vm.has_ended() { self.timer() } else { None }
    }

    fn timer(self) -> Option<u64> {
        // SAFETY: as in `load`.
        unsafe { &*self.saved() }.timer.deadline()
    }

    /// The guest executed WFI.
    pub(crate) fn wait_for_interrupt(self) {
        self.state().wish.store(Wish::Wait as u8, Ordering::Relaxed);
        self.vm.show_line();
    }

    /// The guest switched this vCPU off.
    pub(crate) fn power_off(self) {
        self.state().wish.store(Wish::Off as u8, Ordering::Relaxed);
        self.vm.vcpu_off();
    }

    /// A guest's access to a device of its own; `None` if there is none at `at`.
    pub(crate) fn mmio(self, at: Ipa, size: u8, write: Option<u64>) -> Option<u64> {
        self.vm.mmio(self.index, at, size, write)
    }

    /// The guest wrote `value` to ICC_SGI1R_EL1.
    pub(crate) fn send_sgi(self, value: u64) {
        let others = self.vm.vgic().send_sgi(self.vm.machine(), self.index, value);
        self.vm.kick(others);
    }

    /// Brings the loaded vCPU's interrupts up to date before it runs on.
    #[inline]
    pub(crate) fn refresh(self) {
        let others = self.vm.vgic().refresh(self.vm.machine(), self.index);
        self.vm.kick(others);
    }
}
