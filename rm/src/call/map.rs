//! MAP: what a VM has where, or where the pages of a parcel are, part by part.
//!
//! Tables are read as they are at that moment, run by run, and nothing is kept between two parts but
//! an address. A run is reported whole, however many steps it takes to find its end.

use rm_abi::extension::{MapEntry, MapRequest, PageState, Policy};
use rm_abi::{Bytes, Handle};

use crate::address::{Ipa, PAGE_SIZE, VmIndex};
use crate::call::{Caller, extension};
use crate::config::Roles;
use crate::machine::Machine;
use crate::memparcel::borrower::Place;
use crate::memparcel::extents::Extent;
use crate::memparcel::holes::Gone;
use crate::memparcel::{Memparcel, Phase, units};
use crate::operation::budget::{Budget, weight};
use crate::operation::message::Message;
use crate::operation::{Begun, Operation, Reply, Step};
use crate::refusal::Refusal;
use crate::stage2::{Leaf, MemoryType, Next, State};

/// A map at work. It changes nothing.
#[derive(Debug)]
pub(crate) struct Map {
    vm: VmIndex,
    source: Source,
    /// The last run, which may go on.
    pending: Option<MapEntry>,
    /// Runs in the reply.
    count: u16,
    most: u16,
}

/// Where runs come from.
#[derive(Debug)]
enum Source {
    /// The VM's tables, from here on.
    Tables(Ipa),
    /// The pieces of a parcel, from its page `from` on.
    Parcel { handle: Handle, place: Place, from: u64 },
}

/// What a look at the source brings.
enum Found {
    /// A run, and the cursor that would bring it again.
    Run(MapEntry, u64),
    /// Nothing yet.
    Nothing,
    /// There is no more.
    End,
}

pub(crate) fn begin<M: Machine>(
    caller: Caller<'_, '_, M>,
    payload: &dyn Bytes,
    room: usize,
    operation: &mut Option<Operation>,
) -> Result<Begun, Refusal> {
    let request = MapRequest::decode(payload).map_err(extension::refusal)?;
    caller.check_role(Roles::INSPECT)?;
    let vm = caller.inspected(request.vmid)?;
    let source = match request.parcel {
        Handle(0) => Source::Tables(Ipa::of_page(Ipa(request.cursor).page())),
        handle => {
            let (_, parcel) = caller.manager.parcels().get(caller.machine(), handle)?;
            check(&parcel, vm)?;
            Source::Parcel { handle, place: Place::START, from: request.cursor }
        }
    };
    let fits = room.saturating_sub(MapEntry::HEAD) / MapEntry::SIZE;
    let most = request.most.min(fits.min(u16::MAX.into()) as u16);
    if most == 0 {
        return Ok(Begun::ReplyTooLarge);
    }
    *operation = Some(Operation::Map(Map { vm, source, pending: None, count: 0, most }));
    Ok(Begun::Long)
}

/// Whether the parcel is one of the VM's with pages that do not change.
fn check(parcel: &Memparcel, vm: VmIndex) -> Result<(), Refusal> {
    match parcel.phase {
        Phase::Vacant | Phase::Creating | Phase::Reclaiming => Err(Refusal::NoParcel),
        _ if parcel.owner != vm => Err(Refusal::NotOwner),
        _ => Ok(()),
    }
}

impl Map {
    /// Bytes of the longest reply's data.
    pub(crate) const fn data_size(&self) -> usize {
        MapEntry::HEAD + self.most as usize * MapEntry::SIZE
    }

    pub(crate) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        data: &mut Message,
        budget: &mut Budget,
    ) -> Step {
        loop {
            if budget.is_spent() {
                return Step::More;
            }
            let cursor = match self.look(caller, budget) {
                Ok(Found::Nothing) => continue,
                Ok(Found::Run(run, _)) if self.joins(&run) => continue,
                Ok(Found::Run(run, cursor)) => {
                    self.write(caller, data, budget);
                    self.pending = Some(run);
                    if self.count < self.most {
                        continue;
                    }
                    cursor
                }
                Ok(Found::End) => {
                    self.write(caller, data, budget);
                    0
                }
                Err(refusal) => return Step::Done(Err(refusal)),
            };
            let [a, b] = self.count.to_le_bytes();
            data.write(caller.mem(), 0, &cursor.to_le_bytes());
            data.write(caller.mem(), 8, &[a, b, 0, 0, 0, 0, 0, 0]);
            let length = MapEntry::HEAD + usize::from(self.count) * MapEntry::SIZE;
            return Step::Done(Ok(Reply::Data { length: length as u16 }));
        }
    }

    /// Writes the run that is known to have ended.
    fn write<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        data: &mut Message,
        budget: &mut Budget,
    ) {
        let Some(run) = self.pending.take() else { return };
        let mut bytes = [0; MapEntry::SIZE];
        run.encode(&mut bytes).expect("G7: the room is for an entry");
        data.write(caller.mem(), MapEntry::HEAD + usize::from(self.count) * bytes.len(), &bytes);
        self.count += 1;
        let _ = budget.spend(weight::ENTRY);
    }

    /// Makes the last run longer if this one continues it, as it does where a budget cut it.
    fn joins(&mut self, run: &MapEntry) -> bool {
        let (Source::Tables(_), Some(last)) = (&self.source, &mut self.pending) else {
            return false;
        };
        let size = last.pages * PAGE_SIZE;
        let pa = if last.pa == 0 { 0 } else { last.pa + size };
        let next = MapEntry { ipa: last.ipa + size, pa, pages: run.pages, ..*last };
        let joins = *run == next;
        if joins {
            last.pages += run.pages;
        }
        joins
    }

    fn look<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Result<Found, Refusal> {
        match &mut self.source {
            Source::Tables(at) => Ok(next_run(caller, self.vm, at, budget)),
            Source::Parcel { handle, place, from } => {
                next_piece(caller, self.vm, *handle, (place, *from), budget)
            }
        }
    }
}

/// The next run of a VM's tables, as far as the budget goes; moves `at` behind it.
fn next_run<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    at: &mut Ipa,
    budget: &mut Budget,
) -> Found {
    let stage2 = caller.manager.vm(vm).stage2.lock(caller.machine());
    match stage2.next_leaf(caller.mem(), *at, budget) {
        Next::End => Found::End,
        Next::More(next) => {
            *at = next;
            Found::Nothing
        }
        Next::Leaf(found, leaf) => {
            let (_, _, pages) = stage2.run(caller.mem(), found, u64::MAX, budget);
            let _ = budget.spend(weight::PIECE);
            *at = found.add_pages(pages);
            let handle = caller.manager.parcels().handle_of(leaf.parcel);
            entry(found, &Leaf { pages, ..leaf }, handle)
                .map_or(Found::Nothing, |run| Found::Run(run, found.0))
        }
    }
}

/// The next piece of a parcel: an extent, or what trimming has left of it; moves `place` behind it.
fn next_piece<M: Machine>(
    caller: Caller<'_, '_, M>,
    vm: VmIndex,
    handle: Handle,
    (place, from): (&mut Place, u64),
    budget: &mut Budget,
) -> Result<Found, Refusal> {
    // Since the last step the parcel may have gone. While it is there, its settled extents stay.
    let (_, parcel) = caller.manager.parcels().get(caller.machine(), handle)?;
    check(&parcel, vm)?;
    if place.extent.index() >= parcel.settled {
        return Ok(Found::End);
    }
    let record = parcel.extents.peek(caller.mem(), place.extent);
    let extent = Extent::decode(record.expect("G3: as many extents as were counted"));
    if from >= place.before + extent.pages {
        place.before += extent.pages;
        parcel.extents.next(caller.mem(), &mut place.extent);
        let _ = budget.spend(weight::REGION);
        return Ok(Found::Nothing);
    }
    place.offset = place.offset.max(from.saturating_sub(place.before));
    let gone = Gone(parcel.holes.all(), &[]);
    let end = (parcel.settled, 0);
    let piece = match units::next((&parcel.extents, gone), caller.mem(), place, end, budget) {
        units::Next::Piece(piece) => piece,
        units::Next::More => return Ok(Found::Nothing),
        units::Next::End => return Ok(Found::End),
    };
    let cursor = place.before + place.offset;
    place.offset += piece.pages;
    let stage2 = caller.manager.vm(vm).stage2.lock(caller.machine());
    let leaf = stage2.leaf(caller.mem(), piece.at);
    let _ = budget.spend(weight::PIECE);
    let leaf = Leaf { pages: piece.pages, pa: piece.pa, ..leaf };
    Ok(entry(piece.at, &leaf, handle).map_or(Found::Nothing, |run| Found::Run(run, cursor)))
}

fn entry(at: Ipa, leaf: &Leaf, parcel: Handle) -> Option<MapEntry> {
    let is_emulated = leaf.state == State::Device && leaf.rights.is_empty();
    Some(MapEntry {
        ipa: at.0,
        pages: leaf.pages,
        pa: if is_emulated { 0 } else { leaf.pa.0 },
        state: match leaf.state {
            State::Absent => return None,
            State::Owned => PageState::Owned,
            State::Claimed => PageState::Claimed,
            State::Shared => PageState::Shared,
            State::Borrowed => PageState::Borrowed,
            State::Device => PageState::Device,
            State::Lent => PageState::Lent,
            State::Held => PageState::Held,
        },
        rights: leaf.rights,
        policy: match leaf.memory {
            MemoryType::WriteBack => Policy::Cached,
            MemoryType::NonCacheable => Policy::Uncached,
            MemoryType::Device => Policy::Device,
        },
        parcel,
    })
}
