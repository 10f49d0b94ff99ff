//! MEM_RECLAIM: the owner ends a parcel that nobody holds.

use rm_abi::memparcel::handle::ReclaimRequest;
use rm_abi::{Bytes, Handle, Sanitize};

use crate::call::{Caller, extension, owner, will};
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::Walk;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::Change;

/// A reclaim at work. Only the machine can refuse it now.
#[derive(Debug)]
pub(crate) struct Reclaim {
    record: RecordIndex,
    handle: Handle,
    stage: Stage,
    /// What to put back if the call is given up before its first step.
    before: (Phase, bool),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Ask the machine whether the pages may go home.
    Inspect,
    /// Zero the pages, or clean them where their policy is not write-back.
    Maintain,
    Restore,
    Clear,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = ReclaimRequest::decode(payload).map_err(Refusal::Malformed)?;
    let (record, mut parcel) = caller.parcel(request.handle)?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    if matches!(parcel.phase, Phase::Appending | Phase::Retyping | Phase::Trimming) {
        return Err(Refusal::InProgress);
    }
    if parcel.poisoned {
        return Err(Refusal::Poisoned);
    }
    if parcel.is_in_use() {
        return Err(Refusal::Held(extension::holders(caller, &parcel)));
    }
    let sanitize = request.flags.contains(Sanitize::SANITIZE);
    if sanitize && parcel.is_device() {
        return Err(Refusal::DeviceMemory);
    }
    let before = (parcel.phase, parcel.sanitize);
    parcel.sanitize |= sanitize;
    parcel.phase = Phase::Reclaiming;
    parcel.place = Place::START;
    let maintained = owner::needs_maintenance(&parcel);
    let stage = first_stage::<M>(&parcel);
    *operation =
        Some(Operation::Reclaim(Reclaim { record, handle: request.handle, stage, before }));
    let weight = if maintained { owner::MAINTAINED_PAGE } else { weight::SHORT_PAGE };
    let short = caller.fits_step(parcel.pages, parcel.pieces(None), weight);
    Ok(if short { Begun::Short } else { Begun::Long })
}

/// What is done first: what is not needed is left out.
fn first_stage<M: Machine>(parcel: &Memparcel) -> Stage {
    if M::MAY_POISON { Stage::Inspect } else { after_inspection(parcel) }
}

fn after_inspection(parcel: &Memparcel) -> Stage {
    if owner::needs_maintenance(parcel) { Stage::Maintain } else { Stage::Restore }
}

impl Reclaim {
    /// The end of a parcel that nobody holds and whose owner has ended: its pages are zeroed.
    pub(crate) fn of_dead_owner<M: Machine>(parcel: &mut Memparcel, record: RecordIndex) -> Self {
        let before = (parcel.phase, parcel.sanitize);
        parcel.sanitize = true;
        parcel.phase = Phase::Reclaiming;
        parcel.place = Place::START;
        Self { record, handle: parcel.handle, stage: first_stage::<M>(parcel), before }
    }

    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        (parcel.phase, parcel.sanitize) = self.before;
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        assert!(parcel.handle == self.handle, "G6: a parcel went while its reclaim was at work");
        // While the pages are the parcel's.
        if will::end_owners_part(&mut parcel, caller, budget) == Walk::More {
            return Step::More;
        }
        loop {
            let walk = match self.stage {
                Stage::Inspect => {
                    let end = parcel.end();
                    owner::inspect_until(&mut parcel, caller, end, budget)
                }
                Stage::Maintain => owner::maintain(&mut parcel, caller, budget),
                Stage::Restore => owner::change(&mut parcel, caller, Change::Restore, budget),
                Stage::Clear => owner::clear(&mut parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            parcel.place = Place::START;
            self.stage = match self.stage {
                Stage::Inspect if parcel.poisoned => {
                    parcel.phase = Phase::Closing;
                    return Step::Done(Err(Refusal::Poisoned));
                }
                Stage::Inspect => after_inspection(&parcel),
                Stage::Maintain => Stage::Restore,
                Stage::Restore => Stage::Clear,
                Stage::Clear => {
                    caller.manager.retire(&mut parcel, self.record);
                    return Step::Done(Ok(Reply::Empty));
                }
            };
        }
    }
}
