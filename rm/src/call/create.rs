//! MEM_DONATE, MEM_LEND, MEM_SHARE: making a parcel.
//!
//! A short creation changes its one range at once. A long one claims range after range, which the VM
//! cannot notice, and commits when all are claimed; if one cannot be claimed, the claims are taken
//! back.

use rm_abi::extension::Name;
use rm_abi::memparcel::create::CreateRequest;
use rm_abi::{Bytes, CreateFlags, Handle, MemoryKind, Transfer};

use crate::call::claim::Claim;
use crate::call::{Caller, owner};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::Phase;
use crate::memparcel::acl::{Creation, MAX_ACL};
use crate::memparcel::borrower::Place;
use crate::memparcel::table::{ParcelGuard, RecordIndex};
use crate::memparcel::units::Walk;
use crate::operation::budget::Budget;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::{Refusal, Resource};
use crate::stage2::Change;

/// A creation at work.
#[derive(Debug)]
pub(crate) struct Create {
    record: RecordIndex,
    handle: Handle,
    stage: Stage,
    claim: Claim,
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
    Clear(Refusal),
}

/// The request's checks up to its address list.
pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    transfer: Transfer,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = CreateRequest::decode(payload).map_err(Refusal::Malformed)?;
    caller.check_supplies()?;
    if request.acl.len() > MAX_ACL {
        return Err(Refusal::AclTooLong);
    }
    if request.acl.is_empty() || request.sgl.is_empty() {
        return Err(Refusal::EmptyList);
    }
    if transfer == Transfer::Donate && request.acl.len() > 1 {
        return Err(Refusal::DonateToMany);
    }
    let create = Create::open(caller, payload, &request, transfer)?;
    *operation = Some(Operation::Create(create));
    Ok(if request.sgl.len() == 1 { Begun::Short } else { Begun::Long })
}

impl Create {
    /// Takes a record and a handle and fills in all but the pages.
    fn open<M: Machine>(
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        request: &CreateRequest,
        transfer: Transfer,
    ) -> Result<Self, Refusal> {
        let device = request.memory == MemoryKind::IO;
        caller.ledger().charge(Resource::Parcels, 1)?;
        let taken = if request.flags.contains(CreateFlags::SANITIZE) && device {
            Err(Refusal::DeviceMemory)
        } else {
            caller.manager.take_parcel(caller.vm)
        };
        let (handle, record) =
            taken.inspect_err(|_| caller.ledger().refund(Resource::Parcels, 1))?;
        let create = Self {
            record,
            handle,
            stage: if request.sgl.len() == 1 { Stage::AtOnce } else { Stage::Claim },
            claim: Claim::new(request.sgl),
        };
        match create.describe(caller, payload, request, transfer) {
            Ok(()) => Ok(create),
            Err(refusal) => {
                create.abandon(caller);
                Err(refusal)
            }
        }
    }

    fn describe<M: Machine>(
        &self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        request: &CreateRequest,
        transfer: Transfer,
    ) -> Result<(), Refusal> {
        let mut parcel = self.lock(caller);
        parcel.handle = self.handle;
        parcel.phase = Phase::Creating;
        parcel.owner = caller.vm;
        parcel.transfer = transfer;
        parcel.memory = request.memory;
        parcel.label = request.label;
        parcel.tag = None;
        parcel.name = Name::NONE;
        parcel.told = 0;
        parcel.windowed = 0;
        parcel.recalled = false;
        parcel.poisoned = false;
        parcel.sanitized = request.flags.contains(CreateFlags::SANITIZE);
        parcel.sanitize = transfer != Transfer::Share && caller.state().sanitize_always;
        parcel.place = Place::START;
        let creation =
            Creation { owner: caller.vmid(), transfer, device: request.memory == MemoryKind::IO };
        parcel.acl.fill(payload, request, &creation, |vmid| caller.manager.is_nameable(vmid))?;
        parcel.parties = caller.manager.parties(&parcel);
        if parcel.acl.entries().iter().any(|entry| caller.manager.is_crowded(entry.vmid)) {
            return Err(Refusal::Quota(Resource::Unread));
        }
        if request.flags.contains(CreateFlags::APPEND) {
            caller.ledger().charge(Resource::Unfinished, 1)?;
            parcel.unfinished = true;
        }
        Ok(())
    }

    fn lock<'a, M: Machine>(&self, caller: Caller<'a, '_, M>) -> ParcelGuard<'a, M::Relax> {
        caller.manager.parcels().lock(caller.machine(), self.record)
    }

    /// Gives everything back. No page is claimed and no extent in a frame.
    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = self.lock(caller);
        caller.manager.retire(&mut parcel, self.record);
    }

    /// The parcel exists from here on.
    fn publish<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) -> Reply {
        parcel.settled = parcel.extents.len();
        parcel.phase = if parcel.unfinished { Phase::Initial } else { Phase::Offered };
        caller.manager.parcels().publish(self.handle, self.record);
        Reply::Word(self.handle.0)
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = self.lock(caller);
        loop {
            let walk = match self.stage {
                Stage::AtOnce => match self.claim.at_once(&mut parcel, caller, payload) {
                    Ok(true) => return Step::Done(Ok(self.publish(&mut parcel, caller))),
                    Ok(false) => {
                        self.stage = Stage::Claim;
                        return Step::More;
                    }
                    Err(refusal) => {
                        caller.manager.retire(&mut parcel, self.record);
                        return Step::Done(Err(refusal));
                    }
                },
                Stage::Claim => match self.claim.run(&mut parcel, caller, payload, budget) {
                    Ok(walk) => walk,
                    Err(refusal) => {
                        self.claim.close(&mut parcel, caller);
                        parcel.place = Place::START;
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
                Stage::Clear(_) => owner::clear(&mut parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            parcel.place = Place::START;
            self.stage = match self.stage {
                Stage::AtOnce | Stage::Claim => Stage::Commit,
                Stage::Commit if owner::needs_maintenance(&parcel) => Stage::Maintain,
                Stage::Commit | Stage::Maintain => {
                    return Step::Done(Ok(self.publish(&mut parcel, caller)));
                }
                Stage::Unclaim(refusal) => Stage::Clear(refusal),
                Stage::Clear(refusal) => {
                    caller.manager.retire(&mut parcel, self.record);
                    return Step::Done(Err(refusal));
                }
            };
        }
    }
}
