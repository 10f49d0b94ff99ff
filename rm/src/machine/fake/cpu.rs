//! What a VM sees: loads, stores and instruction fetches by guest physical address.

use super::cache::Path;
use super::{FakeMachine, Hardware, Point, reach};
use crate::address::{Ipa, PAGE_SIZE, Pa};
use crate::machine::TranslationContext;
use crate::stage2::Access;

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No valid translation.
    Translation,
    /// A translation that does not allow the access.
    Permission,
}

/// A CPU with a VM's tables loaded.
#[derive(Clone, Copy)]
pub struct VirtualCpu<'m> {
    machine: &'m FakeMachine,
    context: TranslationContext,
    stage_1: Path,
}

impl<'m> VirtualCpu<'m> {
    pub(super) const fn new(machine: &'m FakeMachine, context: TranslationContext) -> Self {
        Self { machine, context, stage_1: Path::Cached }
    }

    /// The same CPU with own tables that map everything non-cacheable, where stage 2 lets them.
    pub const fn uncached(self) -> Self {
        Self { stage_1: Path::Uncached, ..self }
    }

    /// Where an access goes. A translation that was cached once is used until it is invalidated.
    pub fn translate(&self, at: Ipa, access: Access) -> Result<Pa, Fault> {
        self.access(at, access, |_, pa, _| pa)
    }

    /// Loads a byte.
    pub fn read(&self, at: Ipa) -> Result<u8, Fault> {
        self.access(at, Access::Read, |hardware, pa, path| hardware.cache.load(pa, path))
    }

    /// Stores a byte.
    pub fn write(&self, at: Ipa, value: u8) -> Result<(), Fault> {
        self.access(at, Access::Write, |hardware, pa, path| hardware.cache.store(pa, path, value))
    }

    /// Stores a byte everywhere in the page that begins at `at`, as one event.
    pub fn fill(&self, at: Ipa, value: u8) -> Result<(), Fault> {
        assert!(at.0.is_multiple_of(PAGE_SIZE), "a page begins at its first byte");
        self.access(at, Access::Write, |hardware, pa, path| hardware.cache.fill(pa, path, value))
    }

    /// Fetches an instruction.
    pub fn execute(&self, at: Ipa) -> Result<(), Fault> {
        self.access(at, Access::Execute, |_, _, _| ())
    }

    /// An access as hypervisor and VM play it: after a fault `allows` looks the page up in the VM's
    /// tables, under the VM's lock; if the access is allowed by now, the CPU drops what it has cached
    /// of the page and tries again.
    pub fn retrying(
        &self,
        at: Ipa,
        access: Access,
        allows: impl Fn(Ipa, Access) -> Option<Pa>,
    ) -> Result<Pa, Fault> {
        for _ in 0..1000 {
            match self.translate(at, access) {
                Err(_) if allows(at, access).is_some() => self.forget(at),
                result => return result,
            }
        }
        panic!("an access that the tables allow keeps faulting at {at:?}");
    }

    /// Drops translations of the page that grant too little. What grants too much stays: that is for
    /// the manager's invalidation.
    pub fn forget(&self, at: Ipa) {
        let mut hardware = self.machine.hardware();
        hardware.tables.tlb.weak.remove(self.context.tag.0, at.page(), 1);
    }

    /// Translation and access are one event: no invalidation completes in between.
    fn access<T>(
        &self,
        at: Ipa,
        access: Access,
        touch: impl FnOnce(&mut Hardware, Pa, Path) -> T,
    ) -> Result<T, Fault> {
        reach(Point::Next);
        let mut hardware = self.machine.hardware();
        let found = hardware.tables.translate(&self.machine.frames, self.context.tag.0, at.page());
        let found = found.ok_or(Fault::Translation)?;
        let allowed = match access {
            Access::Read => found.read,
            Access::Write => found.write,
            Access::Execute => found.execute,
        };
        if !allowed {
            return Err(Fault::Permission);
        }
        let pa = Pa(found.pa.0 + at.0 % PAGE_SIZE);
        Ok(touch(&mut hardware, pa, found.path(self.stage_1)))
    }
}
