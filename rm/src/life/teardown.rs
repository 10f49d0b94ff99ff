//! Taking apart what a VM that has ended had a part in.
//!
//! One stage after the other, each of them in steps: the call that was at work is finished before this
//! begins; then queues, news and doorbells are emptied, what the VM holds of others is released, newest
//! first, its own parcels are taken back and zeroed, handle numbers that rested for it come back, its
//! tables are merged, and what it has of heaps goes back to them. Nothing here needs memory or can be
//! refused: what a removal needs was reserved when the mapping was made. At the end the VM has a part in
//! nothing, its tables say what boot gave it, and no translation of its tag is left in any TLB.
//!
//! An accept of a donation that another VM has decided is let end. Parcels that are kept wait for their
//! last borrower; the VM's steps pause until then.

use core::sync::atomic::Ordering;

use rm_abi::extension::{EventKind, EventReason};

use crate::address::{Ipa, Pa};
use crate::call::evict::evict;
use crate::call::reclaim::Reclaim;
use crate::call::revoke::{recall_from, revoke_from};
use crate::call::{Caller, device, extension, heap, will};
use crate::config::OwnedParcels;
use crate::life::Life;
use crate::link::notice::News;
use crate::machine::{Machine, Scope};
use crate::memparcel::table::RecordIndex;
use crate::memparcel::units::Walk;
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::operation::{Slot, Step};
use crate::stage2::{Next, State};

/// How far a teardown is.
#[derive(Debug)]
pub(crate) struct Teardown {
    stage: Stage,
    /// Of all records, or all handle numbers, or all pages, the next.
    next: u32,
    /// Of a parcel's ACL, the next; or how many pages of a piece are not the heap's again.
    part: u32,
    going: Going,
    /// Parcels that must wait in this pass, and how many had been released when it began.
    waits: bool,
    released: u32,
}

/// What a teardown has begun to end.
#[derive(Debug)]
enum Going {
    Nothing,
    /// A parcel of the VM's.
    Parcel(Reclaim),
    /// Memory of a heap that has left the VM's tables.
    Piece(Pa),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The reply of the last call, the queues, news, doorbells.
    Mailbox,
    /// What the VM holds of others.
    Held,
    /// Its own parcels.
    Owned,
    /// The numbers of parcels that it knew.
    Handles,
    /// Tables that can be merged.
    Tables,
    /// Memory of heaps. No table of it is mergeable any more, so nothing can be short.
    Heaps,
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stands {
    /// There is more to do.
    More,
    /// Nothing can be done before another VM has done its part.
    Waits,
    /// Nothing is left.
    Done,
}

impl Teardown {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Mailbox,
            next: 0,
            part: 0,
            going: Going::Nothing,
            waits: false,
            released: 0,
        }
    }

    /// Whether a borrower has let go since this began to wait.
    pub(super) fn was_woken(&self, life: &Life) -> bool {
        life.released.load(Ordering::SeqCst) != self.released
    }

    pub(super) fn step<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        slot: &mut Slot,
        budget: &mut Budget,
    ) -> Stands {
        while !budget.is_spent() {
            let walk = match self.stage {
                Stage::Mailbox => empty_mailbox(caller, slot, budget),
                Stage::Held => release_newest(caller, budget),
                Stage::Owned => self.take_back(caller, budget),
                Stage::Handles => self.forget_handles(caller, budget),
                Stage::Tables => merge(caller, budget),
                Stage::Heaps => self.return_heaps(caller, budget),
            };
            if walk == Walk::More {
                continue;
            }
            self.stage = match self.stage {
                Stage::Mailbox => Stage::Held,
                Stage::Held => {
                    self.begin_pass(caller);
                    Stage::Owned
                }
                Stage::Owned if self.waits => {
                    let woken = self.was_woken(&caller.state().life);
                    self.begin_pass(caller);
                    if woken {
                        continue;
                    }
                    return Stands::Waits;
                }
                Stage::Owned => {
                    self.next = 0;
                    Stage::Handles
                }
                Stage::Handles => Stage::Tables,
                Stage::Tables => {
                    self.next = 0;
                    Stage::Heaps
                }
                Stage::Heaps => {
                    let context = caller.manager.context(caller.vm);
                    caller.machine().invalidate(context, Scope::All);
                    return Stands::Done;
                }
            };
        }
        Stands::More
    }

    /// Looks at all own records again, from the first.
    fn begin_pass<M: Machine>(&mut self, caller: Caller<'_, '_, M>) {
        self.released = caller.state().life.released.load(Ordering::SeqCst);
        self.next = 0;
        self.waits = false;
    }

    /// Goes on with the VM's own parcels.
    fn take_back<M: Machine>(&mut self, caller: Caller<'_, '_, M>, budget: &mut Budget) -> Walk {
        let record = RecordIndex(self.next);
        if record.0 as usize >= caller.manager.parcels().records() {
            return Walk::End;
        }
        if let Going::Parcel(reclaim) = &mut self.going {
            if reclaim.step(caller, budget) == Step::More {
                return Walk::More;
            }
            self.going = Going::Nothing;
            self.next_record(budget);
            return Walk::More;
        }
        let mut parcel = caller.manager.parcels().lock(caller.machine(), record);
        if device::withdraw(&mut parcel, caller, budget) == Walk::More {
            return Walk::More;
        }
        match parcel.phase {
            Phase::Vacant => self.next_record(budget),
            // What cannot be vouched for stays.
            _ if parcel.owner != caller.vm => self.next_record(budget),
            Phase::Initial | Phase::Offered | Phase::Closing => {
                if will::end_owners_part(&mut parcel, caller, budget) == Walk::More {
                    return Walk::More;
                }
                if self.keeps(&mut parcel, record, caller) {
                    self.waits = true;
                    self.next_record(budget);
                } else {
                    let mut entry = self.part as usize;
                    let walk = revoke_from(&mut parcel, record, caller, &mut entry, budget);
                    self.part = entry as u32;
                    if walk == Walk::End {
                        // What cannot be vouched for it leaves where it is.
                        let reclaim = Reclaim::of_dead_owner::<M>(&mut parcel, record);
                        self.going = Going::Parcel(reclaim);
                    }
                }
            }
            // Its own call was finished before, so this one is a donation that another VM accepts.
            Phase::Reclaiming => {
                self.waits = true;
                self.next_record(budget);
            }
            Phase::Creating | Phase::Appending | Phase::Retyping | Phase::Trimming => {
                panic!("G4: a VM is taken apart in the middle of its call")
            }
        }
        Walk::More
    }

    /// The VM is no party any more to what the next number of the handle space has meant.
    fn forget_handles<M: Machine>(
        &mut self,
        caller: Caller<'_, '_, M>,
        budget: &mut Budget,
    ) -> Walk {
        let place = self.next as usize;
        if place >= caller.manager.parcels().slots() {
            return Walk::End;
        }
        caller.manager.forget_party(place, caller.vm);
        self.next += 1;
        let _ = budget.spend(weight::LOOK);
        Walk::More
    }

    /// Gives back what the VM has of heaps, but for pages that nobody vouches for.
    fn return_heaps<M: Machine>(&mut self, caller: Caller<'_, '_, M>, budget: &mut Budget) -> Walk {
        if let Going::Piece(pa) = self.going {
            let rest = heap::wipe(caller, (pa, self.part.into()), budget);
            self.note_piece(rest);
            return Walk::More;
        }
        let at = Ipa::of_page(self.next.into());
        let found = caller.stage2().next_leaf(caller.mem(), at, budget);
        match found {
            Next::End => return Walk::End,
            Next::More(next) => self.next = next.page() as u32,
            Next::Leaf(here, leaf) => {
                self.next = here.add_pages(leaf.pages).page() as u32;
                let sound = || !M::MAY_POISON || caller.machine().is_sound(leaf.pa, leaf.pages);
                if leaf.state == State::Owned && caller.manager.heaps().have(leaf.pa) && sound() {
                    let one = &mut Budget::new(weight::DESCRIPTOR);
                    let (pa, pages) = heap::leave(caller, here, leaf.pages, one);
                    assert!(pages == leaf.pages, "G8: a leaf of a heap's memory goes as a whole");
                    self.note_piece(Some((pa, pages)));
                }
            }
        }
        let _ = budget.spend(weight::LOOK);
        Walk::More
    }

    fn note_piece(&mut self, piece: Option<(Pa, u64)>) {
        self.part = piece.map_or(0, |(_, pages)| pages as u32);
        self.going = piece.map_or(Going::Nothing, |(pa, _)| Going::Piece(pa));
    }

    fn next_record(&mut self, budget: &mut Budget) {
        self.next += 1;
        self.part = 0;
        let _ = budget.spend(weight::VISIT);
    }

    /// Whether the parcel stays until its borrowers have released it. They are told that it is over.
    fn keeps<M: Machine>(
        &self,
        parcel: &mut Memparcel,
        record: RecordIndex,
        caller: Caller<'_, '_, M>,
    ) -> bool {
        let keep = caller.state().life.owned_parcels == OwnedParcels::Keep && parcel.is_held();
        if keep && !parcel.recalled {
            let all = &mut Budget::new(u32::MAX);
            let told = recall_from(parcel, record, caller, &mut 0, all);
            assert!(told == Walk::End, "G7: an access list has an end");
        }
        keep
    }
}

/// Drops what the VM has sent and not been answered, and what it was sent and has not read.
fn empty_mailbox<M: Machine>(
    caller: Caller<'_, '_, M>,
    slot: &mut Slot,
    budget: &mut Budget,
) -> Walk {
    slot.drop_reply(caller);
    slot.request.clear(caller.mem(), caller.vm);
    slot.assembly.discard(caller.mem(), caller.vm);
    let state = caller.state();
    state.events.store(0, Ordering::Relaxed);
    *state.refusals.lock(caller.machine()) = [None; 2];
    caller.manager.reset_doorbells(caller.vm);
    let is_closed = caller.manager.close_link(caller.vm, budget);
    let _ = budget.spend(weight::ENTRY);
    if is_closed { Walk::End } else { Walk::More }
}

/// Releases what the VM accepted last.
fn release_newest<M: Machine>(caller: Caller<'_, '_, M>, budget: &mut Budget) -> Walk {
    let newest = caller.state().account.lock(caller.machine()).newest_held();
    let Some((record, entry)) = newest else { return Walk::End };
    let mut parcel = caller.manager.parcels().lock(caller.machine(), record);
    // The owner may have taken it back meanwhile, and the record be another parcel's.
    let acl = parcel.acl.entries().get(entry);
    let is_held = acl.is_some_and(|acl| acl.vmid == caller.vmid());
    if is_held
        && parcel.borrowers[entry].holds()
        && evict(&mut parcel, record, caller, entry, budget) == Walk::End
        && parcel.phase != Phase::Closing
    {
        parcel.told &= !(1 << entry);
        let event = (EventKind::Released, EventReason::DEATH);
        if !extension::tell(caller, &parcel, record, entry, event) {
            caller.manager.post(&parcel, record, entry, News::Released);
        }
    }
    // Paid afterwards, so that a budget of one still does a page.
    let _ = budget.spend(weight::VISIT);
    Walk::More
}

/// Merges one table, so that the next life begins with the blocks that boot made.
fn merge<M: Machine>(caller: Caller<'_, '_, M>, budget: &mut Budget) -> Walk {
    let more = caller.manager.idle(caller.vm);
    let _ = budget.spend(weight::TABLE);
    if more { Walk::More } else { Walk::End }
}
