//! MEM_NOTIFY: one party of a parcel tells the other something.
//!
//! The owner tells borrowers of its list that a parcel is theirs to accept, or that it wants it back; a
//! borrower tells the owner that it has accepted or released. Nothing is told unasked. All targets are
//! checked before the first hears anything.

use rm_abi::memparcel::notify::NotifyRequest;
use rm_abi::{Bytes, ErrorCode, Handle, List, NotifyFlag, Vmid, VmidEntry};

use crate::call::Caller;
use crate::link::notice::News;
use crate::machine::Machine;
use crate::memparcel::borrower::Stage;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;

/// A notification at work. Only the end of its parcel stops it.
#[derive(Debug)]
pub(crate) struct Notify {
    record: RecordIndex,
    handle: Handle,
    news: News,
    /// What the owner calls the parcel, if this is its first offer.
    tag: Option<u32>,
    audience: Audience,
}

/// Who hears it.
#[derive(Debug)]
enum Audience {
    /// The owner hears about the borrower at this place of the ACL.
    Owner(usize),
    /// The borrowers of the request's list, from this one on.
    Borrowers(List<VmidEntry>, usize),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = NotifyRequest::decode(payload).map_err(Refusal::Malformed)?;
    let (record, parcel) = caller.parcel(request.handle)?;
    let is_changed = matches!(parcel.phase, Phase::Retyping | Phase::Trimming);
    if parcel.phase == Phase::Appending || is_changed && parcel.owner == caller.vm {
        return Err(Refusal::InProgress);
    }
    if parcel.tag.is_some_and(|tag| tag != request.tag) {
        return Err(Refusal::NotifyTag);
    }
    let flag = request.flag.ok_or(Refusal::NotifyFlag)?;
    let (news, audience) = match flag {
        NotifyFlag::Shared => (News::Shared, borrowers(&parcel, caller, payload)?),
        NotifyFlag::Recall => (News::Recall, borrowers(&parcel, caller, payload)?),
        NotifyFlag::Accepted => (News::Accepted, owner(&parcel, caller, flag)?),
        NotifyFlag::Released => (News::Released, owner(&parcel, caller, flag)?),
    };
    let short = !matches!(&audience, Audience::Borrowers(targets, _) if targets.len() > 1);
    let tag = (news == News::Shared).then_some(request.tag);
    let handle = request.handle;
    *operation = Some(Operation::Notify(Notify { record, handle, news, tag, audience }));
    Ok(if short { Begun::Short } else { Begun::Long })
}

/// The borrowers that the owner names.
fn borrowers<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
) -> Result<Audience, Refusal> {
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    let targets = NotifyRequest::targets(payload).map_err(|code| match code {
        ErrorCode::ArgumentInvalid => Refusal::EmptyList,
        code => Refusal::Malformed(code),
    })?;
    if targets.len() > parcel.acl.len() {
        return Err(Refusal::TooManyTargets);
    }
    for VmidEntry(vmid) in targets.iter(payload) {
        // The primary VM and the manager count as there, whether this system has them or not.
        let exists = matches!(vmid, Vmid::PRIMARY | Vmid::RESOURCE_MANAGER)
            || caller.manager.find(vmid).is_some();
        if !exists {
            return Err(Refusal::TargetVmid);
        }
        if parcel.acl.position(vmid).is_none() {
            return Err(Refusal::TargetNotInAcl);
        }
    }
    Ok(Audience::Borrowers(targets, 0))
}

/// The owner, if what the caller says of itself is true.
fn owner<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    flag: NotifyFlag,
) -> Result<Audience, Refusal> {
    let entry = parcel.acl.position(caller.vmid()).ok_or(Refusal::NoParcel)?;
    let state = &parcel.borrowers[entry];
    match state.stage {
        _ if state.is_busy() => Err(Refusal::InProgress),
        Stage::Away if flag == NotifyFlag::Accepted => Err(Refusal::NotHeld),
        Stage::Assigned | Stage::Mapped if flag == NotifyFlag::Released => Err(Refusal::StillHeld),
        _ => Ok(Audience::Owner(entry)),
    }
}

impl Notify {
    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        // Another vCPU may have reclaimed it, and then there is nothing left to tell.
        if parcel.handle != self.handle {
            return Step::Done(Err(Refusal::NoParcel));
        }
        if let Some(tag) = self.tag {
            parcel.tag.get_or_insert(tag);
        }
        match &mut self.audience {
            Audience::Owner(entry) => caller.manager.post(&parcel, self.record, *entry, self.news),
            Audience::Borrowers(targets, next) => {
                while *next < targets.len() {
                    if !budget.spend(weight::OFFER) {
                        return Step::More;
                    }
                    let VmidEntry(vmid) = targets.get(payload, *next);
                    let entry = parcel.acl.position(vmid).expect("G6: an ACL does not change");
                    parcel.told |= 1 << entry;
                    caller.manager.post(&parcel, self.record, entry, self.news);
                    *next += 1;
                }
            }
        }
        Step::Done(Ok(Reply::Empty))
    }
}
