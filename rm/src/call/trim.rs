//! TRIM: some pages leave a parcel, the rest of which stays.
//!
//! A borrower gives them up, and when none has them any more the owner takes them back. Extents and the
//! addresses of borrowers stay as they are; what has left is noted as a hole that all walks pass over.
//!
//! The range is looked up and the blocks at its ends are cut before anything changes; that may be
//! refused. Meanwhile the parcel is Trimming for its owner's call, so nobody begins to use it, or the
//! borrower's mapping is busy. A revocation takes a borrower's trim over from its cursor.

use rm_abi::extension::{TrimFlags, TrimRequest};
use rm_abi::{Bytes, Handle};

use crate::address::{Ipa, PAGE_SIZE};
use crate::call::accept::change_borrower;
use crate::call::{Caller, extension, owner, will};
use crate::machine::Machine;
use crate::memparcel::borrower::{Place, Stage as Progress};
use crate::memparcel::extents::Extent;
use crate::memparcel::holes::{Gone, Hole};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{self, End, Walk};
use crate::memparcel::words::Cursor;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::{Holders, Refusal, Resource};
use crate::stage2::{Change, PART};

/// A trim at work.
#[derive(Debug)]
pub(crate) struct Trim {
    record: RecordIndex,
    handle: Handle,
    side: Side,
    range: Hole,
    /// Zero the pages.
    wipe: bool,
    stage: Stage,
    /// The first page of the range and the last one, as far as they are found.
    first: Place,
    last: Place,
    /// The next of the caller's wills that is looked at.
    will: Cursor,
}

/// Whose pages they are.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// The owner's, of a parcel that was in this phase.
    Owner(Phase),
    /// A borrower's: its ACL entry, and the epoch of what it holds.
    Borrower(usize, u32),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Look for the first page, then for the last.
    First,
    Last,
    /// Cut the blocks that they are in. From here on only the machine can refuse.
    Cut,
    /// The owner's: ask the machine whether the pages may go home.
    Inspect,
    /// Zero them, or clean them where their policy is not write-back.
    Maintain,
    Restore,
    /// A borrower's, by its ACL entry.
    Unmap(usize),
    Wipe,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = TrimRequest::decode(payload).map_err(extension::refusal)?;
    let handle = request.handle;
    let (record, mut parcel) = caller.parcel(handle)?;
    let side = side(&parcel, caller)?;
    if parcel.attachments.maps(caller.vm) {
        return Err(Refusal::DeviceInUse);
    }
    let range = range(&parcel, &request)?;
    let wipe = request.flags.contains(TrimFlags::SANITIZE);
    let (entry, page) = match side {
        Side::Owner(_) => {
            check_owner(&parcel, caller, range, wipe)?;
            parcel.phase = Phase::Trimming;
            (None, owner::MAINTAINED_PAGE)
        }
        Side::Borrower(entry, _) => {
            check_borrower(&parcel, caller, entry, range, wipe)?;
            parcel.borrowers[entry].stage = Progress::Cutting;
            (Some(entry), weight::SHORT_PAGE + if wipe { weight::ZERO_PAGE } else { 0 })
        }
    };
    let (stage, first, last) = (Stage::First, Place::START, Place::START);
    let trim = Trim { record, handle, side, range, wipe, stage, first, last, will: Cursor::START };
    *operation = Some(Operation::Trim(trim));
    let after_cut = Caller { step: caller.step.saturating_sub(PART), ..caller };
    let short = after_cut.fits_step(range.pages(), parcel.pieces(entry), page);
    Ok(if short { Begun::Short } else { Begun::Long })
}

/// The caller's part in the parcel, if it is free for a call.
fn side<M: Machine>(parcel: &Memparcel, caller: Caller<'_, '_, M>) -> Result<Side, Refusal> {
    if parcel.owner == caller.vm {
        return match parcel.phase {
            Phase::Initial | Phase::Offered => Ok(Side::Owner(parcel.phase)),
            Phase::Closing => Err(Refusal::Closing),
            _ => Err(Refusal::InProgress),
        };
    }
    let entry = parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?;
    let state = &parcel.borrowers[entry];
    match state.stage {
        Progress::Mapped => Ok(Side::Borrower(entry, state.epoch)),
        Progress::Away | Progress::Assigned => Err(Refusal::NotHeld),
        _ => Err(Refusal::InProgress),
    }
}

/// The range of a request.
fn range(parcel: &Memparcel, request: &TrimRequest) -> Result<Hole, Refusal> {
    let TrimRequest { offset, size, .. } = *request;
    if !(offset | size).is_multiple_of(PAGE_SIZE) {
        return Err(Refusal::TrimRange);
    }
    Hole::within(offset / PAGE_SIZE, size / PAGE_SIZE, parcel.pages).ok_or(Refusal::TrimRange)
}

/// Whether the owner may have the range back.
fn check_owner<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    range: Hole,
    wipe: bool,
) -> Result<(), Refusal> {
    if parcel.holes.overlaps(range) {
        return Err(Refusal::Trimmed);
    }
    if wipe && parcel.is_device() {
        return Err(Refusal::DeviceMemory);
    }
    if !parcel.holes.has_room(range) {
        return Err(Refusal::TooManyHoles);
    }
    let entries = parcel.acl.entries().iter().zip(&parcel.borrowers);
    let mut reaching = entries.filter(|(_, state)| state.reaches(range)).peekable();
    if reaching.peek().is_none() {
        return Ok(());
    }
    let holders: Holders =
        reaching.filter_map(|(entry, _)| caller.manager.find(entry.vmid)).collect();
    Err(Refusal::Held(holders))
}

/// Whether a borrower can give the range up.
fn check_borrower<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    entry: usize,
    range: Hole,
    wipe: bool,
) -> Result<(), Refusal> {
    let own = &parcel.borrowers[entry].holes;
    if parcel.holes.overlaps(range) || own.overlaps(range) {
        return Err(Refusal::Trimmed);
    }
    if wipe {
        parcel.may_sanitize(caller.vmid())?;
    }
    if own.has_room(range) { Ok(()) } else { Err(Refusal::TooManyHoles) }
}

impl Trim {
    /// Whether somebody else has ended what this call was at.
    fn is_over(&self, parcel: &Memparcel) -> bool {
        match self.side {
            Side::Owner(_) => {
                assert!(parcel.handle == self.handle, "G6: a parcel went while it was trimmed");
                false
            }
            Side::Borrower(entry, epoch) => {
                parcel.handle != self.handle || parcel.borrowers[entry].epoch != epoch
            }
        }
    }

    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        if !self.is_over(&parcel) {
            self.undo(&mut parcel);
        }
    }

    /// The caller stands where it stood before. Nothing has changed.
    fn undo(&self, parcel: &mut Memparcel) {
        match self.side {
            Side::Owner(before) => parcel.phase = before,
            Side::Borrower(entry, _) => parcel.borrowers[entry].stage = Progress::Mapped,
        }
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut guard = caller.manager.parcels().lock(caller.machine(), self.record);
        let parcel = &mut *guard;
        if self.is_over(parcel) {
            return Step::Done(Err(Refusal::NoParcel));
        }
        loop {
            let walk = match (self.stage, self.side) {
                (Stage::First, _) => self.seek(parcel, caller, self.range.first(), budget),
                (Stage::Last, _) => self.seek(parcel, caller, self.range.end() - 1, budget),
                (Stage::Cut, _) => match self.cut(parcel, caller, budget) {
                    Ok(()) => Walk::End,
                    Err(refusal) => {
                        self.undo(parcel);
                        return Step::Done(Err(refusal));
                    }
                },
                (Stage::Inspect, _) => owner::inspect_until(parcel, caller, self.end(), budget),
                (Stage::Maintain, _) => {
                    let zero = self.wipe || parcel.sanitize;
                    owner::maintain_until(parcel, caller, self.end(), zero, budget)
                }
                (Stage::Restore, _) if self.end_parts(parcel, caller, budget) == Walk::More => {
                    Walk::More
                }
                (Stage::Restore, _) => {
                    owner::change_until(parcel, caller, self.end(), Change::Restore, budget)
                }
                (Stage::Unmap(entry), _) => {
                    let (end, unmap) = (self.end(), Change::Unmap);
                    match change_borrower(parcel, caller, entry, end, unmap, budget) {
                        Walk::End => self.end_parts(parcel, caller, budget),
                        Walk::More => Walk::More,
                    }
                }
                (Stage::Wipe, _) => self.wipe(parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            if matches!(self.stage, Stage::Inspect) && parcel.poisoned {
                self.undo(parcel);
                return Step::Done(Err(Refusal::Poisoned));
            }
            match self.next(parcel, M::MAY_POISON) {
                Some(stage) => self.stage = stage,
                None => {
                    self.finish(parcel, caller);
                    return Step::Done(Ok(Reply::Empty));
                }
            }
        }
    }

    /// What comes behind a stage.
    fn next(&mut self, parcel: &mut Memparcel, inspect: bool) -> Option<Stage> {
        match (self.stage, self.side) {
            (Stage::First, _) => {
                self.last = self.first;
                Some(Stage::Last)
            }
            (Stage::Last, _) => Some(Stage::Cut),
            (Stage::Cut, Side::Owner(_)) => {
                parcel.place = self.first;
                Some(if inspect { Stage::Inspect } else { Stage::Maintain })
            }
            (Stage::Inspect, _) => {
                parcel.place = self.first;
                Some(Stage::Maintain)
            }
            (Stage::Cut, Side::Borrower(entry, _)) => {
                let end = self.end();
                let state = &mut parcel.borrowers[entry];
                (state.stage, state.place, state.end) = (Progress::Trimming, self.first, end);
                state.trimmed = (self.range, self.wipe);
                Some(Stage::Unmap(entry))
            }
            (Stage::Maintain, _) => {
                parcel.place = self.first;
                Some(Stage::Restore)
            }
            (Stage::Unmap(_), _) if self.wipe => Some(Stage::Wipe),
            (Stage::Unmap(_) | Stage::Restore | Stage::Wipe, _) => None,
        }
    }

    /// Behind the last page.
    const fn end(&self) -> End {
        (self.last.extent.index(), self.last.offset + 1)
    }

    /// Looks for a page of the range.
    fn seek<M: Machine>(
        &mut self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        page: u64,
        budget: &mut Budget,
    ) -> Walk {
        let addresses = match self.side {
            Side::Borrower(entry, _) if !parcel.borrowers[entry].contiguous => {
                Some(&parcel.borrowers[entry].addresses)
            }
            _ => None,
        };
        let place = match self.stage {
            Stage::First => &mut self.first,
            _ => &mut self.last,
        };
        units::seek(&parcel.extents, addresses, caller.mem(), (place, page), budget)
    }

    /// Cuts the blocks in the caller's tree that the ends of the range lie in.
    fn cut<M: Machine>(
        &self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Result<(), Refusal> {
        let mem = caller.mem();
        let address = |place: &Place| -> Ipa {
            match self.side {
                Side::Owner(_) => {
                    let record = parcel.extents.peek(mem, place.extent);
                    let extent = Extent::decode(record.expect("G3: a page is in an extent"));
                    extent.at.add_pages(place.offset)
                }
                Side::Borrower(entry, _) => {
                    let state = &parcel.borrowers[entry];
                    place.address_in(state.contiguous, &state.addresses, mem)
                }
            }
        };
        let ends = [address(&self.first), address(&self.last).add_pages(1)];
        Ok(caller.stage2().part(mem, ends, budget)?)
    }

    /// Executes what the caller wants done when its part in these pages has ended.
    fn end_parts<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let entry = match self.side {
            Side::Owner(_) => None,
            Side::Borrower(entry, _) => Some(entry),
        };
        will::end_part_in(parcel, caller, entry, (self.range, &mut self.will), budget)
    }

    /// Zeroes the pages that the borrower can reach no more, from the first on.
    fn wipe<M: Machine>(
        &mut self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let (machine, end) = (caller.machine(), self.end());
        let pages = (&parcel.extents, Gone(parcel.holes.all(), &[]));
        units::pages(pages, caller.mem(), &mut self.first, end, budget, |piece, budget| {
            owner::touch(machine, piece, weight::ZERO_PAGE, budget, |_, page| {
                caller.zero_page(page)
            })
        })
    }

    /// The range has left the parcel, or the caller's mapping of it.
    fn finish<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) {
        let ledger = caller.ledger();
        match self.side {
            Side::Owner(before) => {
                parcel.holes.insert(self.range);
                ledger.refund(Resource::PagesLent, self.range.pages());
                parcel.phase = before;
            }
            Side::Borrower(entry, _) => {
                let pages = parcel.borrowers[entry].end_trim();
                ledger.refund(Resource::PagesAccepted, pages);
            }
        }
    }
}
