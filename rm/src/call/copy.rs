//! COPY: bytes between parcels and the caller's own memory, without a mapping.
//!
//! Each piece goes through EL2's stack: read while one side is locked, written while the other is. So
//! no two parcels are ever locked at once, and what a side allows is asked anew for each piece: when a
//! revocation has been answered, nothing of the parcel is read or written any more. A segment that fails
//! leaves its error word and the next one begins; LAST_REFUSAL tells of the first one.

use rm_abi::extension::{CopyRequest, CopySegment, CopySide};
use rm_abi::{Bytes, Handle, Rights, Transfer};

use crate::address::{Ipa, PAGE_SIZE, Pa};
use crate::call::{Caller, extension};
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::extents::Extent;
use crate::memparcel::holes::Hole;
use crate::memparcel::units::{self, Walk};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::message::Message;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::{Access, MemoryType};

/// Bytes of a piece: little enough for EL2's stack and for a lock to be held. In one step there are
/// [`STEP`](crate::operation::STEP) ÷ [`weight::COPY_CHUNK`] of them at most, 6 KiB.
const CHUNK: usize = 512;

/// A copy at work.
#[derive(Debug)]
pub(crate) struct Copy {
    count: u32,
    /// The segment that is at work, how many bytes of it are done, and where its sides are found.
    segment: u32,
    done: u32,
    source: Place,
    dest: Place,
    /// Why the first refused segment was.
    refused: Option<Refusal>,
}

pub(crate) fn begin(
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let CopyRequest { count } = CopyRequest::decode(payload).map_err(extension::refusal)?;
    let (source, dest) = (Place::START, Place::START);
    let copy = Copy { count, segment: 0, done: 0, source, dest, refused: None };
    if copy.data_size() > room {
        return Ok(Begun::ReplyTooLarge);
    }
    *operation = Some(Operation::Copy(copy));
    Ok(Begun::Long)
}

/// Bytes of a segment that lie in one page of a side.
struct Piece {
    at: u64,
    /// The segment's first byte on this side, and its length.
    segment: (u64, u64),
}

impl Copy {
    /// Bytes of the reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        CopyRequest::REPLY_HEAD + self.count as usize * CopyRequest::STATUS
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        let mut bytes = [0; CHUNK];
        while self.segment < self.count {
            let index = self.segment as usize;
            let segment = CopySegment::decode(payload, index).ok_or(Refusal::UnknownBits);
            let copied = segment.and_then(|wish| self.copy(caller, &wish, &mut bytes, budget));
            let status = match copied {
                Ok(Walk::More) => return Step::More,
                Ok(Walk::End) => 0,
                Err(refusal) => {
                    let _ = self.refused.get_or_insert(refusal);
                    refusal.code() as u32
                }
            };
            let at = CopyRequest::REPLY_HEAD + index * CopyRequest::STATUS;
            data.write(caller.mem(), at, &status.to_le_bytes());
            self.segment += 1;
            (self.done, self.source, self.dest) = (0, Place::START, Place::START);
            let _ = budget.spend(weight::REGION);
        }
        data.write(caller.mem(), 0, &self.count.to_le_bytes());
        let length = self.data_size() as u16;
        Step::Done(Ok(match self.refused {
            None => Reply::Data { length },
            Some(refusal) => Reply::Partly { length, refusal },
        }))
    }

    /// Goes on with a segment.
    fn copy<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        wish: &CopySegment,
        bytes: &mut [u8; CHUNK],
        budget: &mut Budget,
    ) -> Result<Walk, Refusal> {
        if matches!((wish.source, wish.dest), (CopySide::Own(_), CopySide::Own(_))) {
            return Err(Refusal::CopyOwn);
        }
        if wish.length > CopySegment::MAX_LENGTH {
            return Err(Refusal::Outside);
        }
        while self.done < wish.length {
            if budget.is_spent() {
                return Ok(Walk::More);
            }
            let left = (wish.length - self.done) as usize;
            let (from, to) = (self.next_byte(wish.source)?, self.next_byte(wish.dest)?);
            let in_page = |at: u64| (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let length = left.min(CHUNK).min(in_page(from)).min(in_page(to));
            let piece = |side, at| Piece { at, segment: (first_byte(side), wish.length.into()) };
            let bytes = &mut bytes[..length];
            let (source, dest) = (piece(wish.source, from), piece(wish.dest, to));
            let read = |machine: &M, pa, cached| machine.read(pa, bytes, cached);
            let place = &mut self.source;
            if access(caller, wish.source, &source, place, Access::Read, budget, read)?
                == Walk::More
            {
                return Ok(Walk::More);
            }
            let write = |machine: &M, pa, cached| machine.write(pa, bytes, cached);
            let place = &mut self.dest;
            if access(caller, wish.dest, &dest, place, Access::Write, budget, write)? == Walk::More
            {
                return Ok(Walk::More);
            }
            self.done += length as u32;
            // Paid afterwards, so that a budget of one still copies a piece.
            let _ = budget.spend(weight::COPY_CHUNK);
        }
        Ok(Walk::End)
    }

    /// The next byte on a side.
    fn next_byte(&self, side: CopySide) -> Result<u64, Refusal> {
        first_byte(side).checked_add(self.done.into()).ok_or(Refusal::Outside)
    }
}

const fn first_byte(side: CopySide) -> u64 {
    match side {
        CopySide::Own(at) | CopySide::Parcel(_, at) => at,
    }
}

/// Does `work` on a piece while nobody can take its page from the side.
fn access<M: Machine>(
    caller: Caller<'_, '_, M>,
    side: CopySide,
    piece: &Piece,
    place: &mut Place,
    how: Access,
    budget: &mut Budget,
    work: impl FnOnce(&M, Pa, bool),
) -> Result<Walk, Refusal> {
    match side {
        CopySide::Own(_) => access_own(caller, piece, how, work).map(|()| Walk::End),
        CopySide::Parcel(handle, _) => {
            access_parcel(caller, handle, piece, place, how, budget, work)
        }
    }
}

/// What the VM's own access would be allowed, by its tables.
fn access_own<M: Machine>(
    caller: Caller<'_, '_, M>,
    piece: &Piece,
    how: Access,
    work: impl FnOnce(&M, Pa, bool),
) -> Result<(), Refusal> {
    let stage2 = caller.stage2();
    let page = stage2.page(caller.mem(), Ipa(piece.at), how).ok_or(Refusal::NotOwned)?;
    let cached = page.memory == MemoryType::WriteBack;
    work(caller.machine(), Pa(page.pa.0 + piece.at % PAGE_SIZE), cached);
    Ok(())
}

/// What the parcel's access list allows, whether the VM has accepted it or not.
fn access_parcel<M: Machine>(
    caller: Caller<'_, '_, M>,
    handle: Handle,
    piece: &Piece,
    place: &mut Place,
    how: Access,
    budget: &mut Budget,
    work: impl FnOnce(&M, Pa, bool),
) -> Result<Walk, Refusal> {
    let mem = caller.mem();
    let (_, mut parcel) = caller.parcel(handle)?;
    if parcel.owner != caller.vm {
        caller.check_consumes()?;
    }
    check(&parcel, caller, piece, how)?;
    let page = (&mut *place, piece.at / PAGE_SIZE);
    if units::seek(&parcel.extents, None, mem, page, budget) == Walk::More {
        return Ok(Walk::More);
    }
    let record = parcel.extents.peek(mem, place.extent).expect("G3: a page is in an extent");
    let first = Extent::decode(record).pa.add_pages(place.offset);
    work(caller.machine(), Pa(first.0 + piece.at % PAGE_SIZE), parcel.is_cached());
    // What the VM brings into the memory of a lend is its data, as if it had mapped it.
    parcel.sanitize |=
        how == Access::Write && parcel.transfer == Transfer::Lend && caller.state().sanitize_always;
    Ok(Walk::End)
}

/// Whether a party to the parcel may copy all of the segment, and this piece of it is there.
fn check<M: Machine>(
    parcel: &Memparcel,
    caller: Caller<'_, '_, M>,
    piece: &Piece,
    how: Access,
) -> Result<(), Refusal> {
    if !matches!(parcel.phase, Phase::Offered | Phase::Closing) {
        return Err(Refusal::InProgress);
    }
    if parcel.transfer == Transfer::Donate {
        return Err(Refusal::Kind);
    }
    if parcel.is_device() {
        return Err(Refusal::DeviceMemory);
    }
    let wanted = if how == Access::Write { Rights::W } else { Rights::R };
    let rights = parcel.acl.rights(caller.vmid());
    if !rights.is_some_and(|rights| rights.contains(wanted)) {
        return Err(Refusal::CopyRights);
    }
    let all = (0, parcel.pages * PAGE_SIZE);
    let (mut first, mut end) = all;
    if parcel.owner != caller.vm {
        let entry = parcel.borrower(caller.vm, caller.vmid(), Refusal::NoParcel)?;
        if parcel.recalled && !parcel.borrowers[entry].holds() {
            return Err(Refusal::Closing);
        }
        if let Some(window) = parcel.window(entry) {
            (first, end) = (window.first, window.end);
        }
    }
    let (from, length) = piece.segment;
    if from < first || from.checked_add(length).is_none_or(|to| to > end) {
        return Err(Refusal::Outside);
    }
    let page = Hole::within(piece.at / PAGE_SIZE, 1, parcel.pages).ok_or(Refusal::Outside)?;
    if parcel.holes.overlaps(page) {
        return Err(Refusal::Trimmed);
    }
    if parcel.poisoned { Err(Refusal::Poisoned) } else { Ok(()) }
}

// A reply names its length in a half word.
const _: () = assert!(CopyRequest::REPLY_HEAD + CopyRequest::MAX * CopyRequest::STATUS < 1 << 16);
