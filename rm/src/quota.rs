//! What a VM may use, and what it uses.
//!
//! Every resource a call takes is charged to the VM that asks (G7), so that a VM at its limits
//! changes nothing for another. Counters are atomics: two vCPUs of one VM may charge at once.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::refusal::{Refusal, Resource};

/// The limits of a VM, from the boot configuration.
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
    /// Frames of the manager (tables, extent lists, long messages) that the VM may use.
    pub frames: u32,
    /// How many of those are kept for the VM alone. At least [`Quotas::MIN_FRAMES`].
    pub frames_reserved: u32,
}

impl Quotas {
    /// A root table and eight frames for a long message and its reply.
    pub const MIN_FRAMES: u32 = 9;

    /// 64 parcels as the original's public version gives a VM, and room for what they describe.
    pub const USUAL: Self = Self {
        parcels: 64,
        pages_lent: 1 << 20,
        pages_accepted: 1 << 20,
        extents: 1 << 16,
        unfinished: 8,
        frames: 512,
        frames_reserved: 64,
    };
}

impl Default for Quotas {
    fn default() -> Self {
        Self::USUAL
    }
}

/// One resource of one VM.
#[derive(Debug)]
pub(crate) struct Meter {
    resource: Resource,
    limit: u64,
    used: AtomicU64,
}

impl Meter {
    pub(crate) const fn new(resource: Resource, limit: u64) -> Self {
        Self { resource, limit, used: AtomicU64::new(0) }
    }

    /// Takes `amount`, or refuses and takes nothing.
    pub(crate) fn charge(&self, amount: u64) -> Result<(), Refusal> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(amount).filter(|&sum| sum <= self.limit)
            })
            .map(drop)
            .map_err(|_| Refusal::Quota(self.resource))
    }

    /// Gives `amount` back that was charged before.
    pub(crate) fn refund(&self, amount: u64) {
        let before = self.used.fetch_sub(amount, Ordering::Relaxed);
        assert!(before >= amount, "G7: {:?} refunded that was never charged", self.resource);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What is used, and the limit.
    fn usage(&self) -> (u64, u64) {
        (self.used(), self.limit)
    }
}

/// The counters of one VM.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) parcels: Meter,
    pub(crate) pages_lent: Meter,
    pub(crate) pages_accepted: Meter,
    pub(crate) extents: Meter,
    pub(crate) unfinished: Meter,
}

impl Meters {
    pub(crate) const fn new(quotas: &Quotas) -> Self {
        Self {
            parcels: Meter::new(Resource::Parcels, quotas.parcels as u64),
            pages_lent: Meter::new(Resource::PagesLent, quotas.pages_lent),
            pages_accepted: Meter::new(Resource::PagesAccepted, quotas.pages_accepted),
            extents: Meter::new(Resource::Extents, quotas.extents),
            unfinished: Meter::new(Resource::Unfinished, quotas.unfinished as u64),
        }
    }

    /// How much of a resource that is counted here is used, and its limit.
    pub(crate) fn usage(&self, resource: Resource) -> (u64, u64) {
        let all = [
            &self.parcels,
            &self.pages_lent,
            &self.pages_accepted,
            &self.extents,
            &self.unfinished,
        ];
        all.into_iter().find(|meter| meter.resource == resource).map_or((0, 0), Meter::usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_limit_takes_nothing() {
        let meter = Meter::new(Resource::Extents, 10);
        meter.charge(8).unwrap();
        assert_eq!(meter.charge(3), Err(Refusal::Quota(Resource::Extents)));
        assert_eq!(meter.used(), 8);
        meter.charge(2).unwrap();
    }

    #[test]
    fn a_charge_that_would_wrap_is_refused() {
        let meter = Meter::new(Resource::PagesLent, u64::MAX);
        meter.charge(u64::MAX).unwrap();
        assert!(meter.charge(1).is_err());
    }
}
