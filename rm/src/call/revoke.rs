//! REVOKE: the owner takes a parcel away from its borrowers, without their help.
//!
//! From the first step on the parcel is closing: to its borrowers it answers as a handle that never was,
//! so nobody can hold it up by accepting again and again. Each mapping is removed in steps, and so is
//! what an accept or release that is at work has done. What remains is a parcel that nobody holds, for
//! the owner to reclaim.
//!
//! A polite one comes before: it lets nobody begin to use the parcel, and asks those that do to end.

use rm_abi::extension::{RevokeFlags, RevokeRequest};
use rm_abi::{Bytes, Handle};

use crate::call::evict::evict;
use crate::call::{Caller, extension, will};
use crate::link::notice::News;
use crate::machine::Machine;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::Walk;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;

/// A revocation at work. It cannot be refused any more.
#[derive(Debug)]
pub(crate) struct Revoke {
    record: RecordIndex,
    handle: Handle,
    /// The borrowers are asked, and nobody else may begin.
    polite: bool,
    /// The ACL entry that is next.
    entry: usize,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = RevokeRequest::decode(payload).map_err(extension::refusal)?;
    let handle = request.handle;
    let (record, parcel) = caller.parcel(handle)?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    match parcel.phase {
        // Before it is offered nobody has it.
        Phase::Initial => return Ok(Begun::Answer(Reply::Empty)),
        Phase::Appending | Phase::Retyping | Phase::Trimming => return Err(Refusal::InProgress),
        _ => {}
    }
    let polite = request.flags.contains(RevokeFlags::RECALL);
    *operation = Some(Operation::Revoke(Revoke { record, handle, polite, entry: 0 }));
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
        if matches!(parcel.phase, Phase::Reclaiming | Phase::Retyping | Phase::Trimming) {
            return Step::More;
        }
        if self.polite {
            return match recall_from(&mut parcel, self.record, caller, &mut self.entry, budget) {
                Walk::More => Step::More,
                Walk::End => Step::Done(Ok(Reply::Empty)),
            };
        }
        if will::end_owners_part(&mut parcel, caller, budget) == Walk::More {
            return Step::More;
        }
        match revoke_from(&mut parcel, self.record, caller, &mut self.entry, budget) {
            Walk::More => Step::More,
            Walk::End => Step::Done(Ok(Reply::Empty)),
        }
    }
}

/// Takes the parcel away from the VMs of its ACL, from `entry` on, and tells them.
pub(crate) fn revoke_from<M: Machine>(
    parcel: &mut Memparcel,
    record: RecordIndex,
    caller: Caller<'_, '_, M>,
    entry: &mut usize,
    budget: &mut Budget,
) -> Walk {
    parcel.phase = Phase::Closing;
    while *entry < parcel.acl.len() {
        if budget.is_spent() {
            return Walk::More;
        }
        if parcel.borrowers[*entry].holds() {
            parcel.told |= 1 << *entry;
        }
        if evict(parcel, record, caller, *entry, budget) == Walk::More {
            return Walk::More;
        }
        if parcel.told >> *entry & 1 != 0 {
            parcel.told &= !(1 << *entry);
            caller.manager.post(parcel, record, *entry, News::Recall);
        }
        *entry += 1;
        // Paid afterwards, so that a budget of one still does a page.
        let _ = budget.spend(weight::ENTRY);
    }
    Walk::End
}

/// Asks the VMs of the ACL, from `entry` on, to release what they have. It is one way.
pub(crate) fn recall_from<M: Machine>(
    parcel: &mut Memparcel,
    record: RecordIndex,
    caller: Caller<'_, '_, M>,
    entry: &mut usize,
    budget: &mut Budget,
) -> Walk {
    parcel.recalled = true;
    while *entry < parcel.acl.len() {
        if budget.is_spent() {
            return Walk::More;
        }
        if parcel.borrowers[*entry].holds() || parcel.told >> *entry & 1 != 0 {
            caller.manager.post(parcel, record, *entry, News::Recall);
        }
        *entry += 1;
        let _ = budget.spend(weight::ENTRY);
    }
    Walk::End
}
