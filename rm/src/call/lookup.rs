//! MEM_LOOKUP: the handle of a parcel of one's own, by its description.
//!
//! All records are looked at, the caller's are visited one by one; of a parcel whose kind, access list
//! and attributes match, the extents, as far as their pages have not left the parcel, are compared with
//! the list of the request. A page is in one parcel at most, so there is no second match. The label is
//! not compared: in the original it is the caller's to set.

use rm_abi::memparcel::lookup::LookupRequest;
use rm_abi::{Bytes, Handle, SglEntry};

use crate::address::PAGE_SIZE;
use crate::call::Caller;
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::holes::Gone;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{self, Next};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;

/// A lookup at work. It changes nothing.
#[derive(Debug)]
pub(crate) struct Lookup {
    request: LookupRequest,
    /// The record that is looked at, and the one behind the last.
    record: u32,
    end: u32,
    /// The parcel there whose pages are being compared, and how far in both lists.
    candidate: Option<(Handle, Place, usize)>,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = LookupRequest::decode(payload).map_err(Refusal::Malformed)?;
    let end = caller.manager.parcels().records() as u32;
    let own = caller.state().account.lock(caller.machine()).taken();
    let looks = u64::from(end) * u64::from(weight::LOOK);
    let work = looks + u64::from(own) * u64::from(weight::VISIT) + u64::from(weight::REGION);
    let short = request.sgl.len() <= 1 && work <= caller.step.into();
    let lookup = Lookup { request, record: 0, end, candidate: None };
    *operation = Some(Operation::Lookup(lookup));
    Ok(if short { Begun::Short } else { Begun::Long })
}

impl Lookup {
    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Step {
        while self.record < self.end {
            let record = RecordIndex(self.record);
            // A comparison that goes on has paid for its parcel.
            if self.candidate.is_none() {
                let is_own = caller.manager.parcels().is_taken_by(caller.vm, record);
                if !budget.spend(if is_own { weight::VISIT } else { weight::LOOK }) {
                    return Step::More;
                }
                if !is_own {
                    self.record += 1;
                    continue;
                }
            }
            let parcel = caller.manager.parcels().lock(caller.machine(), record);
            match self.visit(&parcel, caller, payload, budget) {
                Some(true) => return Step::Done(Ok(Reply::Word(parcel.handle.0))),
                Some(false) => {
                    self.candidate = None;
                    self.record += 1;
                }
                None => return Step::More,
            }
        }
        Step::Done(Err(Refusal::NoMatch))
    }

    /// Whether the parcel is the one; `None` when the budget does not suffice to tell.
    fn visit<M: Machine>(
        &mut self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
        budget: &mut Budget,
    ) -> Option<bool> {
        // Since the last step the record may have become another parcel's.
        let (mut place, mut index) = match self.candidate {
            Some((handle, place, index)) if handle == parcel.handle && is_offered(parcel) => {
                (place, index)
            }
            Some(_) => return Some(false),
            None if self.is_described(parcel, caller, payload) => (Place::START, 0),
            None => return Some(false),
        };
        let (gone, end) = (Gone(parcel.holes.all(), &[]), parcel.end());
        loop {
            match units::next((&parcel.extents, gone), caller.mem(), &mut place, end, budget) {
                Next::End => return Some(index == self.request.sgl.len()),
                Next::More => {
                    self.candidate = Some((parcel.handle, place, index));
                    return None;
                }
                Next::Piece(piece) => {
                    let region = SglEntry { ipa: piece.at.0, size: piece.pages * PAGE_SIZE };
                    let is_listed = index < self.request.sgl.len()
                        && self.request.sgl.get(payload, index) == region;
                    if !is_listed {
                        return Some(false);
                    }
                    place.offset += piece.pages;
                    index += 1;
                    let _ = budget.spend(weight::REGION);
                }
            }
        }
    }

    /// Whether all but the parcel's extents is as the request says.
    fn is_described<M: Machine>(
        &self,
        parcel: &Memparcel,
        caller: Caller<'_, '_, M>,
        payload: &dyn Bytes,
    ) -> bool {
        let LookupRequest { memory, acl, sgl, attributes, .. } = self.request;
        is_offered(parcel)
            && parcel.owner == caller.vm
            && parcel.memory == memory
            && (parcel.extents.len() as usize == sgl.len() || parcel.holes.pages() > 0)
            && parcel.acl.matches(payload, acl, attributes)
    }
}

/// Whether the parcel is complete and nobody has accepted it.
fn is_offered(parcel: &Memparcel) -> bool {
    parcel.phase == Phase::Offered && !parcel.is_held()
}
