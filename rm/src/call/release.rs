//! MEM_RELEASE: a borrower gives its mapping up.

use rm_abi::extension::EventKind;
use rm_abi::memparcel::handle::ReleaseRequest;
use rm_abi::{Bytes, Sanitize};

use crate::call::accept::change_borrower;
use crate::call::{Caller, extension};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{End, Walk, end_at};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::Change;

/// A release at work. It cannot be refused any more.
#[derive(Debug)]
pub(crate) struct Release {
    record: RecordIndex,
    borrower: usize,
    end: End,
    /// What to put back if the call is given up before its first step.
    before: (Stage, Place, bool),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = ReleaseRequest::decode(payload).map_err(Refusal::Malformed)?;
    let (record, mut parcel) = caller.manager.parcels().get(caller.machine(), request.handle)?;
    parcel.check_party(caller.vm, caller.vmid())?;
    let index = parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?;
    let sanitize = request.flags.contains(Sanitize::SANITIZE);
    let whole = parcel.end();
    let end = match parcel.borrowers[index].stage {
        Stage::Away => return Err(Refusal::NotHeld),
        Stage::Assigning | Stage::Mapping | Stage::Releasing | Stage::Revoking => {
            return Err(Refusal::InProgress);
        }
        Stage::Assigned => end_at(&parcel.borrowers[index].place),
        Stage::Mapped => whole,
    };
    if sanitize {
        parcel.may_sanitize(caller.vmid())?;
    }
    let state = &parcel.borrowers[index];
    let before = (state.stage, state.place, parcel.sanitize);
    parcel.sanitize |= sanitize;
    parcel.borrowers[index].stage = Stage::Releasing;
    parcel.borrowers[index].place = Place::START;
    *operation = Some(Operation::Release(Release { record, borrower: index, end, before }));
    let short = caller.fits_step(parcel.pages, parcel.extents.len(), weight::SHORT_PAGE);
    Ok(if short { Begun::Short } else { Begun::Long })
}

impl Release {
    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        let (stage, place, sanitize) = self.before;
        parcel.sanitize = sanitize;
        parcel.borrowers[self.borrower].stage = stage;
        parcel.borrowers[self.borrower].place = place;
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        let (index, end) = (self.borrower, self.end);
        if change_borrower(&mut parcel, caller, index, end, Change::Unmap, budget) == Walk::More
            || forget(&mut parcel, caller, index, budget) == Walk::More
        {
            return Step::More;
        }
        extension::tell(caller, &parcel, self.record, index, EventKind::Released);
        Step::Done(Ok(Reply::Empty))
    }
}

/// Ends the caller's part in the parcel: its addresses and charges go back.
pub(crate) fn forget<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    borrower: usize,
    budget: &mut Budget,
) -> Walk {
    let pages = parcel.pages;
    let state = &mut parcel.borrowers[borrower];
    if !state.addresses.clear(caller.mem(), caller.vm, budget) {
        return Walk::More;
    }
    state.stage = Stage::Away;
    state.place = Place::START;
    caller.state().meters.pages_accepted.refund(pages);
    Walk::End
}
