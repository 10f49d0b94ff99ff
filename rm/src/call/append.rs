//! MEM_APPEND: more pages for a parcel that its owner has not finished.
//!
//! As a creation, but for the pages behind those that the parcel has: they are claimed, then
//! committed, and a refusal takes back this call's pages alone. While it is at work no other call of
//! the owner finds the parcel in a state to work on, and nobody else knows of it yet.

use rm_abi::memparcel::append::AppendRequest;
use rm_abi::{AppendFlags, Bytes, Handle};

use crate::call::claim::Claim;
use crate::call::{Caller, owner};
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::table::{ParcelGuard, RecordIndex};
use crate::memparcel::units::Walk;
use crate::memparcel::words::Mark;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::Budget;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::{Refusal, Resource};
use crate::stage2::Change;

/// An append at work.
#[derive(Debug)]
pub(crate) struct Append {
    record: RecordIndex,
    handle: Handle,
    /// No page follows after these.
    last: bool,
    stage: Stage,
    claim: Claim,
    /// The parcel's extents and pages before, and the place behind them.
    before: (Mark, u64),
    start: Place,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// All of it under one lock, if its one range is small.
    AtOnce,
    Claim,
    Commit,
    /// Zero the pages, or clean them where their policy is not write-back.
    Maintain,
    Unclaim(Refusal),
    Rewind(Refusal),
}

/// The request's checks up to its address list.
pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = AppendRequest::decode(payload).map_err(Refusal::Malformed)?;
    if request.sgl.is_empty() {
        return Err(Refusal::EmptyList);
    }
    let (record, mut parcel) = caller.parcel(request.handle)?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    match parcel.phase {
        Phase::Initial => {}
        Phase::Appending => return Err(Refusal::InProgress),
        Phase::Retyping | Phase::Trimming if parcel.unfinished => return Err(Refusal::InProgress),
        _ => return Err(Refusal::NotAppending),
    }
    let single = request.sgl.len() == 1;
    let start = Place { extent: parcel.extents.end(), before: parcel.pages, ..Place::START };
    parcel.phase = Phase::Appending;
    parcel.place = start;
    *operation = Some(Operation::Append(Append {
        record,
        handle: request.handle,
        last: request.flags.contains(AppendFlags::END),
        stage: if single { Stage::AtOnce } else { Stage::Claim },
        claim: Claim::new(request.sgl),
        before: (parcel.extents.mark(), parcel.pages),
        start,
    }));
    Ok(if single { Begun::Short } else { Begun::Long })
}

impl Append {
    fn lock<'a, M: Machine>(&self, caller: Caller<'a, '_, M>) -> ParcelGuard<'a, M::Relax> {
        caller.manager.parcels().lock(caller.machine(), self.record)
    }

    /// Lets the owner go on with the parcel, of which nothing was changed.
    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        self.lock(caller).phase = Phase::Initial;
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = self.lock(caller);
        assert!(parcel.handle == self.handle, "G6: a parcel went while its append was at work");
        loop {
            let walk = match self.stage {
                Stage::AtOnce => match self.claim.at_once(&mut parcel, caller, payload) {
                    Ok(true) => return Step::Done(Ok(self.settle(&mut parcel, caller))),
                    Ok(false) => {
                        self.stage = Stage::Claim;
                        return Step::More;
                    }
                    Err(refusal) => {
                        self.stage = Stage::Rewind(refusal);
                        continue;
                    }
                },
                Stage::Claim => match self.claim.run(&mut parcel, caller, payload, budget) {
                    Ok(walk) => walk,
                    Err(refusal) => {
                        self.claim.close(&mut parcel, caller);
                        parcel.place = self.start;
                        self.stage = Stage::Unclaim(refusal);
                        continue;
                    }
                },
                Stage::Commit => {
                    let change = owner::offer(&parcel, caller.vmid());
                    owner::change(&mut parcel, caller, change, budget)
                }
                Stage::Maintain => owner::maintain(&mut parcel, caller, budget),
                Stage::Unclaim(_) => owner::change(&mut parcel, caller, Change::Unclaim, budget),
                Stage::Rewind(_) => self.rewind(&mut parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            parcel.place = self.start;
            self.stage = match self.stage {
                Stage::AtOnce | Stage::Claim => Stage::Commit,
                Stage::Commit if owner::needs_maintenance(&parcel) => Stage::Maintain,
                Stage::Commit | Stage::Maintain => {
                    return Step::Done(Ok(self.settle(&mut parcel, caller)));
                }
                Stage::Unclaim(refusal) => Stage::Rewind(refusal),
                Stage::Rewind(refusal) => {
                    parcel.phase = Phase::Initial;
                    return Step::Done(Err(refusal));
                }
            };
        }
    }

    /// The pages are part of the parcel from here on.
    fn settle<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) -> Reply {
        parcel.settled = parcel.extents.len();
        parcel.phase = if self.last { Phase::Offered } else { Phase::Initial };
        if self.last {
            parcel.unfinished = false;
            caller.ledger().refund(Resource::Unfinished, 1);
        }
        Reply::Empty
    }

    /// Forgets this call's extents and returns their frames and charges.
    fn rewind<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let (mark, pages) = self.before;
        let ledger = caller.ledger();
        // The first step does all but the frames.
        ledger.refund(Resource::Extents, (parcel.extents.len() - mark.len()).into());
        ledger.refund(Resource::PagesLent, parcel.pages - pages);
        parcel.pages = pages;
        let all = parcel.extents.rewind(caller.mem(), caller.vm, mark, budget);
        if all { Walk::End } else { Walk::More }
    }
}
