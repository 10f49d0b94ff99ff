//! What a VM may use, and what it uses.
//!
//! Every resource a call takes is charged to the VM that asks (G7). Of each resource a VM has a
//! *guarantee*, a promise that no other VM can take away, and a *limit*, the most that it may use. What
//! it uses beyond the guarantee comes from one *shared pool* for all VMs and goes back there first. So
//! a VM at its limits, and even one that has emptied every pool, changes nothing for another that stays
//! within its guarantees.
//!
//! Counters are atomics: two vCPUs of one VM may charge at once, and VMs meet at the pools. A charge
//! takes its part from the pool before it counts as used, and a refund counts first, so a pool never
//! gives more than it has. Who loses a race against another vCPU of its own VM may hold a part of the
//! pool for that moment; a guarantee is never touched.
//!
//! # The reserve for teardown
//!
//! Giving up needs nothing that could have run out, so there is no stock of frames kept for it: the
//! reserve lies in the structures. A LENT, HELD, CLAIMED or BORROWED entry keeps the tables on the way
//! to it, so restoring or removing it writes entries that are there. A release, reclaim or revocation
//! takes a parcel as a whole, in the leaves that it was made of, so no block is cut. The lists that it
//! walks and its cursor are in the parcel's record, its request and reply fit one packet in the
//! operation slot, and news of it has nodes in the record, or among those of its receiver, the oldest
//! of which makes way. Nothing is charged on the way, only refunded. The same holds for the teardown
//! of a VM, which is made of these. What asks for frames is what takes something (creating, appending,
//! accepting, and the long messages that describe them), and a TRIM, which may have to cut a block: who
//! is refused one can still release or reclaim the whole.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::address::VmIndex;
use crate::link::notice::UNREAD;
use crate::machine::Machine;
use crate::refusal::{Refusal, Resource};

/// So much of each resource that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Amounts {
    /// Parcels that exist at once.
    pub parcels: u64,
    /// Pages in parcels of one's own.
    pub pages_lent: u64,
    /// Pages held of others.
    pub pages_accepted: u64,
    /// Extents of one's own parcels together.
    pub extents: u64,
    /// Creations that wait for an APPEND.
    pub unfinished: u64,
    /// News of parcels that are gone, left unread.
    pub unread: u64,
}

impl Amounts {
    /// Nothing.
    pub const NONE: Self = Self::each(0);
    /// More than there can be: as a guarantee, everything up to the limit.
    pub const ALL: Self = Self::each(u64::MAX);

    const fn each(amount: u64) -> Self {
        Self {
            parcels: amount,
            pages_lent: amount,
            pages_accepted: amount,
            extents: amount,
            unfinished: amount,
            unread: amount,
        }
    }
}

/// The limits and guarantees of a VM, from the boot configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quotas {
    /// Parcels that the VM may own at once.
    pub parcels: u32,
    /// Pages that the VM may have in its parcels.
    pub pages_lent: u64,
    /// Pages that the VM may hold of others.
    pub pages_accepted: u64,
    /// Extents that its parcels may have together.
    pub extents: u64,
    /// Creations that may wait for an APPEND.
    pub unfinished: u32,
    /// News of parcels that are gone which the VM may leave unread, before no new parcel names it. At
    /// most [`Quotas::MAX_UNREAD`].
    pub unread: u32,
    /// Frames of the manager (tables, extent lists, long messages) that the VM may use.
    pub frames: u32,
    /// How many of those are kept for the VM alone. At least [`Quotas::MIN_FRAMES`].
    pub frames_reserved: u32,
    /// How much of everything else is the VM's whatever others do. What exceeds a limit does not count.
    pub guaranteed: Amounts,
}

impl Quotas {
    /// A root table and eight frames for a long message and its reply.
    pub const MIN_FRAMES: u32 = 9;
    /// Pieces of news that there is room for.
    pub const MAX_UNREAD: u32 = UNREAD as u32;

    /// 64 parcels as the original's public version gives a VM, and room for what they describe. All of
    /// it but the frames is guaranteed.
    pub const USUAL: Self = Self {
        parcels: 64,
        pages_lent: 1 << 20,
        pages_accepted: 1 << 20,
        extents: 1 << 16,
        unfinished: 8,
        unread: Self::MAX_UNREAD,
        frames: 512,
        frames_reserved: 64,
        guaranteed: Amounts::ALL,
    };

    /// The limits of what is counted.
    pub const fn limits(&self) -> Amounts {
        Amounts {
            parcels: self.parcels as u64,
            pages_lent: self.pages_lent,
            pages_accepted: self.pages_accepted,
            extents: self.extents,
            unfinished: self.unfinished as u64,
            unread: self.unread as u64,
        }
    }

    /// Parcels that the VM can have whatever others do.
    pub(crate) const fn parcels_guaranteed(&self) -> u64 {
        least(self.guaranteed.parcels, self.parcels as u64)
    }

    /// What the VM would take from the pools if it used all that it may.
    pub(crate) const fn above_guarantees(&self) -> Amounts {
        let (limits, guaranteed) = (self.limits(), &self.guaranteed);
        Amounts {
            parcels: limits.parcels.saturating_sub(guaranteed.parcels),
            pages_lent: limits.pages_lent.saturating_sub(guaranteed.pages_lent),
            pages_accepted: limits.pages_accepted.saturating_sub(guaranteed.pages_accepted),
            extents: limits.extents.saturating_sub(guaranteed.extents),
            unfinished: limits.unfinished.saturating_sub(guaranteed.unfinished),
            unread: limits.unread.saturating_sub(guaranteed.unread),
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::USUAL
    }
}

impl core::ops::Add for Amounts {
    type Output = Self;

    /// Stops at the largest number.
    fn add(self, other: Self) -> Self {
        Self {
            parcels: self.parcels.saturating_add(other.parcels),
            pages_lent: self.pages_lent.saturating_add(other.pages_lent),
            pages_accepted: self.pages_accepted.saturating_add(other.pages_accepted),
            extents: self.extents.saturating_add(other.extents),
            unfinished: self.unfinished.saturating_add(other.unfinished),
            unread: self.unread.saturating_add(other.unread),
        }
    }
}

const fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

/// How a VM stands with one resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Usage {
    /// How much it uses.
    pub used: u64,
    /// How much of it is the VM's whatever others do.
    pub guaranteed: u64,
    /// The most that it may use.
    pub limit: u64,
    /// What is left in the pool that it shares with others.
    pub shared: u64,
}

/// One resource's shared pool.
#[derive(Debug)]
pub(crate) struct Pool {
    size: u64,
    left: AtomicU64,
}

impl Pool {
    pub(crate) const fn new(size: u64) -> Self {
        Self { size, left: AtomicU64::new(size) }
    }

    /// Takes `amount`, or nothing.
    fn take(&self, amount: u64) -> bool {
        let less = |left: u64| left.checked_sub(amount);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    fn put(&self, amount: u64) {
        self.left.fetch_add(amount, Ordering::Release);
    }

    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    /// How much of it is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.size - self.left()
    }
}

/// One resource of one VM.
#[derive(Debug)]
pub(crate) struct Meter {
    resource: Resource,
    guaranteed: u64,
    limit: u64,
    used: AtomicU64,
}

impl Meter {
    const fn new(resource: Resource, guaranteed: u64, limit: u64) -> Self {
        Self { resource, guaranteed: least(guaranteed, limit), limit, used: AtomicU64::new(0) }
    }

    /// What of `used` comes from the pool.
    const fn above(&self, used: u64) -> u64 {
        used.saturating_sub(self.guaranteed)
    }

    /// What a charge makes of `used`, and what of it comes from the pool.
    #[inline]
    fn plan(&self, used: u64, amount: u64) -> Result<(u64, u64), Refusal> {
        let sum = used.checked_add(amount).filter(|&sum| sum <= self.limit);
        let sum = sum.ok_or(Refusal::Quota(self.resource))?;
        let shared = if sum <= self.guaranteed { 0 } else { sum - used.max(self.guaranteed) };
        Ok((sum, shared))
    }

    /// Takes `amount`, or refuses and takes nothing.
    pub(crate) fn charge(&self, pool: &Pool, amount: u64) -> Result<(), Refusal> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let (sum, shared) = self.plan(used, amount)?;
            if shared > 0 && !pool.take(shared) {
                return Err(Refusal::SharedQuota(self.resource));
            }
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            match self.used.compare_exchange_weak(used, sum, order.0, order.1) {
                Ok(_) => return Ok(()),
                Err(now) => used = now,
            }
            if shared > 0 {
                pool.put(shared);
            }
        }
    }

    /// Gives `amount` back that was charged before.
    pub(crate) fn refund(&self, pool: &Pool, amount: u64) {
        let before = self.used.fetch_sub(amount, Ordering::AcqRel);
        assert!(before >= amount, "G7: {:?} refunded that was never charged", self.resource);
        if before > self.guaranteed {
            pool.put(before - self.guaranteed.max(before - amount));
        }
    }

    /// Whether one more would be refused now.
    pub(crate) fn is_full(&self, pool: &Pool) -> bool {
        let plan = self.plan(self.used(), 1);
        plan.is_err() || plan.is_ok_and(|(_, shared)| shared > pool.left())
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What of the pool the VM has.
    pub(crate) fn shared(&self) -> u64 {
        self.above(self.used())
    }

    fn usage(&self, pool: &Pool) -> Usage {
        let (used, shared) = (self.used(), pool.left());
        Usage { used, guaranteed: self.guaranteed, limit: self.limit, shared }
    }
}

/// One of each resource that is counted.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    parcels: T,
    pages_lent: T,
    pages_accepted: T,
    extents: T,
    unfinished: T,
    unread: T,
}

impl<T> Counted<T> {
    /// The one of a resource that is counted here: all but handles, frames and pages of heaps, which are
    /// counted where they are kept.
    #[inline]
    pub(crate) fn of(&self, resource: Resource) -> &T {
        match resource {
            Resource::Parcels => &self.parcels,
            Resource::PagesLent => &self.pages_lent,
            Resource::PagesAccepted => &self.pages_accepted,
            Resource::Extents => &self.extents,
            Resource::Unfinished => &self.unfinished,
            Resource::Unread => &self.unread,
            Resource::Handles | Resource::Frames | Resource::PagesOfHeaps => {
                panic!("G7: {resource:?} are not counted by meters")
            }
        }
    }
}

/// The counters of one VM.
pub(crate) type Meters = Counted<Meter>;

impl Meters {
    pub(crate) const fn new(quotas: &Quotas) -> Self {
        let (sure, limits) = (&quotas.guaranteed, quotas.limits());
        Self {
            parcels: Meter::new(Resource::Parcels, sure.parcels, limits.parcels),
            pages_lent: Meter::new(Resource::PagesLent, sure.pages_lent, limits.pages_lent),
            pages_accepted: Meter::new(
                Resource::PagesAccepted,
                sure.pages_accepted,
                limits.pages_accepted,
            ),
            extents: Meter::new(Resource::Extents, sure.extents, limits.extents),
            unfinished: Meter::new(Resource::Unfinished, sure.unfinished, limits.unfinished),
            unread: Meter::new(Resource::Unread, sure.unread, limits.unread),
        }
    }
}

/// What the VMs share.
pub(crate) type Pools = Counted<Pool>;

impl Pools {
    pub(crate) const fn new(sizes: &Amounts) -> Self {
        Self {
            parcels: Pool::new(sizes.parcels),
            pages_lent: Pool::new(sizes.pages_lent),
            pages_accepted: Pool::new(sizes.pages_accepted),
            extents: Pool::new(sizes.extents),
            unfinished: Pool::new(sizes.unfinished),
            unread: Pool::new(sizes.unread),
        }
    }
}

/// What is counted by meters.
pub(crate) const COUNTED: [Resource; 6] = [
    Resource::Parcels,
    Resource::PagesLent,
    Resource::PagesAccepted,
    Resource::Extents,
    Resource::Unfinished,
    Resource::Unread,
];

/// A VM's counters together with the pools that they draw on.
pub(crate) struct Ledger<'a, M> {
    pub(crate) machine: &'a M,
    pub(crate) vm: VmIndex,
    pub(crate) meters: &'a Meters,
    pub(crate) pools: &'a Pools,
}

impl<M: Machine> Ledger<'_, M> {
    /// Takes `amount` of a resource, or refuses and takes nothing.
    #[inline]
    pub(crate) fn charge(&self, resource: Resource, amount: u64) -> Result<(), Refusal> {
        if !self.machine.grants(self.vm, resource) {
            return Err(Refusal::Quota(resource));
        }
        self.meters.of(resource).charge(self.pools.of(resource), amount)
    }

    /// Gives `amount` of a resource back that was charged before.
    #[inline]
    pub(crate) fn refund(&self, resource: Resource, amount: u64) {
        self.meters.of(resource).refund(self.pools.of(resource), amount);
    }

    /// Whether one more of a resource would be refused now.
    pub(crate) fn is_full(&self, resource: Resource) -> bool {
        !self.machine.grants(self.vm, resource)
            || self.meters.of(resource).is_full(self.pools.of(resource))
    }

    /// How the VM stands with a resource.
    pub(crate) fn usage(&self, resource: Resource) -> Usage {
        self.meters.of(resource).usage(self.pools.of(resource))
    }
}

#[cfg(test)]
mod tests;
