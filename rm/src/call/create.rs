//! MEM_DONATE, MEM_LEND, MEM_SHARE: making a parcel.
//!
//! A short creation checks its one range, cuts the blocks at its ends and changes it, all under the
//! VM's lock. A long one claims range after range, which the VM cannot notice, and commits when all
//! are claimed; if one cannot be claimed, the claims are taken back.

use rm_abi::memparcel::create::CreateRequest;
use rm_abi::{Bytes, CreateFlags, Handle, List, MemoryKind, SglEntry, Transfer};

use crate::address::{Ipa, PAGE_SIZE};
use crate::call::{Caller, owner};
use crate::machine::Machine;
use crate::memparcel::acl::{Creation, MAX_ACL};
use crate::memparcel::borrower::Place;
use crate::memparcel::extents::Extent;
use crate::memparcel::table::{ParcelGuard, RecordIndex};
use crate::memparcel::units::Walk;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, STEP, Step};
use crate::refusal::Refusal;
use crate::stage2::{Batch, Change, ClaimError, Stage2, State};

/// Addresses and sizes of the wire end here.
const LIMIT: u64 = 1 << 44;

/// A creation at work.
#[derive(Debug)]
pub(crate) struct Create {
    record: RecordIndex,
    handle: Handle,
    sgl: List<SglEntry>,
    stage: Stage,
    /// The list entry that is being claimed, and how many of its pages are.
    entry: usize,
    done: u64,
    /// That entry's own unit of work is done, so a budget of one goes to its pages.
    paid: bool,
    /// Claimed pages of that entry which are not in the parcel's extents yet.
    open: Option<Extent>,
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

/// The pages of a list entry.
fn range(parcel: &Memparcel, entry: SglEntry) -> Result<(Ipa, u64), Refusal> {
    let SglEntry { ipa, size } = entry;
    if !(ipa | size).is_multiple_of(PAGE_SIZE) || ipa >= LIMIT || size >= LIMIT {
        return Err(Refusal::Address);
    }
    // Registers that a VM drives are nobody's to give: a parcel of device memory owns no page.
    if size == 0 || parcel.is_device() {
        return Err(Refusal::NotOwned);
    }
    Ok((Ipa(ipa), size / PAGE_SIZE))
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
        let meters = &caller.state().meters;
        meters.parcels.charge(1)?;
        let taken = if request.flags.contains(CreateFlags::SANITIZE) && device {
            Err(Refusal::DeviceMemory)
        } else {
            caller.manager.take_parcel(caller.vm)
        };
        let (handle, record) = taken.inspect_err(|_| meters.parcels.refund(1))?;
        let create = Self {
            record,
            handle,
            sgl: request.sgl,
            stage: if request.sgl.len() == 1 { Stage::AtOnce } else { Stage::Claim },
            entry: 0,
            done: 0,
            paid: false,
            open: None,
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
        parcel.sanitized = request.flags.contains(CreateFlags::SANITIZE);
        parcel.sanitize = transfer != Transfer::Share && caller.state().sanitize_always;
        parcel.place = Place::START;
        let creation =
            Creation { owner: caller.vmid(), transfer, device: request.memory == MemoryKind::IO };
        parcel.acl.fill(payload, request, &creation, |vmid| caller.manager.is_nameable(vmid))?;
        if request.flags.contains(CreateFlags::APPEND) {
            caller.state().meters.unfinished.charge(1)?;
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

    /// A creation of one small range, without a claim. `None`: it is not small enough, and nothing
    /// was done.
    fn at_once<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
    ) -> Result<Option<Reply>, Refusal> {
        let (at, pages) = range(parcel, self.sgl.get(payload, 0))?;
        let maintained = owner::needs_maintenance(parcel);
        let weight = if maintained { owner::MAINTAINED_PAGE } else { weight::SHORT_PAGE };
        if !caller.fits_step(pages, 1, weight) {
            return Ok(None);
        }
        let mem = caller.mem();
        let mut stage2 = caller.stage2();
        let mut extents = heapless::Vec::<Extent, 4>::new();
        let mut done = 0;
        while done < pages {
            let at = at.add_pages(done);
            let (state, pa, run) = stage2.run(mem, at, pages - done, &mut Budget::new(STEP));
            match state {
                State::Owned => {}
                State::Claimed => return Err(Refusal::InProgress),
                _ => return Err(Refusal::NotOwned),
            }
            if extents.push(Extent { at, pa, pages: run }).is_err() {
                return Ok(None);
            }
            done += run;
        }
        let meters = &caller.state().meters;
        meters.pages_lent.charge(pages)?;
        parcel.pages = pages;
        meters.extents.charge(extents.len() as u64)?;
        // Four extents need no frame.
        extents.iter().for_each(|extent| parcel.extents.push(mem, extent.encode()));
        stage2.cut(mem, at, pages).map_err(|_| Refusal::NoFrame)?;
        let mut batch = Batch::new();
        let change = owner::offer(parcel, caller.vmid());
        let changed = stage2.change(mem, &mut batch, at, pages, change, &mut Budget::new(u32::MAX));
        assert!(changed == pages, "G4: a short creation stopped half-way");
        stage2.finish(mem, batch);
        drop(stage2);
        if maintained {
            owner::maintain(parcel, caller, &mut Budget::new(u32::MAX));
        }
        Ok(Some(self.publish(parcel, caller)))
    }

    /// The parcel exists from here on.
    fn publish<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) -> Reply {
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
                Stage::AtOnce => match self.at_once(&mut parcel, caller, payload) {
                    Ok(Some(reply)) => return Step::Done(Ok(reply)),
                    Ok(None) => {
                        self.stage = Stage::Claim;
                        return Step::More;
                    }
                    Err(refusal) => {
                        caller.manager.retire(&mut parcel, self.record);
                        return Step::Done(Err(refusal));
                    }
                },
                Stage::Claim => match self.claim(&mut parcel, caller, payload, budget) {
                    Ok(walk) => walk,
                    Err(refusal) => {
                        self.close_extent(&mut parcel, caller);
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

    /// Claims the pages of the list, in order, and notes them as extents.
    fn claim<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Result<Walk, Refusal> {
        let mut stage2 = caller.stage2();
        while self.entry < self.sgl.len() {
            if !self.paid && !budget.spend(weight::ENTRY) {
                return Ok(Walk::More);
            }
            self.paid = true;
            let (at, pages) = range(parcel, self.sgl.get(payload, self.entry))?;
            while self.done < pages {
                if budget.is_spent() {
                    return Ok(Walk::More);
                }
                let rest = (at.add_pages(self.done), pages - self.done);
                self.done += self.claim_run(parcel, caller, &mut stage2, rest, budget)?;
            }
            self.close_extent(parcel, caller);
            self.entry += 1;
            self.done = 0;
            self.paid = false;
        }
        Ok(Walk::End)
    }

    /// Claims the beginning of a range, as far as it is contiguous in the machine.
    fn claim_run<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        stage2: &mut Stage2,
        (at, pages): (Ipa, u64),
        budget: &mut Budget,
    ) -> Result<u64, Refusal> {
        let (mem, meters) = (caller.mem(), &caller.state().meters);
        // Looking is paid for like claiming what was seen, so a budget of one still claims a page.
        let (state, pa, run) = stage2.run(mem, at, pages, &mut Budget::new(budget.left()));
        // A claimed page can only be one that this list named before: a VM has one slot.
        if state != State::Owned {
            return Err(Refusal::NotOwned);
        }
        let grows = self.open.is_some_and(|open| open.pa.add_pages(open.pages) == pa);
        if !grows {
            self.close_extent(parcel, caller);
            parcel.extents.reserve(mem, caller.vm).map_err(|_| Refusal::NoFrame)?;
            meters.extents.charge(1)?;
            self.open = Some(Extent { at, pa, pages: 0 });
        }
        meters.pages_lent.charge(run)?;
        let claimed = stage2.claim(mem, at, run, budget);
        let done = *claimed.as_ref().unwrap_or(&0);
        meters.pages_lent.refund(run - done);
        parcel.pages += done;
        if let Some(open) = &mut self.open {
            open.pages += done;
        }
        claimed.map_err(|error| match error {
            ClaimError::NoFrame(_) => Refusal::NoFrame,
            ClaimError::NotOwned | ClaimError::Claimed => Refusal::NotOwned,
        })
    }

    /// Notes the claimed run as an extent of the parcel.
    fn close_extent<M: Machine>(&mut self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) {
        match self.open.take() {
            None => {}
            // Nothing could be claimed of it: the charge goes back.
            Some(open) if open.pages == 0 => caller.state().meters.extents.refund(1),
            Some(open) => parcel.extents.push(caller.mem(), open.encode()),
        }
    }
}
