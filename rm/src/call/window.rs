//! SET_WINDOW: a VM of the access list may copy some bytes, and map nothing.
//!
//! Stage 2 knows pages only, so a VM that is to see less than a page must not map it. COPY looks at the
//! window instead, and since no TLB has anything of it, taking it away takes no invalidation.

use rm_abi::extension::{WindowFlags, WindowRequest};
use rm_abi::{Bytes, Transfer};

use crate::address::PAGE_SIZE;
use crate::call::{Caller, extension};
use crate::machine::Machine;
use crate::memparcel::table::ParcelGuard;
use crate::memparcel::{Memparcel, Phase, Window};
use crate::operation::{Answer, Begun, Operation, Reply};
use crate::refusal::{Refusal, Resource};

/// A window that is being set, in one step.
#[derive(Debug)]
pub(crate) struct SetWindow(WindowRequest);

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = WindowRequest::decode(payload).map_err(extension::refusal)?;
    find(caller, &request)?;
    *operation = Some(Operation::SetWindow(SetWindow(request)));
    Ok(Begun::Short)
}

/// The parcel and the ACL entry, if the window can be set.
fn find<'a, M: Machine>(
    caller: Caller<'a, '_, M>,
    request: &WindowRequest,
) -> Result<(ParcelGuard<'a, M::Relax>, usize), Refusal> {
    let (_, parcel) = caller.parcel(request.handle)?;
    if parcel.owner != caller.vm {
        return Err(Refusal::NotOwner);
    }
    let ends = request.flags.contains(WindowFlags::END);
    match parcel.phase {
        Phase::Initial => {}
        Phase::Offered if ends => return Err(Refusal::NotAppending),
        Phase::Offered => {}
        Phase::Closing => return Err(Refusal::Closing),
        _ => return Err(Refusal::InProgress),
    }
    if parcel.transfer == Transfer::Donate {
        return Err(Refusal::Kind);
    }
    let entry = parcel.acl.position(request.vmid).filter(|_| request.vmid != caller.vmid());
    let entry = entry.ok_or(Refusal::TargetNotInAcl)?;
    let end = request.offset.checked_add(request.size).ok_or(Refusal::Outside)?;
    let is_none = (request.offset, request.size) == (0, 0);
    if end > parcel.pages * PAGE_SIZE || request.size == 0 && !is_none {
        return Err(Refusal::Outside);
    }
    if parcel.borrowers[entry].holds() {
        let holder = caller.manager.find(request.vmid);
        return Err(Refusal::Held(holder.into_iter().collect()));
    }
    Ok((parcel, entry))
}

impl SetWindow {
    pub(crate) fn step<M: Machine>(&self, caller: Caller<'_, '_, M>) -> Answer {
        // Its VM may have been faster to accept since this was asked.
        let (mut parcel, entry) = find(caller, &self.0)?;
        self.put(&mut parcel, entry);
        if self.0.flags.contains(WindowFlags::END) {
            parcel.phase = Phase::Offered;
            parcel.unfinished = false;
            caller.ledger().refund(Resource::Unfinished, 1);
        }
        Ok(Reply::Empty)
    }

    fn put(&self, parcel: &mut Memparcel, entry: usize) {
        let WindowRequest { offset, size, .. } = self.0;
        parcel.windows[entry] = Window { first: offset, end: offset + size };
        if size == 0 {
            parcel.windowed &= !(1 << entry);
        } else {
            parcel.windowed |= 1 << entry;
        }
    }
}
