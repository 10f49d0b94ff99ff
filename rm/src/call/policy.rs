//! SET_POLICY: another cache policy for a parcel that nobody but its owner has.
//!
//! The owner's own leaves of a share change by break-before-make, with the maintenance that the new
//! type asks for; of a lend only the content has to move between caches and memory. While that takes
//! steps, nobody can accept, append or reclaim, so no two VMs ever have a page with different types.

use rm_abi::extension::{Policy, SetPolicyRequest};
use rm_abi::{Bytes, Handle, Transfer};

use crate::call::{Caller, extension, owner};
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::Walk;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::Budget;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::{Change, MemoryType};

/// A change of policy at work. It cannot be refused any more.
#[derive(Debug)]
pub(crate) struct SetPolicy {
    record: RecordIndex,
    handle: Handle,
    policy: MemoryType,
    stage: Stage,
    /// Where the parcel was in its life, and is again at the end.
    before: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The owner's leaves change type.
    Retype,
    /// Caches and memory are brought together: behind a change to non-cacheable, before one to
    /// write-back (see [`owner::maintain`]).
    Clean,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = SetPolicyRequest::decode(payload).map_err(extension::refusal)?;
    let handle = request.handle;
    let (record, mut parcel) = caller.parcel(handle)?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    let policy = wanted(&parcel, request.policy)?;
    match parcel.phase {
        Phase::Initial | Phase::Offered => {}
        Phase::Closing => return Err(Refusal::Closing),
        _ => return Err(Refusal::InProgress),
    }
    if parcel.is_in_use() {
        return Err(Refusal::Held(extension::holders(caller, &parcel)));
    }
    if policy == parcel.acl.policy() {
        return Ok(Begun::Answer(Reply::Empty));
    }
    let before = parcel.phase;
    parcel.phase = Phase::Retyping;
    parcel.place = Place::START;
    let stage = stages(&parcel, policy)[0].expect("content has to move whatever the kind");
    *operation = Some(Operation::SetPolicy(SetPolicy { record, handle, policy, stage, before }));
    let short = caller.fits_step(parcel.pages, parcel.pieces(None), owner::MAINTAINED_PAGE);
    Ok(if short { Begun::Short } else { Begun::Long })
}

/// The memory type of a policy that the parcel's pages can have.
fn wanted(parcel: &Memparcel, policy: Policy) -> Result<MemoryType, Refusal> {
    let memory = match policy {
        Policy::Cached => MemoryType::WriteBack,
        Policy::Uncached => MemoryType::NonCacheable,
        Policy::Device => MemoryType::Device,
    };
    let fits = (memory == MemoryType::Device) == parcel.is_device();
    // What is given away has the default type, as at its creation.
    let default = parcel.transfer != Transfer::Donate || memory == parcel.acl.policy();
    if fits && default { Ok(memory) } else { Err(Refusal::Policy) }
}

/// What is done, in this order.
fn stages(parcel: &Memparcel, policy: MemoryType) -> [Option<Stage>; 2] {
    match (parcel.transfer, policy) {
        (Transfer::Share, MemoryType::WriteBack) => [Some(Stage::Clean), Some(Stage::Retype)],
        (Transfer::Share, _) => [Some(Stage::Retype), Some(Stage::Clean)],
        (Transfer::Lend | Transfer::Donate, _) => [Some(Stage::Clean), None],
    }
}

impl SetPolicy {
    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        caller.manager.parcels().lock(caller.machine(), self.record).phase = self.before;
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        assert!(parcel.handle == self.handle, "G6: a parcel went while its policy was changed");
        loop {
            let walk = match self.stage {
                Stage::Retype => {
                    let change = Change::Retype { memory: self.policy };
                    owner::change(&mut parcel, caller, change, budget)
                }
                Stage::Clean => owner::clean(&mut parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            parcel.place = Place::START;
            match stages(&parcel, self.policy) {
                [Some(first), Some(next)] if first == self.stage => self.stage = next,
                _ => break,
            }
        }
        parcel.acl.set_policy(self.policy);
        parcel.phase = self.before;
        Step::Done(Ok(Reply::Empty))
    }
}
