//! MEM_RELEASE: a borrower gives its mapping up.

use rm_abi::extension::{EventKind, EventReason};
use rm_abi::memparcel::handle::ReleaseRequest;
use rm_abi::{Bytes, Handle, Sanitize};

use crate::call::accept::change_borrower;
use crate::call::will::end_part;
use crate::call::{Caller, device, extension};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{Walk, end_at};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::{Refusal, Resource};
use crate::stage2::Change;

/// A release at work. It cannot be refused any more.
#[derive(Debug)]
pub(crate) struct Release {
    record: RecordIndex,
    handle: Handle,
    borrower: usize,
    /// The borrower's, as long as nobody takes this over.
    epoch: u32,
    /// What to put back if the call is given up before its first step.
    before: (Stage, Place),
    /// Zero the pages. Not said to the parcel before the first step: what others have said of it meanwhile
    /// could not be told from it.
    sanitize: bool,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = ReleaseRequest::decode(payload).map_err(Refusal::Malformed)?;
    let (record, mut parcel) = caller.parcel(request.handle)?;
    let index = parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?;
    let sanitize = request.flags.contains(Sanitize::SANITIZE);
    let whole = parcel.end();
    let end = match parcel.borrowers[index].stage {
        Stage::Away => return Err(Refusal::NotHeld),
        Stage::Assigned => end_at(&parcel.borrowers[index].place),
        Stage::Mapped => whole,
        _ => return Err(Refusal::InProgress),
    };
    if sanitize {
        parcel.may_sanitize(caller.vmid())?;
    }
    let state = &mut parcel.borrowers[index];
    let before = (state.stage, state.place);
    (state.stage, state.place, state.end) = (Stage::Releasing, Place::START, end);
    let (handle, epoch) = (request.handle, state.epoch);
    let release = Release { record, handle, borrower: index, epoch, before, sanitize };
    *operation = Some(Operation::Release(release));
    let short = caller.fits_step(parcel.pages, parcel.pieces(Some(index)), weight::SHORT_PAGE)
        && parcel.attachments.first_of(caller.vm).is_none();
    Ok(if short { Begun::Short } else { Begun::Long })
}

impl Release {
    /// Whether somebody else has ended what this call was at.
    fn is_over(&self, parcel: &Memparcel) -> bool {
        parcel.handle != self.handle || parcel.borrowers[self.borrower].epoch != self.epoch
    }

    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        if self.is_over(&parcel) {
            return;
        }
        let (stage, place) = self.before;
        parcel.borrowers[self.borrower].stage = stage;
        parcel.borrowers[self.borrower].place = place;
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        if self.is_over(&parcel) {
            return Step::Done(Err(Refusal::NoParcel));
        }
        parcel.sanitize |= self.sanitize;
        if device::withdraw(&mut parcel, caller, budget) == Walk::More {
            return Step::More;
        }
        let (index, end) = (self.borrower, parcel.borrowers[self.borrower].end);
        if change_borrower(&mut parcel, caller, index, end, Change::Unmap, budget) == Walk::More
            || forget(&mut parcel, self.record, caller, index, budget) == Walk::More
        {
            return Step::More;
        }
        let event = (EventKind::Released, EventReason::CALL);
        extension::tell(caller, &parcel, self.record, index, event);
        Step::Done(Ok(Reply::Empty))
    }
}

/// Ends the caller's part in the parcel: its addresses and charges go back.
pub(crate) fn forget<M: Machine>(
    parcel: &mut Memparcel,
    record: RecordIndex,
    caller: Caller<'_, '_, M>,
    borrower: usize,
    budget: &mut Budget,
) -> Walk {
    if end_part(parcel, caller, borrower, budget) == Walk::More {
        return Walk::More;
    }
    let state = &mut parcel.borrowers[borrower];
    if !state.addresses.clear(caller.mem(), caller.vm, budget) {
        return Walk::More;
    }
    state.stage = Stage::Away;
    state.place = Place::START;
    state.holes.clear();
    state.accesses = 0;
    let pages = core::mem::take(&mut state.pages);
    caller.ledger().refund(Resource::PagesAccepted, pages);
    caller.manager.unlist_held(caller.vm, record, borrower);
    caller.manager.wake_teardown(parcel.owner);
    Walk::End
}
