//! The end of a VM and its next life, as far as EL2's own state goes.
//!
//! A VM ends at once for its vCPUs: none is entered again. When the last one has left its CPU, the
//! resource manager is told, and takes apart what the VM had a part in. To start again, the VM's memory
//! is zeroed and its program copied from the package, some pages in each step. Both kinds of steps are
//! the work of the CPU on which the VM is at home; nobody's vCPU waits for them.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rm::address::{Ipa, PAGE_SIZE, Pa};
use rm::config::AfterEnd;
use rm::life::{ExitKind, VmState};
use rm::stage2::Access;
use spin::mutex::SpinMutex;

use super::Vm;
use crate::vgic::VcpuSet;
use crate::{cache, run, stage1};

/// How a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By a call, with this code; 0 is success.
    Exit(u8),
    /// Switched off, which is success.
    PowerOff,
    /// To start again, by its own wish.
    Reset,
    /// By a fault, as its configuration asks.
    Fault,
    /// As [`End::Fault`], to start again.
    FaultAndRestart,
    /// By a system error.
    SystemError,
    /// By another VM that manages it, which is success.
    Stopped,
}

impl End {
    /// Whether the VM did what it was made for.
    pub(super) const fn is_success(self) -> bool {
        matches!(self, Self::Exit(0) | Self::PowerOff | Self::Stopped)
    }

    const fn kind(self) -> ExitKind {
        match self {
            Self::Exit(_) => ExitKind::Call,
            Self::PowerOff => ExitKind::PowerOff,
            Self::Reset => ExitKind::PowerReset,
            Self::Fault | Self::FaultAndRestart => ExitKind::Fault,
            Self::SystemError => ExitKind::SystemError,
            Self::Stopped => ExitKind::Stopped,
        }
    }
}

/// Where a VM is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Its vCPUs may be entered.
    Running = 0,
    /// They may not, but some are still on a CPU.
    Ending = 1,
    /// The resource manager knows.
    Ended = 2,
    /// Its memory is being filled.
    Loading = 3,
}

/// What EL2 knows of a VM's life.
pub(super) struct Life {
    phase: AtomicU8,
    /// vCPUs that are on a CPU.
    loaded: AtomicU8,
    /// How the last life ended.
    end: SpinMutex<Option<End>, crate::Relax>,
    /// The page that is filled next, counted from the first.
    page: AtomicU64,
}

/// Pages that one step fills.
const PAGES_PER_STEP: u64 = 8;

impl Life {
    pub(super) const fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Running as u8),
            loaded: AtomicU8::new(0),
            end: SpinMutex::new(None),
            page: AtomicU64::new(0),
        }
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8
    }

    fn advance(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.phase.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Vm {
    /// Ends the VM: none of its vCPUs is entered again. A second end changes nothing.
    pub(crate) fn end(&self, how: End) {
        if !self.life.advance(Phase::Running, Phase::Ending) {
            return;
        }
        *self.life.end.lock() = Some(how);
        let name = self.name();
        match how {
            End::Exit(code) => defmt::info!("{=str}: ended with code {=u8}", name, code),
            End::PowerOff => defmt::info!("{=str}: switched itself off", name),
            End::Reset => defmt::info!("{=str}: asked to be reset", name),
            End::Fault | End::FaultAndRestart => {
                defmt::error!("{=str}: stopped after a fault", name);
            }
            End::SystemError => defmt::error!("{=str}: stopped after a system error", name),
            End::Stopped => defmt::info!("{=str}: was stopped", name),
        }
        self.kick(VcpuSet::all(self.vcpu_count));
        self.kick_home();
    }

    /// How the last life ended, if it has.
    pub(super) fn last_end(&self) -> Option<End> {
        *self.life.end.lock()
    }

    /// Whether the vCPUs may not be entered.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.life.phase.load(Ordering::Relaxed) != Phase::Running as u8
    }

    /// Whether the VM will not run again unless another one makes it.
    pub(super) fn is_over(&self) -> bool {
        let state = self.manager.state(self.index);
        self.life.is(Phase::Ended)
            && !self.manager.pending(self.index)
            && matches!(state, VmState::Exited | VmState::Resetting | VmState::Reset)
    }

    /// One of the vCPUs comes onto a CPU, unless the VM has ended.
    pub(crate) fn claim(&self) -> bool {
        self.life.loaded.fetch_add(1, Ordering::SeqCst);
        let runs = self.life.is(Phase::Running);
        if !runs {
            self.unclaim();
        }
        runs
    }

    /// One of the vCPUs has left its CPU.
    pub(crate) fn unclaim(&self) {
        self.life.loaded.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether a step of the VM's life is due.
    #[inline]
    pub(super) fn has_life_to_do(&self) -> bool {
        let phase = self.life.phase.load(Ordering::Relaxed);
        phase == Phase::Ending as u8 || phase == Phase::Loading as u8
    }

    /// One step of the VM's life.
    pub(super) fn step_life(&'static self) {
        if self.life.is(Phase::Loading) {
            self.load_step();
        } else if self.life.loaded.load(Ordering::SeqCst) == 0
            && self.life.advance(Phase::Ending, Phase::Ended)
        {
            self.close_line();
            let end = self.last_end().expect("a VM that has ended has an end");
            match end {
                End::FaultAndRestart => {
                    self.manager.ended_and(self.index, end.kind(), AfterEnd::Restart);
                }
                End::Reset if !self.waits => {
                    self.manager.ended_and(self.index, end.kind(), AfterEnd::Restart);
                }
                _ => self.manager.ended(self.index, end.kind()),
            }
        }
    }

    /// Begins to load the VM, which was reset.
    pub(super) fn begin_load(&self) {
        self.life.page.store(0, Ordering::Relaxed);
        let reset = self.life.advance(Phase::Ended, Phase::Loading);
        assert!(reset, "a VM is loaded after it was reset");
        self.kick_home();
    }

    /// Makes the CPU on which the VM is at home look around.
    pub(super) fn kick_home(&self) {
        run::kick(self.vcpus[0].cpu());
    }

    /// Fills some pages of the VM's memory; at the end the VM runs.
    fn load_step(&'static self) {
        let first = self.life.page.load(Ordering::Relaxed);
        let pages = (self.memory.end - self.memory.start) / PAGE_SIZE;
        let end = (first + PAGES_PER_STEP).min(pages);
        for page in first..end {
            let at = Ipa(self.memory.start).add_pages(page);
            // The VM owns what is reset, and runs nowhere, so this page stays where it is.
            let Some(pa) = self.manager.allows(self.index, at, Access::Write) else {
                defmt::error!(
                    "{=str}: cannot start, its page {=u64:#x} is gone",
                    self.name(),
                    at.0
                );
                self.life.advance(Phase::Loading, Phase::Ended);
                self.manager.not_started(self.index);
                return;
            };
            self.fill(at, pa);
        }
        self.life.page.store(end, Ordering::Relaxed);
        if end == pages {
            self.begin();
        }
    }

    /// Gives a page the content that it has when the VM starts.
    fn fill(&self, at: Ipa, pa: Pa) {
        cache::zero_page(pa);
        for &(Ipa(load), bytes) in &self.loads {
            let (start, end) = (load.max(at.0), (load + bytes.len() as u64).min(at.0 + PAGE_SIZE));
            if start >= end {
                continue;
            }
            let part = &bytes[(start - load) as usize..(end - load) as usize];
            let to = Pa(pa.0 + (start - at.0));
            // SAFETY: `allows` has said that the page is the VM's, none of whose vCPUs runs, and the part
            // lies inside it.
            unsafe { stage1::direct(to).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            cache::sync_code(to, part.len() as u64);
        }
    }

    /// The memory is filled: the VM begins as at boot.
    fn begin(&'static self) {
        self.vgic.reset(self.machine());
        self.reset_console();
        self.vcpus_on.store(self.starting(), Ordering::Relaxed);
        self.vcpus().for_each(crate::vcpu::Vcpu::start_over);
        super::channels::reopen(self.manager, self.index);
        self.manager.started(self.index);
        defmt::info!("{=str}: starts again", self.name());
        self.life.advance(Phase::Loading, Phase::Running);
        self.kick(VcpuSet::all(self.vcpu_count));
    }
}
