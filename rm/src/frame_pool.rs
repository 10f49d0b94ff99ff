//! The frames of the resource manager: who may take how many, and which are free.
//!
//! All memory that the manager needs after boot is one array of frames: translation tables, extent
//! lists, long messages. A stack of indices makes taking and returning O(1), and no free list runs
//! through the frames themselves, so a free frame is all zero and every frame taken is ready to be a
//! table that maps nothing.
//!
//! Each VM has a *reserve* and a *limit*. The reserve is a promise about real frames: the pool never
//! drops below what it still owes to VMs that have taken less than their reserve, so a VM's reserve is
//! out of every other VM's reach (G7). What is owed to nobody is shared. The limit bounds what a VM
//! *uses*. A table that could be merged back into a block is credited to its VM: it does not count as
//! used, because it is given back as soon as its page is wanted, or a frame that the pool does not have.

mod record;

use core::sync::atomic::{AtomicU32, Ordering};

pub use self::record::FrameRecord;
use crate::address::VmIndex;
use crate::lock::{self, Lock, Rank};
use crate::machine::{FrameIndex, FrameUse, Machine};
use crate::refusal::Resource;

/// How many VMs a pool keeps accounts for.
pub const MAX_VMS: usize = 32;

/// Why no frame could be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NoFrame {
    /// The VM uses as many as its limit allows.
    Quota,
    /// What is left is promised to other VMs.
    Empty,
}

/// What one VM may take and has taken. Written under the pool's lock, except `credit`.
#[derive(Default)]
struct Account {
    reserved: AtomicU32,
    limit: AtomicU32,
    taken: AtomicU32,
    /// Taken frames that do not count as used. Written under the VM's own lock, so plain loads and
    /// stores are enough. The limit may be overrun by a frame that another CPU takes for the same VM
    /// between a check and its credit's end; the reserve counts real frames and cannot.
    credit: AtomicU32,
}

impl Account {
    fn used(&self) -> u32 {
        self.taken.load(Ordering::Relaxed).saturating_sub(self.credit.load(Ordering::Relaxed))
    }

    /// Frames that the pool still owes this VM.
    fn owed(&self) -> u32 {
        self.reserved.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed))
    }
}

/// The free frames: the first `free` entries of the stack.
struct Stack<'s> {
    indices: &'s [AtomicU32],
    free: usize,
    /// Sum of what the pool owes; never more than `free`.
    owed: u64,
}

/// The frame pool and its accounts.
pub struct FramePool<'s, R> {
    stack: Lock<Stack<'s>, R>,
    records: &'s [FrameRecord],
    accounts: [Account; MAX_VMS],
}

impl<'s, R: lock::Strategy> FramePool<'s, R> {
    /// A pool in which every frame of the machine is free. `records` and `stack` have one entry for
    /// each frame; nobody else uses them.
    pub fn new(records: &'s [FrameRecord], stack: &'s [AtomicU32]) -> Self {
        assert!(records.len() == stack.len(), "one record and one stack entry for each frame");
        // The first frame is on top.
        for (entry, index) in stack.iter().rev().zip(0..) {
            entry.store(index, Ordering::Relaxed);
        }
        let stack = Stack { indices: stack, free: stack.len(), owed: 0 };
        Self {
            stack: Lock::new(Rank::FramePool, stack),
            records,
            accounts: [const { Account::new() }; MAX_VMS],
        }
    }

    /// Promises `reserved` frames to a VM and lets it use up to `limit`. Refused with
    /// [`NoFrame::Empty`] if the promises of all VMs would not fit what is free.
    pub fn set_quota<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        vm: VmIndex,
        reserved: u32,
        limit: u32,
    ) -> Result<(), NoFrame> {
        let account = self.account(vm);
        let mut stack = self.stack.lock(machine);
        let others = stack.owed - u64::from(account.owed());
        let owed = reserved.saturating_sub(account.taken.load(Ordering::Relaxed));
        if others + u64::from(owed) > stack.free as u64 {
            return Err(NoFrame::Empty);
        }
        account.reserved.store(reserved, Ordering::Relaxed);
        account.limit.store(limit, Ordering::Relaxed);
        stack.owed = others + u64::from(owed);
        Ok(())
    }

    /// Takes a frame, all zero, for `payer`.
    pub fn take<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        payer: VmIndex,
        user: FrameUse,
    ) -> Result<FrameIndex, NoFrame> {
        if !machine.grants(payer, Resource::Frames) {
            return Err(NoFrame::Empty);
        }
        let account = self.account(payer);
        let mut stack = self.stack.lock(machine);
        if account.used() >= account.limit.load(Ordering::Relaxed) {
            return Err(NoFrame::Quota);
        }
        if account.owed() > 0 {
            stack.owed -= 1;
        } else if stack.free as u64 <= stack.owed {
            return Err(NoFrame::Empty);
        }
        stack.free -= 1;
        let frame = FrameIndex(stack.indices[stack.free].load(Ordering::Relaxed));
        account.taken.store(account.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        machine.frame_use(frame, Some(user));
        Ok(frame)
    }

    /// Returns a frame that `payer` took. It is all zero again, and no table walk can reach it.
    pub fn put<M: Machine<Relax = R>>(&self, machine: &M, payer: VmIndex, frame: FrameIndex) {
        debug_assert!(
            machine.frames()[frame.0 as usize].0.iter().all(|e| e.load(Ordering::Relaxed) == 0),
            "G5: a frame is all zero when it is returned"
        );
        machine.frame_use(frame, None);
        let account = self.account(payer);
        let mut stack = self.stack.lock(machine);
        let taken = account.taken.load(Ordering::Relaxed);
        assert!(taken > 0, "G7: a frame is returned by the VM that it was charged to");
        account.taken.store(taken - 1, Ordering::Relaxed);
        if account.owed() > 0 {
            stack.owed += 1;
        }
        let top = stack.free;
        stack.indices[top].store(frame.0, Ordering::Relaxed);
        stack.free += 1;
    }

    /// A frame that a VM has taken is put to another use. It is all zero, and no table walk can reach it.
    pub(crate) fn reuse<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        frame: FrameIndex,
        user: FrameUse,
    ) {
        machine.frame_use(frame, None);
        machine.frame_use(frame, Some(user));
    }

    /// Frames that count against the VM's limit.
    pub fn used(&self, vm: VmIndex) -> u32 {
        self.account(vm).used()
    }

    /// Frames that the VM may use.
    pub fn limit(&self, vm: VmIndex) -> u32 {
        self.account(vm).limit.load(Ordering::Relaxed)
    }

    /// Frames that are kept for the VM alone.
    pub fn reserved(&self, vm: VmIndex) -> u32 {
        self.account(vm).reserved.load(Ordering::Relaxed)
    }

    /// Frames that the VM holds, mergeable tables included.
    pub fn taken(&self, vm: VmIndex) -> u32 {
        self.account(vm).taken.load(Ordering::Relaxed)
    }

    /// Frames that nobody holds and that are kept for nobody.
    pub fn shared<M: Machine<Relax = R>>(&self, machine: &M) -> u32 {
        let stack = self.stack.lock(machine);
        (stack.free as u64 - stack.owed) as u32
    }

    /// Frames that nobody holds.
    pub fn free<M: Machine<Relax = R>>(&self, machine: &M) -> u32 {
        self.stack.lock(machine).free as u32
    }

    /// Whether the VM may use `more` frames, which it has already taken, by its limit.
    pub(crate) fn affords<M: Machine<Relax = R>>(
        &self,
        machine: &M,
        vm: VmIndex,
        more: u32,
    ) -> bool {
        let account = self.account(vm);
        machine.grants(vm, Resource::Frames)
            && account.used().saturating_add(more) <= account.limit.load(Ordering::Relaxed)
    }

    /// One more of the VM's frames does not count as used. Called under the VM's lock.
    pub(crate) fn credit(&self, vm: VmIndex) {
        let credit = &self.account(vm).credit;
        credit.store(credit.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// One frame fewer is not counted. Called under the VM's lock.
    pub(crate) fn uncredit(&self, vm: VmIndex) {
        let credit = &self.account(vm).credit;
        credit.store(credit.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// What the pool knows of a frame in use.
    #[inline]
    pub(crate) fn record(&self, frame: FrameIndex) -> &'s FrameRecord {
        &self.records[frame.0 as usize]
    }

    fn account(&self, vm: VmIndex) -> &Account {
        &self.accounts[usize::from(vm.0)]
    }
}

impl Account {
    const fn new() -> Self {
        Self {
            reserved: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            credit: AtomicU32::new(0),
        }
    }
}

#[cfg(test)]
mod tests;
