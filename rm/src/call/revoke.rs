//! REVOKE: the owner takes a parcel away from its borrowers, without their help.
//!
//! From the first step on the parcel is closing: to its borrowers it answers as a handle that never was,
//! so nobody can hold it up by accepting again and again. Each mapping is removed in steps; an accept or
//! release that is at work meanwhile is let end, which its own VM's steps bring about. What remains is a
//! parcel that nobody holds, for the owner to reclaim. The pages of a lend are zeroed then (G5): its
//! borrowers had no chance to take their data away.

use rm_abi::extension::RevokeRequest;
use rm_abi::{Bytes, Handle, Transfer};

use crate::call::accept::change_borrower;
use crate::call::{Caller, extension, release};
use crate::link::notice::News;
use crate::machine::Machine;
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{End, Walk, end_at};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::Change;

/// A revocation at work. It cannot be refused any more.
#[derive(Debug)]
pub(crate) struct Revoke {
    record: RecordIndex,
    handle: Handle,
    /// The ACL entry that is next, and where its mapping ends while it is being removed.
    entry: usize,
    end: End,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = RevokeRequest::decode(payload).map_err(extension::refusal)?;
    let handle = request.handle;
    let (record, parcel) = caller.manager.parcels().get(caller.machine(), handle)?;
    parcel.check_party(caller.vm, caller.vmid())?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    match parcel.phase {
        // Before it is offered nobody has it.
        Phase::Initial => return Ok(Begun::Answer(Reply::Empty)),
        Phase::Appending => return Err(Refusal::InProgress),
        _ => {}
    }
    *operation = Some(Operation::Revoke(Revoke { record, handle, entry: 0, end: (0, 0) }));
    Ok(Begun::Long)
}

impl Revoke {
    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        // A donation that was accepted, or a reclaim of another vCPU, has ended it.
        if parcel.handle != self.handle {
            return Step::Done(Ok(Reply::Empty));
        }
        if parcel.phase == Phase::Reclaiming {
            return Step::More;
        }
        parcel.phase = Phase::Closing;
        while self.entry < parcel.acl.len() {
            if budget.is_spent() || self.remove(&mut parcel, caller, budget) == Walk::More {
                return Step::More;
            }
            self.entry += 1;
            // Paid afterwards, so that a budget of one still does a page.
            let _ = budget.spend(weight::ENTRY);
        }
        Step::Done(Ok(Reply::Empty))
    }

    /// Removes what the borrower at `entry` has.
    fn remove<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let whole = parcel.end();
        let state = &mut parcel.borrowers[self.entry];
        match state.stage {
            Stage::Away => return Walk::End,
            // Its own VM's steps end it.
            Stage::Assigning | Stage::Mapping | Stage::Releasing => return Walk::More,
            Stage::Assigned | Stage::Mapped => {
                self.end = match state.stage {
                    Stage::Assigned => end_at(&state.place),
                    _ => whole,
                };
                state.stage = Stage::Revoking;
                state.place = Place::START;
                parcel.sanitize |= parcel.transfer == Transfer::Lend;
            }
            Stage::Revoking => {}
        }
        let vmid = parcel.acl.entries()[self.entry].vmid;
        let vm = caller.manager.find(vmid).expect("G3: only a VM holds a parcel");
        let borrower = Caller { vm, ..caller };
        let (entry, end) = (self.entry, self.end);
        if change_borrower(parcel, borrower, entry, end, Change::Unmap, budget) == Walk::More
            || release::forget(parcel, borrower, entry, budget) == Walk::More
        {
            return Walk::More;
        }
        caller.manager.post(parcel, self.record, entry, News::Recall);
        Walk::End
    }
}
