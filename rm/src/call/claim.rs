//! Taking up the pages of a request's address list: what a creation and an append have in common.
//!
//! One small range is checked, cut out of its blocks and changed, all under the VM's lock. Of a list,
//! range after range is claimed, in as many steps as it takes, and noted as extents of the parcel. A
//! refusal leaves what was noted until then, with its charges, to the caller, who takes it back.

use rm_abi::{Bytes, List, SglEntry, Transfer};

use crate::address::{Ipa, PAGE_SIZE, Pa};
use crate::call::{Caller, device, owner};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::extents::Extent;
use crate::memparcel::units::Walk;
use crate::operation::STEP;
use crate::operation::budget::{Budget, weight};
use crate::refusal::{Refusal, Resource};
use crate::stage2::{Batch, Stage2, State};

/// Addresses and sizes of the wire end here.
const LIMIT: u64 = 1 << 44;

/// How far the claims of a list are.
#[derive(Debug)]
pub(crate) struct Claim {
    sgl: List<SglEntry>,
    /// The list entry that is being claimed, and how many of its pages are.
    entry: usize,
    done: u64,
    /// That entry's own unit of work is done, so a budget of one goes to its pages.
    paid: bool,
    /// Claimed pages of that entry which are not in the parcel's extents yet.
    open: Option<Extent>,
}

/// Refuses to give memory of a heap away: its allocator is charged for it until it goes back.
fn check_source<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    pa: Pa,
) -> Result<(), Refusal> {
    if parcel.transfer == Transfer::Donate && caller.manager.heaps().have(pa) {
        return Err(Refusal::OfHeap);
    }
    Ok(())
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

impl Claim {
    /// Nothing of `sgl` is claimed.
    pub(crate) const fn new(sgl: List<SglEntry>) -> Self {
        Self { sgl, entry: 0, done: 0, paid: false, open: None }
    }

    /// Does all there is to do for a list of one small range, without a claim. `false`: it is not
    /// small enough, and nothing was done.
    pub(crate) fn at_once<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
    ) -> Result<bool, Refusal> {
        let (at, pages) = range(parcel, self.sgl.get(payload, 0))?;
        let maintained = owner::needs_maintenance(parcel);
        let weight = if maintained { owner::MAINTAINED_PAGE } else { weight::SHORT_PAGE };
        if !caller.fits_step(pages, 1, weight) {
            return Ok(false);
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
                _ => return Err(device::in_the_way(parcel, caller, (state, at))),
            }
            check_source(parcel, caller, pa)?;
            if extents.push(Extent { at, pa, pages: run }).is_err() {
                return Ok(false);
            }
            done += run;
        }
        let ledger = caller.ledger();
        ledger.charge(Resource::PagesLent, pages)?;
        parcel.pages += pages;
        for extent in extents {
            parcel.extents.reserve(mem, &mut stage2)?;
            ledger.charge(Resource::Extents, 1)?;
            parcel.extents.push(mem, extent.encode());
        }
        stage2.cut(mem, at, pages)?;
        let mut batch = Batch::new();
        let change = owner::offer(parcel, caller.vmid());
        let changed = stage2.change(mem, &mut batch, at, pages, change, &mut Budget::new(u32::MAX));
        assert!(changed == pages, "G4: a short change stopped half-way");
        stage2.finish(mem, batch);
        drop(stage2);
        if maintained {
            owner::maintain(parcel, caller, &mut Budget::new(u32::MAX));
        }
        Ok(true)
    }

    /// Claims the pages of the list, in order, and notes them as extents.
    pub(crate) fn run<M: Machine>(
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
            self.close(parcel, caller);
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
        let (mem, ledger) = (caller.mem(), caller.ledger());
        // Looking is paid for like claiming what was seen, so a budget of one still claims a page.
        let (state, pa, run) = stage2.run(mem, at, pages, &mut Budget::new(budget.left()));
        // A claimed page can only be one that this list named before: a VM has one slot.
        if state != State::Owned {
            return Err(device::in_the_way(parcel, caller, (state, at)));
        }
        check_source(parcel, caller, pa)?;
        let grows = self.open.is_some_and(|open| open.pa.add_pages(open.pages) == pa);
        if !grows {
            self.close(parcel, caller);
            parcel.extents.reserve(mem, stage2)?;
            ledger.charge(Resource::Extents, 1)?;
            self.open = Some(Extent { at, pa, pages: 0 });
        }
        ledger.charge(Resource::PagesLent, run)?;
        let claimed = stage2.claim(mem, at, run, budget);
        let done = *claimed.as_ref().unwrap_or(&0);
        ledger.refund(Resource::PagesLent, run - done);
        parcel.pages += done;
        if let Some(open) = &mut self.open {
            open.pages += done;
        }
        Ok(claimed?)
    }

    /// Notes the claimed run as an extent of the parcel.
    pub(crate) fn close<M: Machine>(&mut self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) {
        match self.open.take() {
            None => {}
            // Nothing could be claimed of it: the charge goes back.
            Some(open) if open.pages == 0 => caller.ledger().refund(Resource::Extents, 1),
            Some(open) => parcel.extents.push(caller.mem(), open.encode()),
        }
    }
}
