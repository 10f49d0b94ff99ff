//! CPU_ACCESS: a VM brackets its own use of a parcel that devices use.
//!
//! A device that does not look into the caches writes memory behind them: before a CPU reads, lines that
//! were cached are to go, and before it writes a part of a line the rest must be what memory says; what it
//! has written must be in memory before the device is told. So a beginning of either kind, and the end of a
//! write, clean and invalidate the pages; an end of a read has nothing to do. Cleaning and invalidating
//! loses nothing of anybody's, so it takes no right to write, and there is no operation that only
//! invalidates. Where caches are not in the way, a bracket is only counted.
//!
//! Brackets nest and are counted for each VM. They hold nobody up: a VM that loses the parcel inside one
//! has lost it.

use rm_abi::extension::{AccessFlags, CpuAccessRequest};
use rm_abi::{Bytes, Handle, Rights};

use crate::address::Pa;
use crate::call::device::part;
use crate::call::{Caller, extension as replies, owner};
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::holes::Gone;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{self, Walk};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::MemoryType;

/// A bracket at work.
#[derive(Debug)]
pub(crate) struct CpuAccess {
    record: RecordIndex,
    handle: Handle,
    flags: AccessFlags,
    /// How far the maintenance is.
    place: Place,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let CpuAccessRequest { handle, flags } =
        CpuAccessRequest::decode(payload).map_err(replies::refusal)?;
    if !flags.intersects(AccessFlags::READ | AccessFlags::WRITE) {
        return Err(Refusal::Direction);
    }
    let (record, parcel) = caller.parcel(handle)?;
    let entry = check(&parcel, caller, flags)?;
    let access = CpuAccess { record, handle, flags, place: Place::START };
    let weight = if access.cleans(&parcel) { weight::COPY_PAGE } else { 0 };
    let pages = if access.cleans(&parcel) { parcel.pages } else { 1 };
    let pieces = if access.cleans(&parcel) { parcel.pieces(entry.map(usize::from)) } else { 0 };
    let is_short = caller.fits_step(pages, pieces, weight);
    *operation = Some(Operation::CpuAccess(access));
    Ok(if is_short { Begun::Short } else { Begun::Long })
}

/// Whether the caller may say this now; its ACL entry, or none if it is the owner.
fn check<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    flags: AccessFlags,
) -> Result<Option<u8>, Refusal> {
    let (entry, granted) = part(parcel, caller)?;
    match parcel.phase {
        Phase::Initial | Phase::Offered | Phase::Closing => {}
        _ => return Err(Refusal::InProgress),
    }
    let mut wanted = Rights::empty();
    wanted.set(Rights::R, flags.contains(AccessFlags::READ));
    wanted.set(Rights::W, flags.contains(AccessFlags::WRITE));
    if !granted.contains(wanted) {
        return Err(Refusal::DeviceRights);
    }
    let accesses = match entry {
        Some(entry) => parcel.borrowers[usize::from(entry)].accesses,
        None => parcel.accesses,
    };
    if flags.contains(AccessFlags::END) && accesses == 0 {
        return Err(Refusal::NoAccess);
    }
    Ok(entry)
}

impl CpuAccess {
    /// Whether caches and memory have to be brought together.
    fn cleans(&self, parcel: &Memparcel) -> bool {
        let is_due =
            !self.flags.contains(AccessFlags::END) || self.flags.contains(AccessFlags::WRITE);
        let is_cached = parcel.acl.policy() == MemoryType::WriteBack;
        is_due && (!is_cached || parcel.attachments.bypass_caches())
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let (machine, mem) = (caller.machine(), caller.mem());
        let mut guard = caller.manager.parcels().lock(machine, self.record);
        let parcel = &mut *guard;
        if parcel.handle != self.handle {
            return Step::Done(Err(Refusal::NoParcel));
        }
        // Since the last step the caller may have lost its part in it.
        let checked =
            parcel.check_party(caller.vm).and_then(|()| check(parcel, caller, self.flags));
        let entry = match checked {
            Ok(entry) => entry,
            Err(refusal) => return Step::Done(Err(refusal)),
        };
        if self.cleans(parcel) {
            let own =
                entry.map_or(&[][..], |entry| parcel.borrowers[usize::from(entry)].holes.all());
            let pages = (&parcel.extents, Gone(parcel.holes.all(), own));
            let clean = |_: &M, page| caller.clean_page(page);
            let end = parcel.end();
            let walk = units::pages(pages, mem, &mut self.place, end, budget, |piece, budget| {
                owner::touch(machine, piece, weight::COPY_PAGE, budget, clean)
            });
            if walk == Walk::More {
                return Step::More;
            }
        }
        let accesses = match entry {
            Some(entry) => &mut parcel.borrowers[usize::from(entry)].accesses,
            None => &mut parcel.accesses,
        };
        *accesses = if self.flags.contains(AccessFlags::END) {
            *accesses - 1
        } else {
            accesses.saturating_add(1)
        };
        Step::Done(Ok(Reply::Empty))
    }
}

impl<M: Machine> Caller<'_, '_, M> {
    /// Cleans and invalidates a page for a device of this VM, or around its CPU access.
    pub(crate) fn clean_page(&self, page: Pa) {
        self.machine().clean_invalidate_page(page);
        self.state().counts.cleaned.raise_shared();
    }
}
