//! NOTIFY_SET: what is to be done when the caller's part in a page ends; and the moments when it is done.
//!
//! Whatever can be refused is refused when it is set: the byte is looked up, and the record has its place,
//! which the caller is charged for. A borrower's part ends when its translations are gone from every TLB
//! and before anybody is told; an owner's when it begins to take the parcel away, while the pages are
//! still the parcel's.

use rm_abi::extension::{NotifyActions, NotifySetRequest};
use rm_abi::{Bytes, Handle, Rights, Transfer};

use crate::address::{PAGE_SIZE, Pa};
use crate::call::{Caller, extension};
use crate::doorbell::MAX_DOORBELLS;
use crate::machine::Machine;
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::extents::Extent;
use crate::memparcel::holes::Hole;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{self, Walk};
use crate::memparcel::wills::{Will, Wills};
use crate::memparcel::words::Cursor;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Answer, Begun, Operation, Reply, Step};
use crate::refusal::Refusal;

/// A will that is being set. Until its last step nothing has changed.
#[derive(Debug)]
pub(crate) struct SetWill {
    record: RecordIndex,
    handle: Handle,
    side: Side,
    /// The list is still the one that was searched.
    generation: u32,
    will: Will,
    /// The byte in its page.
    offset: u64,
    /// Where the page is looked for, and whether it was found.
    place: Place,
    located: bool,
    /// The next will that is compared, and a void one.
    next: Cursor,
    free: Option<Cursor>,
}

/// Whose part it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Owner,
    /// The VM of this ACL entry.
    Borrower(usize),
}

impl Side {
    fn wills(self, parcel: &mut Memparcel) -> &mut Wills {
        match self {
            Self::Owner => &mut parcel.wills,
            Self::Borrower(entry) => &mut parcel.borrowers[entry].wills,
        }
    }
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = NotifySetRequest::decode(payload).map_err(extension::refusal)?;
    let handle = request.handle;
    let (record, mut parcel) = caller.parcel(handle)?;
    let side = if parcel.owner == caller.vm {
        Side::Owner
    } else {
        Side::Borrower(parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?)
    };
    let (page, offset) = (request.offset / PAGE_SIZE, request.offset % PAGE_SIZE);
    let page = u32::try_from(page).map_err(|_| Refusal::Outside)?;
    check(&parcel, side, page)?;
    let clears = request.actions.contains(NotifyActions::CLEAR_BYTE);
    if clears {
        let rights = parcel.acl.rights(caller.vmid());
        if parcel.is_device() || !rights.is_some_and(|rights| rights.contains(Rights::W)) {
            return Err(Refusal::NotifyByte);
        }
    }
    let rings = match request.actions.contains(NotifyActions::RING) {
        true => Some(bell(caller, &request)?),
        false => None,
    };
    let will = Will { page, byte: Pa(0), clears, rings };
    let generation = side.wills(&mut parcel).generation;
    let (place, next) = (Place::START, Cursor::START);
    *operation = Some(Operation::SetWill(SetWill {
        record,
        handle,
        side,
        generation,
        will,
        offset,
        place,
        located: false,
        next,
        free: None,
    }));
    Ok(Begun::Long)
}

/// The caller's end of a channel, and a flag.
fn bell<M: Machine>(
    caller: Caller<'_, '_, M>,
    request: &NotifySetRequest,
) -> Result<(u8, u8), Refusal> {
    let exists = |bell: &u8| {
        usize::from(*bell) < MAX_DOORBELLS && caller.manager.can_ring((caller.vm, *bell))
    };
    let bell = u8::try_from(request.doorbell).ok().filter(exists);
    let flag = u8::try_from(request.flag).ok().filter(|&flag| flag < 64);
    bell.zip(flag).ok_or(Refusal::NotifyBell)
}

/// Whether the caller has a part in the page that can end.
fn check(parcel: &Memparcel, side: Side, page: u32) -> Result<(), Refusal> {
    let page = Hole::within(page.into(), 1, parcel.pages).ok_or(Refusal::Outside)?;
    let mut is_gone = parcel.holes.overlaps(page);
    match side {
        Side::Owner if parcel.transfer == Transfer::Donate => return Err(Refusal::Kind),
        Side::Owner => match parcel.phase {
            Phase::Initial | Phase::Offered => {}
            Phase::Closing => return Err(Refusal::Closing),
            _ => return Err(Refusal::InProgress),
        },
        Side::Borrower(entry) => match parcel.borrowers[entry].stage {
            Stage::Mapped => is_gone |= parcel.borrowers[entry].holes.overlaps(page),
            Stage::Away | Stage::Assigned => return Err(Refusal::NotHeld),
            _ => return Err(Refusal::InProgress),
        },
    }
    if is_gone { Err(Refusal::Trimmed) } else { Ok(()) }
}

impl SetWill {
    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Step {
        let mut parcel = caller.manager.parcels().lock(caller.machine(), self.record);
        // Another vCPU, or the owner, may have ended the caller's part meanwhile.
        if parcel.handle != self.handle {
            return Step::Done(Err(Refusal::NoParcel));
        }
        if let Err(refusal) =
            parcel.check_party(caller.vm).and_then(|()| check(&parcel, self.side, self.will.page))
        {
            return Step::Done(Err(refusal));
        }
        if self.side.wills(&mut parcel).generation != self.generation {
            return Step::Done(Err(Refusal::NotHeld));
        }
        if self.locate(&parcel, caller, budget) == Walk::More {
            return Step::More;
        }
        match self.search(&mut parcel, caller, budget) {
            None => Step::More,
            Some(found) => Step::Done(self.put(&mut parcel, caller, found)),
        }
    }

    /// Finds the page in the machine.
    fn locate<M: Machine>(
        &mut self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        if self.located {
            return Walk::End;
        }
        let (mem, page) = (caller.mem(), self.will.page.into());
        let place = (&mut self.place, page);
        if units::seek(&parcel.extents, None, mem, place, budget) == Walk::More {
            return Walk::More;
        }
        let record = parcel.extents.peek(mem, self.place.extent);
        let extent = Extent::decode(record.expect("G3: a page is in an extent"));
        self.will.byte = Pa(extent.pa.add_pages(self.place.offset).0 + self.offset);
        self.located = true;
        Walk::End
    }

    /// Looks for what was said of the page before. `None`: the budget is spent.
    fn search<M: Machine>(
        &mut self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Option<Option<Cursor>> {
        let (mem, wills) = (caller.mem(), self.side.wills(parcel));
        while let Some(will) = wills.peek(mem, self.next) {
            if budget.is_spent() {
                return None;
            }
            if will.is_void() {
                self.free = Some(self.next);
            } else if will.page == self.will.page {
                return Some(Some(self.next));
            }
            wills.step(mem, &mut self.next);
            let _ = budget.spend(weight::REGION);
        }
        Some(None)
    }

    /// What was said before, or a place that is free, or a new one becomes this will.
    fn put<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        caller: Caller<'_, '_, M>,
        found: Option<Cursor>,
    ) -> Answer {
        let (mem, wills) = (caller.mem(), self.side.wills(parcel));
        match (found.or(self.free), self.will.is_void()) {
            (Some(place), false) => wills.replace(mem, place, self.will),
            (None, false) => wills.add(mem, &mut caller.stage2(), self.will)?,
            (_, true) => {
                if let Some(place) = found {
                    wills.replace(mem, place, self.will);
                }
            }
        }
        Ok(Reply::Empty)
    }
}

/// The mapping of the borrower at `entry` has ended, and no TLB knows of it: does what it wanted done.
#[inline]
pub(crate) fn end_part<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    entry: usize,
    budget: &mut Budget,
) -> Walk {
    let who = (caller.vm, parcel.is_cached());
    parcel.borrowers[entry].wills.execute(caller.manager, who, budget)
}

/// The owner begins to take the parcel away: does what it wanted done.
#[inline]
pub(crate) fn end_owners_part<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    budget: &mut Budget,
) -> Walk {
    let who = (parcel.owner, parcel.is_cached());
    parcel.wills.execute(caller.manager, who, budget)
}

/// The caller's part in some pages has ended; it is the borrower at `entry`, or the owner. Goes on from a
/// place in its wills.
pub(crate) fn end_part_in<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    entry: Option<usize>,
    pages: (Hole, &mut Cursor),
    budget: &mut Budget,
) -> Walk {
    let who = (caller.vm, parcel.is_cached());
    let side = entry.map_or(Side::Owner, Side::Borrower);
    side.wills(parcel).execute_in(caller.manager, who, pages, budget)
}
