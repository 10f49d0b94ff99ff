//! MEM_ACCEPT: a borrower maps a parcel.
//!
//! First every unit of the request gets an address, and the pages there are held: tables exist, and
//! no other accept can take them. That may be refused, and then the holds are taken back. With DONE
//! the held pages become mapped, which cannot be refused. A donation also leaves its owner's tree and
//! ends the parcel.

use rm_abi::extension::{EventKind, EventReason};
use rm_abi::memparcel::accept::{AcceptRequest, REPLY_HEAD};
use rm_abi::{AcceptFlags, Bytes, Handle, List, MAX_ENTRIES, SglEntry, Transfer, Vmid, reply};

use crate::address::{Ipa, PAGE_SIZE, PAGES_PER_2M};
use crate::call::{Caller, extension, owner, release};
use crate::machine::Machine;
use crate::memparcel::borrower::{Borrower, Place, Stage as Progress};
use crate::memparcel::extents::Extent;
use crate::memparcel::holes::Gone;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{self, End, Walk, end_at};
use crate::memparcel::words::Mark;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::message::Message;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::{Refusal, Resource};
use crate::stage2::{Batch, Change, FreeCursor, HoldError, Search, Stage2};

/// Bytes of one range in a reply.
pub(crate) const RANGE: usize = 16;
/// Ranges that a short call's reply can carry.
const SHORT_RANGES: u32 = (rm_abi::PACKET_PAYLOAD / RANGE) as u32;

/// Bytes of a reply's data that names so many ranges: their number, and they.
pub(crate) const fn data_size(ranges: usize) -> usize {
    REPLY_HEAD - reply::SIZE + ranges * RANGE
}

/// An accept at work.
#[derive(Debug)]
pub(crate) struct Accept {
    record: RecordIndex,
    handle: Handle,
    /// The caller's place in the ACL.
    borrower: usize,
    /// The borrower's, as long as nobody takes this over.
    epoch: u32,
    flags: AcceptFlags,
    sgl: List<SglEntry>,
    stage: Stage,
    /// Units that this call gives an address, and how many have one.
    wanted: u32,
    given: u32,
    /// Address and pages of the unit that is being held.
    unit: Option<(Ipa, u64)>,
    /// How far the search for that address is.
    search: FreeCursor,
    /// Where the caller stood before, to come back to.
    before: (Progress, Place, Mark, bool),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Assign,
    Map,
    /// A donation leaves its owner.
    Leave,
    /// What a donation's parcel held is returned.
    End,
    Unhold(Refusal),
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = AcceptRequest::decode(payload).map_err(Refusal::Malformed)?;
    let (record, mut parcel) = caller.parcel(request.handle)?;
    caller.check_consumes()?;
    let index = check(&parcel, caller, payload, &request)?;
    let contiguous = request.flags.contains(AcceptFlags::MAP_CONTIGUOUS);
    let state = &parcel.borrowers[index];
    let left = parcel.units(contiguous) - state.addresses.len();
    if request.sgl.len() as u32 > left {
        return Err(Refusal::TooManyAddresses);
    }
    let chooses = request.sgl.is_empty();
    let wanted = if chooses { left.min(MAX_ENTRIES as u32) } else { request.sgl.len() as u32 };
    if chooses && data_size(wanted as usize) > room {
        return Ok(Begun::ReplyTooLarge);
    }
    let before = (state.stage, state.place, state.addresses.mark(), state.contiguous);
    if state.stage == Progress::Away {
        caller.ledger().charge(Resource::PagesAccepted, parcel.pages_left())?;
        caller.manager.list_held(caller.vm, record, index);
    }
    let short = caller.fits_step(parcel.pages, parcel.pieces(Some(index)), weight::SHORT_PAGE)
        && request.sgl.len() <= 1
        && (!chooses || wanted <= SHORT_RANGES);
    let pages_left = parcel.pages_left();
    let state = &mut parcel.borrowers[index];
    state.pages = pages_left;
    state.stage = Progress::Assigning;
    state.contiguous = contiguous;
    *operation = Some(Operation::Accept(Accept {
        record,
        handle: request.handle,
        borrower: index,
        epoch: state.epoch,
        flags: request.flags,
        sgl: request.sgl,
        stage: Stage::Assign,
        wanted,
        given: 0,
        unit: None,
        search: FreeCursor::from(caller.state().accept_from),
        before,
    }));
    Ok(if short { Begun::Short } else { Begun::Long })
}

/// The checks that need no work, in the protocol's order. The result is the caller's place in the
/// ACL.
fn check<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    request: &AcceptRequest,
) -> Result<usize, Refusal> {
    let flags = request.flags;
    if request.memory != parcel.memory || request.transfer != Some(parcel.transfer) {
        return Err(Refusal::Kind);
    }
    let unexpected = flags.contains(AcceptFlags::VALIDATE_SANITIZED) && !parcel.sanitized
        || flags.contains(AcceptFlags::VALIDATE_LABEL) && request.label != parcel.label
        || flags.contains(AcceptFlags::VALIDATE_ACL_ATTR)
            && !parcel.acl.matches(payload, request.acl, request.attributes);
    if unexpected {
        return Err(Refusal::Validation);
    }
    if flags.contains(AcceptFlags::MAP_OTHER) {
        return Err(Refusal::ForOther);
    }
    if request.map_for() != Vmid(0) {
        return Err(Refusal::MapVmid);
    }
    let index = parcel.borrower(caller.vm, caller.vmid(), Refusal::NotNamed)?;
    if parcel.window(index).is_some() {
        return Err(Refusal::Window);
    }
    let state = &parcel.borrowers[index];
    match state.stage {
        Progress::Away | Progress::Assigned => {}
        Progress::Mapped => return Err(Refusal::Mapped),
        _ => return Err(Refusal::InProgress),
    }
    if parcel.recalled {
        return Err(Refusal::Closing);
    }
    if matches!(parcel.phase, Phase::Retyping | Phase::Trimming) {
        return Err(Refusal::InProgress);
    }
    // By a trim; others still hold the rest of it.
    if parcel.poisoned {
        return Err(Refusal::Poisoned);
    }
    let contiguous = flags.contains(AcceptFlags::MAP_CONTIGUOUS);
    if contiguous && parcel.is_device() {
        return Err(Refusal::DeviceMemory);
    }
    if state.addresses.len() > 0 && state.contiguous != contiguous {
        return Err(Refusal::MixedAccept);
    }
    if flags.contains(AcceptFlags::SANITIZE) {
        parcel.may_sanitize(caller.vmid())?;
    }
    Ok(index)
}

impl Accept {
    /// Bytes that the reply's ranges take.
    pub(crate) const fn data_size(&self) -> usize {
        if self.sgl.count == 0 { self.wanted as usize * RANGE } else { 0 }
    }

    pub(crate) fn abandon<M: Machine>(self, caller: Caller<'_, '_, M>) {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        if !self.is_over(&parcel) {
            self.forget(&mut parcel, caller);
        }
    }

    /// Whether somebody else has ended what this call was at.
    fn is_over(&self, parcel: &Memparcel) -> bool {
        parcel.handle != self.handle || parcel.borrowers[self.borrower].epoch != self.epoch
    }

    /// The caller stands again where it stood before.
    fn forget<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) {
        let (stage, place, _, contiguous) = self.before;
        let state = &mut parcel.borrowers[self.borrower];
        (state.stage, state.place, state.contiguous) = (stage, place, contiguous);
        if stage == Progress::Away {
            let pages = core::mem::take(&mut state.pages);
            caller.ledger().refund(Resource::PagesAccepted, pages);
            caller.manager.unlist_held(caller.vm, self.record, self.borrower);
        }
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        ranges: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        let mut guard = caller.manager.parcels().lock(caller.machine(), self.record);
        let parcel = &mut *guard;
        if self.is_over(parcel) {
            return Step::Done(Err(Refusal::NoParcel));
        }
        loop {
            let walk = match self.stage {
                Stage::Assign => match self.assign(parcel, caller, payload, ranges, budget) {
                    Ok(walk) => walk,
                    Err(refusal) => {
                        self.stage = self.give_up(parcel, refusal);
                        continue;
                    }
                },
                Stage::Map => self.map(parcel, caller, budget),
                Stage::Leave => {
                    let owner = Caller { vm: parcel.owner, ..caller };
                    owner::change(parcel, owner, Change::GiveAway, budget)
                }
                Stage::End => end_donation(parcel, self.record, caller, self.borrower, budget),
                Stage::Unhold(_) => self.unhold(parcel, caller, budget),
            };
            if walk == Walk::More {
                return Step::More;
            }
            self.stage = match self.stage {
                Stage::Assign if self.flags.contains(AcceptFlags::DONE) => self.decide(parcel),
                Stage::Assign => {
                    parcel.borrowers[self.borrower].stage = Progress::Assigned;
                    return Step::Done(Ok(self.succeed(parcel, caller)));
                }
                Stage::Leave => Stage::Map,
                Stage::Map if parcel.transfer == Transfer::Donate => {
                    self.mapped(parcel, caller);
                    Stage::End
                }
                Stage::Map => {
                    self.mapped(parcel, caller);
                    return Step::Done(Ok(self.succeed(parcel, caller)));
                }
                Stage::End => {
                    caller.manager.retire(parcel, self.record);
                    return Step::Done(Ok(self.reply(true)));
                }
                Stage::Unhold(refusal) => {
                    self.forget(parcel, caller);
                    return Step::Done(Err(refusal));
                }
            };
        }
    }

    /// All pages are the caller's to use.
    fn mapped<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) {
        parcel.borrowers[self.borrower].stage = Progress::Mapped;
        let event = (EventKind::Accepted, EventReason::CALL);
        extension::tell(caller, parcel, self.record, self.borrower, event);
    }

    /// From here on this call's holds are given back.
    fn give_up(&self, parcel: &mut Memparcel, refusal: Refusal) -> Stage {
        let state = &mut parcel.borrowers[self.borrower];
        state.stage = Progress::Unassigning;
        state.end = end_at(&state.place);
        state.kept = end_at(&self.before.1);
        state.place = self.before.1;
        Stage::Unhold(refusal)
    }

    /// All units of the request have an address: may it be mapped?
    fn decide(&mut self, parcel: &mut Memparcel) -> Stage {
        let all = parcel.units(parcel.borrowers[self.borrower].contiguous);
        if parcel.borrowers[self.borrower].addresses.len() < all {
            return self.give_up(parcel, Refusal::Unassigned);
        }
        let state = &mut parcel.borrowers[self.borrower];
        state.stage = Progress::Mapping;
        state.place = Place::START;
        if parcel.transfer == Transfer::Donate {
            parcel.phase = Phase::Reclaiming;
            parcel.place = Place::START;
            return Stage::Leave;
        }
        Stage::Map
    }

    fn succeed<M: Machine>(&self, parcel: &mut Memparcel, caller: Caller<'_, '_, M>) -> Reply {
        parcel.sanitize |= self.flags.contains(AcceptFlags::SANITIZE)
            || parcel.transfer == Transfer::Lend && caller.state().sanitize_always;
        let state = &parcel.borrowers[self.borrower];
        self.reply(state.addresses.len() == parcel.units(state.contiguous))
    }

    fn reply(&self, complete: bool) -> Reply {
        if self.sgl.is_empty() {
            Reply::Ranges { count: self.given as u16, incomplete: !complete }
        } else {
            Reply::Empty
        }
    }

    /// Gives units an address and holds the pages there.
    fn assign<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        ranges: &mut Message,
        budget: &mut Budget,
    ) -> Result<Walk, Refusal> {
        let mut stage2 = caller.stage2();
        while self.given < self.wanted {
            if budget.is_spent() {
                return Ok(Walk::More);
            }
            let unit = match self.unit {
                Some(unit) => unit,
                None => match self.address(parcel, caller, &mut stage2, payload, budget)? {
                    Some(unit) => unit,
                    None => return Ok(Walk::More),
                },
            };
            if self.hold(parcel, caller, &mut stage2, unit.0, budget)? == Walk::More {
                return Ok(Walk::More);
            }
            self.note(parcel, caller, ranges, unit);
            // Paid afterwards, so that a budget of one still does a page.
            let _ = budget.spend(weight::ENTRY);
        }
        Ok(Walk::End)
    }

    /// The address of the next unit, from the request or where there is room. `None`: the search
    /// goes on in another step.
    fn address<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        stage2: &mut Stage2,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Result<Option<(Ipa, u64)>, Refusal> {
        let mem = caller.mem();
        let pages = self.unit_pages(parcel, caller);
        let at = if caller.state().direct_mapped {
            self.direct(parcel, caller, payload, pages)?
        } else if self.sgl.is_empty() {
            let align = if pages >= PAGES_PER_2M { PAGES_PER_2M } else { 1 };
            match stage2.find_free(mem, &mut self.search, pages, align, budget) {
                Search::Found(at) => at,
                Search::More => return Ok(None),
                Search::Nowhere => return Err(Refusal::NoRange),
            }
        } else {
            self.requested(caller, payload, pages)?
        };
        let state = &mut parcel.borrowers[self.borrower];
        state.addresses.reserve(mem, stage2)?;
        state.addresses.push(mem, [at.0]);
        self.unit = Some((at, pages));
        Ok(self.unit)
    }

    /// The length of the next unit.
    fn unit_pages<M: Machine>(&self, parcel: &Memparcel, caller: Caller<'_, '_, M>) -> u64 {
        let state = &parcel.borrowers[self.borrower];
        if state.contiguous {
            return parcel.pages;
        }
        let record = parcel.extents.peek(caller.mem(), state.place.extent);
        Extent::decode(record.expect("G3: every unit that is wanted has an extent")).pages
    }

    /// The address that the request names for the next unit.
    fn requested<M: Machine>(
        &self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        pages: u64,
    ) -> Result<Ipa, Refusal> {
        let SglEntry { ipa, size } = self.sgl.get(payload, self.given as usize);
        if !ipa.is_multiple_of(PAGE_SIZE) || ipa >= 1 << 44 || size != pages * PAGE_SIZE {
            return Err(Refusal::Address);
        }
        let (at, end) = (Ipa(ipa), Ipa(ipa).page() + pages);
        if at < caller.state().accept_from || end > caller.state().ipa_pages {
            return Err(Refusal::NoRange);
        }
        Ok(at)
    }

    /// Where the next unit lies in a VM whose addresses are the machine's, which cannot have pieces
    /// side by side.
    fn direct<M: Machine>(
        &self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        pages: u64,
    ) -> Result<Ipa, Refusal> {
        let Borrower { place, contiguous, .. } = &parcel.borrowers[self.borrower];
        let record = parcel.extents.peek(caller.mem(), place.extent);
        let Extent { pa, .. } =
            Extent::decode(record.expect("G3: every unit that is wanted has an extent"));
        let at = Ipa(pa.0);
        let asked = if self.sgl.is_empty() { at } else { self.requested(caller, payload, pages)? };
        if *contiguous || asked != at || at.page() + pages > caller.state().ipa_pages {
            return Err(Refusal::NoRange);
        }
        Ok(at)
    }

    /// Holds the pages of the current unit.
    fn hold<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        stage2: &mut Stage2,
        unit: Ipa,
        budget: &mut Budget,
    ) -> Result<Walk, Refusal> {
        let mem = caller.mem();
        let gone = Gone(parcel.holes.all(), &[]);
        let Borrower { place, contiguous, .. } = &mut parcel.borrowers[self.borrower];
        while let Some((record, behind)) = parcel.extents.read(mem, place.extent) {
            let extent = Extent::decode(record);
            while place.offset < extent.pages {
                if budget.is_spent() {
                    return Ok(Walk::More);
                }
                let (page, rest) = (place.before + place.offset, extent.pages - place.offset);
                // What has left the parcel stays Absent in the unit.
                let missing = gone.skip(page).min(rest);
                if missing > 0 {
                    place.offset += missing;
                    continue;
                }
                let before = if *contiguous { place.before } else { 0 };
                let at = unit.add_pages(before + place.offset);
                let (pa, rest) = (extent.pa.add_pages(place.offset), rest.min(gone.until(page)));
                place.offset +=
                    stage2.hold(mem, at, pa, rest, budget).map_err(|error| match error {
                        HoldError::Taken => Refusal::NoRange,
                        HoldError::NoFrame(none) => none.into(),
                    })?;
            }
            let _ = budget.spend(weight::PIECE);
            place.before += extent.pages;
            place.offset = 0;
            place.extent = behind;
            if !*contiguous {
                break;
            }
        }
        Ok(Walk::End)
    }

    /// The current unit is held: the reply may name it, and the next one comes.
    fn note<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        ranges: &mut Message,
        (unit, pages): (Ipa, u64),
    ) {
        let mem = caller.mem();
        if self.sgl.is_empty() {
            let mut range = [0; RANGE];
            range[..8].copy_from_slice(&unit.0.to_le_bytes());
            range[8..].copy_from_slice(&(pages * PAGE_SIZE).to_le_bytes());
            ranges.write(mem, self.given as usize * RANGE, &range);
        }
        let state = &mut parcel.borrowers[self.borrower];
        state.addresses.next(mem, &mut state.place.address);
        self.given += 1;
        self.unit = None;
        self.search = FreeCursor::from(caller.state().accept_from);
    }

    /// Maps what is held, from the caller's place on.
    fn map<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let change = match parcel.transfer {
            Transfer::Donate => Change::Own,
            Transfer::Lend | Transfer::Share => Change::Borrow {
                rights: parcel.acl.entries()[self.borrower].rights,
                memory: parcel.acl.policy(),
            },
        };
        change_borrower(parcel, caller, self.borrower, parcel.end(), change, budget)
    }

    /// Takes back the holds of this call, then its addresses.
    fn unhold<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let index = self.borrower;
        let end = parcel.borrowers[index].end;
        if change_borrower(parcel, caller, index, end, Change::Unhold, budget) == Walk::More {
            return Walk::More;
        }
        let (_, _, mark, _) = self.before;
        let addresses = &mut parcel.borrowers[index].addresses;
        if addresses.rewind(caller.mem(), caller.vm, mark, budget) { Walk::End } else { Walk::More }
    }
}

/// Changes the caller's leaves from its place on, up to `end`.
pub(crate) fn change_borrower<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    borrower: usize,
    end: End,
    change: Change,
    budget: &mut Budget,
) -> Walk {
    let mem = caller.mem();
    let mut stage2 = caller.stage2();
    let mut batch = Batch::new();
    let walk = units::borrower(parcel, borrower, mem, end, budget, |at, piece, budget| {
        stage2.change(mem, &mut batch, at, piece.pages, change, budget)
    });
    stage2.finish(mem, batch);
    walk
}

/// The pages have a new owner: returns what the parcel used.
fn end_donation<M: Machine>(
    parcel: &mut Memparcel,
    record: RecordIndex,
    caller: Caller<'_, '_, M>,
    borrower: usize,
    budget: &mut Budget,
) -> Walk {
    if parcel.borrowers[borrower].holds()
        && release::forget(parcel, record, caller, borrower, budget) == Walk::More
    {
        return Walk::More;
    }
    owner::clear(parcel, caller, budget)
}
