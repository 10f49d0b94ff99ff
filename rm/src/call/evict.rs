//! Taking a mapping away from a borrower that does not help, or cannot any more.
//!
//! All progress is in the parcel's record, so whoever needs the mapping gone (the owner that revokes, the
//! end of either VM) begins where another stopped, and several may take turns. A call of the borrower
//! that is at work on the mapping is taken over from its cursor: its epoch is over, and at its next
//! step it ends as if there were no such parcel.

use rm_abi::Transfer;

use crate::call::accept::change_borrower;
use crate::call::{Caller, device, release};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::borrower::{Place, Stage};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::{Walk, end_at};
use crate::operation::budget::Budget;
use crate::refusal::Resource;
use crate::stage2::Change;

/// Removes what the borrower at `entry` has. The pages of a lend are zeroed when they come home (G5): the
/// borrower had no chance to take its data away.
pub(crate) fn evict<M: Machine>(
    parcel: &mut Memparcel,
    record: RecordIndex,
    caller: Caller<'_, '_, M>,
    entry: usize,
    budget: &mut Budget,
) -> Walk {
    if parcel.borrowers[entry].stage == Stage::Away {
        return Walk::End;
    }
    let vmid = parcel.acl.entries()[entry].vmid;
    let vm = caller.manager.find(vmid).expect("G3: only a VM holds a parcel");
    let borrower = Caller { vm, ..caller };
    take_over(parcel, entry);
    if device::withdraw(parcel, borrower, budget) == Walk::More {
        return Walk::More;
    }
    loop {
        let state = &parcel.borrowers[entry];
        let (end, stage) = (state.end, state.stage);
        if change_borrower(parcel, borrower, entry, end, Change::Unmap, budget) == Walk::More {
            return Walk::More;
        }
        let whole = parcel.end();
        let state = &mut parcel.borrowers[entry];
        let end = match stage {
            // What earlier accepts have reserved comes after what the last one was giving back.
            Stage::Unassigning => state.kept,
            Stage::Trimming => {
                borrower.ledger().refund(Resource::PagesAccepted, state.end_trim());
                whole
            }
            _ => break,
        };
        (state.stage, state.place, state.end) = (Stage::Revoking, Place::START, end);
    }
    release::forget(parcel, record, borrower, entry, budget)
}

/// Ends the borrower's own part in what happens to its mapping.
fn take_over(parcel: &mut Memparcel, entry: usize) {
    let whole = parcel.end();
    let state = &mut parcel.borrowers[entry];
    if state.stage == Stage::Revoking {
        return;
    }
    state.epoch = state.epoch.wrapping_add(1);
    let all = match state.stage {
        Stage::Assigning | Stage::Assigned => Some(end_at(&state.place)),
        Stage::Mapping | Stage::Mapped | Stage::Cutting => Some(whole),
        // These go on from where they are.
        Stage::Releasing | Stage::Unassigning | Stage::Trimming => None,
        Stage::Revoking | Stage::Away => None,
    };
    if let Some(end) = all {
        (state.place, state.end) = (Place::START, end);
    }
    let (_, wipes) = state.trimmed;
    if !matches!(state.stage, Stage::Unassigning | Stage::Trimming) {
        state.stage = Stage::Revoking;
    }
    // A trim that has not wiped its range yet leaves that to who has the pages next.
    parcel.sanitize |= wipes || parcel.transfer == Transfer::Lend;
}
