//! The life of a VM: it runs, ends, is reset, and may start again.
//!
//! ```text
//! RUNNING --ended--> EXITED --reset--> RESETTING --teardown--> RESET --start--> INIT --started--> RUNNING
//! ```
//! The embedder runs vCPUs and loads images; it says when a VM has [ended](Manager::ended) and when it
//! has been [loaded](Manager::started). What a VM leaves behind is taken apart here, in steps of its own
//! (`teardown`). Whoever stops or resets a VM only marks it: no call ever holds two VMs' slots.
//!
//! A change of state is told to the VM's peers that run: VMs with which it shares a channel from boot
//! on, and those that manage VMs. How it ended is told to its owner, the first VM with the role.

pub(crate) mod teardown;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use rm_abi::vm::VmExitRequest;
pub use rm_abi::vm::{ExitKind, VmState};

use crate::address::VmIndex;
use crate::call::Caller;
use crate::config::{AfterEnd, OwnedParcels, Roles, VmConfig};
use crate::life::teardown::{Stands, Teardown};
use crate::link::notice::News;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::operation::budget::Budget;

/// Where a VM is in its life, and what its configuration says of the rest.
pub(crate) struct Life {
    /// A [`VmState`].
    state: AtomicU8,
    /// It is to be started when it has been reset.
    restarts: AtomicBool,
    /// VMs that hear of its states, one bit each.
    peers: AtomicU32,
    /// What the VM said in VM_EXIT: flags, and above them the code.
    exit: AtomicU32,
    /// Rises when a borrower lets go of one of its parcels while it is being reset.
    released: AtomicU32,
    after_end: AfterEnd,
    pub(crate) owned_parcels: OwnedParcels,
}

impl Life {
    pub(crate) const fn new(config: &VmConfig) -> Self {
        Self {
            state: AtomicU8::new(VmState::Running as u8),
            restarts: AtomicBool::new(false),
            peers: AtomicU32::new(0),
            exit: AtomicU32::new(0),
            released: AtomicU32::new(0),
            after_end: config.after_end,
            owned_parcels: config.owned_parcels,
        }
    }

    fn state(&self) -> VmState {
        let state = VmState::from_wire(self.state.load(Ordering::Acquire));
        state.expect("G7: a VM is in one of its states")
    }

    /// Moves to `to` if the state is still `from`.
    fn advance(&self, from: VmState, to: VmState) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl<M: Machine> Manager<'_, M> {
    /// Where the VM is in its life.
    pub fn state(&self, vm: VmIndex) -> VmState {
        self.vm(vm).life.state()
    }

    /// The VM has ended: none of its vCPUs is in a guest or in a call, and none will be until
    /// [`Manager::started`]. Only the first end of a life counts. What follows is the configuration's
    /// choice and is done in steps ([`Manager::step`]).
    pub fn ended(&self, vm: VmIndex, kind: ExitKind) {
        let life = &self.vm(vm).life;
        let complaint = life.exit.load(Ordering::Relaxed) >> 16;
        let well = match kind {
            ExitKind::Call => complaint == 0,
            ExitKind::PowerOff | ExitKind::Stopped => true,
            _ => false,
        };
        let then = match life.after_end {
            AfterEnd::Restart if well => AfterEnd::Reset,
            then => then,
        };
        self.ended_and(vm, kind, then);
    }

    /// As [`Manager::ended`], with another choice of what follows.
    pub fn ended_and(&self, vm: VmIndex, kind: ExitKind, then: AfterEnd) {
        if !self.advance(vm, VmState::Running, VmState::Exited) {
            return;
        }
        let state = self.vm(vm);
        state.queued.store(false, Ordering::Relaxed);
        let said = state.life.exit.swap(0, Ordering::Relaxed);
        if let Some(owner) = self.owner(vm).filter(|&owner| owner != vm) {
            let word = if kind == ExitKind::Call { said } else { 0 };
            self.post_life(owner, vm, News::Exited { kind: kind as u8 }, word);
        }
        if then != AfterEnd::Wait {
            state.life.restarts.store(then == AfterEnd::Restart, Ordering::Relaxed);
            self.begin_reset(vm);
        }
    }

    /// Notes what a VM says as it ends.
    pub(crate) fn note_exit(&self, vm: VmIndex, exit: &VmExitRequest) {
        let word = u32::from(exit.flags) | u32::from(exit.code) << 16;
        self.vm(vm).life.exit.store(word, Ordering::Relaxed);
    }

    /// The embedder has loaded the VM, which may run from now on.
    pub fn started(&self, vm: VmIndex) {
        let loaded = self.advance(vm, VmState::Init, VmState::Running);
        assert!(loaded, "G7: a VM was started that nobody wanted to start");
    }

    /// The embedder cannot load the VM: it stays as it was reset.
    pub fn not_started(&self, vm: VmIndex) {
        // What it was told while it was loaded is little, and nobody's.
        let closed = self.close_link(vm, &mut Budget::new(u32::MAX));
        assert!(closed, "G7: there is an end to what a VM can be told");
        let given_up = self.advance(vm, VmState::Init, VmState::Reset);
        assert!(given_up, "G7: a VM was not started that nobody wanted to start");
    }

    /// Begins to reset a VM that has ended, as VM_RESET does; `false` if it is in another state.
    pub fn begin_reset(&self, vm: VmIndex) -> bool {
        let begun = self.advance(vm, VmState::Exited, VmState::Resetting);
        if begun {
            self.vm(vm).pending.store(true, Ordering::Release);
            self.machine().work(vm);
        }
        begun
    }

    /// Begins to start a VM that was reset, as VM_START does; `false` if it is in another state.
    pub fn begin_start(&self, vm: VmIndex) -> bool {
        let begun = self.advance(vm, VmState::Reset, VmState::Init);
        if begun {
            self.open_link(vm);
            self.machine().start(vm);
        }
        begun
    }

    /// Changes the VM's state and tells its peers, unless it is another than `from`.
    fn advance(&self, vm: VmIndex, from: VmState, to: VmState) -> bool {
        let advanced = self.vm(vm).life.advance(from, to);
        if advanced {
            let running = |&peer: &VmIndex| self.state(peer) == VmState::Running;
            for peer in self.peers(vm).filter(running) {
                self.post_life(peer, vm, News::Status { state: to as u8 }, 0);
            }
        }
        advanced
    }

    /// One step for a VM that does not run: its call is finished, and if it is being reset, it is taken
    /// apart.
    pub(crate) fn step_without_vm(&self, caller: Caller<'_, '_, M>, budget: &mut Budget) {
        let state = caller.state();
        let mut slot = state.slot.lock(self.machine());
        state.queued.store(false, Ordering::Relaxed);
        if slot.is_running() {
            slot.step(caller, budget);
        } else if self.state(caller.vm) == VmState::Resetting {
            let mut teardown = slot.teardown.take().unwrap_or_else(Teardown::new);
            let stands = teardown.step(caller, &mut slot, budget);
            if stands == Stands::Done {
                state.pending.store(false, Ordering::Relaxed);
                self.reset(caller.vm);
                return;
            }
            // First the pause, then the look: whoever lets go does it the other way round.
            state.pending.store(stands == Stands::More, Ordering::SeqCst);
            if teardown.was_woken(&state.life) {
                state.pending.store(true, Ordering::SeqCst);
            }
            slot.teardown = Some(teardown);
            return;
        }
        let resetting = self.state(caller.vm) == VmState::Resetting;
        state.pending.store(slot.is_running() || resetting, Ordering::Relaxed);
    }

    /// A borrower has let go of a parcel of `owner`.
    pub(crate) fn wake_teardown(&self, owner: VmIndex) {
        let state = self.vm(owner);
        if state.life.state() == VmState::Resetting {
            state.life.released.fetch_add(1, Ordering::SeqCst);
            state.pending.store(true, Ordering::SeqCst);
            self.machine().work(owner);
        }
    }

    /// The teardown is done.
    fn reset(&self, vm: VmIndex) {
        let reset = self.advance(vm, VmState::Resetting, VmState::Reset);
        assert!(reset, "G7: a VM left the state in which it is reset");
        if self.vm(vm).life.restarts.swap(false, Ordering::Relaxed) {
            self.begin_start(vm);
        }
    }

    /// Makes two VMs hear of each other's states.
    pub(crate) fn make_peers(&self, one: VmIndex, other: VmIndex) {
        self.vm(one).life.peers.fetch_or(1 << other.0, Ordering::Relaxed);
        self.vm(other).life.peers.fetch_or(1 << one.0, Ordering::Relaxed);
    }

    /// The other VMs that this one has to do with: those at the other end of its channels, those that
    /// manage it, and those that it manages.
    pub(crate) fn peers(&self, vm: VmIndex) -> impl Iterator<Item = VmIndex> {
        let state = self.vm(vm);
        let connected = state.life.peers.load(Ordering::Relaxed);
        let manages = state.roles.contains(Roles::MANAGE);
        self.all().filter(move |&other| {
            let managed = self.vm(other).roles.contains(Roles::MANAGE);
            other != vm && (manages || managed || connected >> other.0 & 1 != 0)
        })
    }

    /// The VM that manages `vm`, if any does.
    pub(crate) fn owner(&self, vm: VmIndex) -> Option<VmIndex> {
        let _ = vm;
        self.all().find(|&other| self.vm(other).roles.contains(Roles::MANAGE))
    }
}
