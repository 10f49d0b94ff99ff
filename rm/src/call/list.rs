//! LIST: the parcels that a VM has to do with, part by part, while others come and go.
//!
//! The cursor is the place behind the last parcel that was listed, so what a VM sees of it depends on
//! nothing but the parcels that it may see. A parcel that is there from the first part to the last is
//! listed once; one that comes or goes meanwhile may be.

use rm_abi::Bytes;
use rm_abi::extension::{ListFlags, ListRequest, ParcelEntry};

use crate::call::{Caller, extension, info};
use crate::config::Roles;
use crate::machine::Machine;
use crate::memparcel::borrower::Borrower;
use crate::memparcel::table::RecordIndex;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::message::Message;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;

/// A list at work. It changes nothing.
#[derive(Debug)]
pub(crate) struct List {
    /// Those of all VMs.
    all: bool,
    /// The record that is visited next.
    record: u32,
    /// Where the next part begins.
    cursor: u32,
    count: u16,
    most: u16,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = ListRequest::decode(payload).map_err(extension::refusal)?;
    let all = request.flags.contains(ListFlags::ALL);
    if all {
        caller.check_role(Roles::INSPECT)?;
    }
    let fits = room.saturating_sub(ParcelEntry::HEAD) / ParcelEntry::SIZE;
    let most = request.most.min(fits.min(u16::MAX.into()) as u16);
    if most == 0 {
        return Ok(Begun::ReplyTooLarge);
    }
    let record = request.cursor;
    *operation = Some(Operation::List(List { all, record, cursor: 0, count: 0, most }));
    Ok(Begun::Long)
}

impl List {
    /// Bytes of the longest reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        ParcelEntry::HEAD + self.most as usize * ParcelEntry::SIZE
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        let end = caller.manager.parcels().records() as u32;
        while self.record < end && self.count < self.most {
            if budget.is_spent() {
                return Step::More;
            }
            let record = RecordIndex(self.record);
            let parcel = caller.manager.parcels().lock(caller.machine(), record);
            self.record += 1;
            if self.lists(&parcel, caller) {
                self.cursor = self.record;
                let at = ParcelEntry::HEAD + usize::from(self.count) * ParcelEntry::SIZE;
                let mut bytes = [0; ParcelEntry::SIZE];
                let entry = entry(&parcel, caller).encode(&mut bytes);
                entry.expect("G7: the room is for an entry");
                data.write(caller.mem(), at, &bytes);
                self.count += 1;
                let _ = budget.spend(weight::COPY_PAGE);
            }
            let _ = budget.spend(weight::VISIT);
        }
        // A part that is not full is the last one.
        let next = if self.count < self.most { 0 } else { self.cursor };
        let [a, b] = self.count.to_le_bytes();
        data.write(caller.mem(), 0, &next.to_le_bytes());
        data.write(caller.mem(), 4, &[a, b, 0, 0]);
        let length = ParcelEntry::HEAD + usize::from(self.count) * ParcelEntry::SIZE;
        Step::Done(Ok(Reply::Data { length: length as u16 }))
    }

    fn lists<M: Machine>(&self, parcel: &Memparcel, caller: Caller<'_, '_, M>) -> bool {
        if self.all {
            !matches!(parcel.phase, Phase::Vacant | Phase::Creating)
        } else {
            parcel.is_party(caller.vm)
        }
    }
}

fn entry<M: Machine>(parcel: &Memparcel, caller: Caller<'_, '_, M>) -> ParcelEntry {
    let named = &parcel.borrowers[..parcel.acl.len()];
    let holders = named.iter().filter(|borrower| Borrower::holds(borrower)).count();
    ParcelEntry {
        handle: parcel.handle,
        owner: caller.manager.vmid(parcel.owner),
        transfer: parcel.transfer,
        phase: info::phase(parcel),
        pages: parcel.pages,
        label: parcel.label,
        holders: if info::sees_holders(parcel, caller) { holders as u16 } else { 0 },
        flags: info::flags(parcel, caller),
        name: parcel.name,
    }
}
