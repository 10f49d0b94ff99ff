//! What creating, appending and reclaiming do to the owner's side of a parcel, piece by piece.

use rm_abi::{Transfer, Vmid};

use crate::address::Pa;
use crate::call::Caller;
use crate::machine::Machine;
use crate::memparcel::units::{self, End, Piece, Walk};
use crate::memparcel::{Memparcel, Phase};
use crate::operation::budget::{Budget, weight};
use crate::refusal::Resource;
use crate::stage2::{Batch, Change, MemoryType};

/// Weight of a page of a short call that EL2 also touches.
pub(crate) const MAINTAINED_PAGE: u32 = weight::SHORT_PAGE + weight::COPY_PAGE;

/// What an offer does to the owner's leaves.
pub(crate) fn offer(parcel: &Memparcel, owner: Vmid) -> Change {
    match parcel.transfer {
        Transfer::Donate | Transfer::Lend => {
            Change::Lend { parcel: parcel.handle.0 as u16 & 0x1fff }
        }
        Transfer::Share => {
            let rights = parcel.acl.rights(owner).expect("G3: the owner of a share is in its ACL");
            Change::Share { rights, memory: parcel.acl.policy() }
        }
    }
}

/// Changes the owner's leaves from the parcel's place on.
pub(crate) fn change<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    change: Change,
    budget: &mut Budget,
) -> Walk {
    change_until(parcel, caller, parcel.end(), change, budget)
}

/// Changes the owner's leaves from the parcel's place on, up to `end`.
pub(crate) fn change_until<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    end: End,
    change: Change,
    budget: &mut Budget,
) -> Walk {
    let mem = caller.mem();
    let mut stage2 = caller.stage2();
    let mut batch = Batch::new();
    let walk = units::owner(parcel, mem, end, budget, |piece, budget| {
        stage2.change(mem, &mut batch, piece.at, piece.pages, change, budget)
    });
    stage2.finish(mem, batch);
    walk
}

/// Asks the machine whether it vouches for the pages from the parcel's place on, up to `end`. If not, the
/// parcel is poisoned from here on.
pub(crate) fn inspect_until<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    end: End,
    budget: &mut Budget,
) -> Walk {
    let machine = caller.machine();
    let mut sound = true;
    let walk = units::owner(parcel, caller.mem(), end, budget, |piece, _| {
        sound &= machine.is_sound(piece.pa, piece.pages);
        piece.pages
    });
    parcel.poisoned |= !sound;
    walk
}

/// Whether EL2 must touch the pages themselves at the change that the parcel is in: at the creation,
/// an append or the reclaim.
pub(crate) fn needs_maintenance(parcel: &Memparcel) -> bool {
    zeroes(parcel) || parcel.acl.policy() == MemoryType::NonCacheable
}

fn zeroes(parcel: &Memparcel) -> bool {
    match parcel.phase {
        Phase::Creating | Phase::Appending => parcel.sanitized,
        _ => parcel.sanitize,
    }
}

/// Zeroes the pages, or cleans and invalidates them where their policy is not write-back. Zeros go to
/// memory as well, so they need no more.
///
/// When pages turn non-cacheable this comes after the change: what was written before it must be found
/// in memory, and no CPU can put it into a cache again. When they turn back it comes before the change:
/// EL2 may have read ahead what was in memory long ago. Between the two only the owner has the pages, and
/// what it writes to them during its own call may be lost to that call. A page that nobody uses but
/// write-back needs neither: whoever maps it meets the caches. (Without FEAT_S2FWB a VM's own tables can
/// bypass them; it then sees what memory holds of pages that were given to it, and harms itself alone.)
pub(crate) fn maintain<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    budget: &mut Budget,
) -> Walk {
    maintain_until(parcel, caller, parcel.end(), zeroes(parcel), budget)
}

/// As [`maintain`], up to `end`; with `zero`, zeroes the pages.
pub(crate) fn maintain_until<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    end: End,
    zero: bool,
    budget: &mut Budget,
) -> Walk {
    if zero {
        let owner = Caller { vm: parcel.owner, ..caller };
        let zero = |_: &M, page| owner.zero_page(page);
        each_page(parcel, caller, end, weight::ZERO_PAGE, budget, zero)
    } else if parcel.acl.policy() == MemoryType::NonCacheable {
        each_page(parcel, caller, end, weight::COPY_PAGE, budget, M::clean_invalidate_page)
    } else {
        Walk::End
    }
}

/// Cleans and invalidates the pages from the parcel's place on.
pub(crate) fn clean<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    budget: &mut Budget,
) -> Walk {
    let end = parcel.end();
    each_page(parcel, caller, end, weight::COPY_PAGE, budget, M::clean_invalidate_page)
}

fn each_page<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    end: End,
    weight: u32,
    budget: &mut Budget,
    work: impl Fn(&M, Pa),
) -> Walk {
    let machine = caller.machine();
    units::owner(parcel, caller.mem(), end, budget, |piece, budget| {
        touch(machine, piece, weight, budget, &work)
    })
}

impl<M: Machine> Caller<'_, '_, M> {
    /// Zeroes a page for this VM.
    pub(crate) fn zero_page(&self, page: Pa) {
        self.machine().zero_page(page);
        self.state().counts.zeroed.raise_shared();
    }
}

/// Does work of a weight on each page of a piece, as far as the budget goes; says on how many.
pub(crate) fn touch<M: Machine>(
    machine: &M,
    piece: Piece,
    weight: u32,
    budget: &mut Budget,
    work: impl Fn(&M, Pa),
) -> u64 {
    let affordable = (0..piece.pages).take_while(|_| budget.spend(weight));
    affordable.map(|page| work(machine, piece.pa.add_pages(page))).count() as u64
}

/// Forgets the extents and returns their frames and charges.
pub(crate) fn clear<M: Machine>(
    parcel: &mut Memparcel,
    caller: Caller<'_, '_, M>,
    budget: &mut Budget,
) -> Walk {
    // The first step empties the list; later ones find it empty and only return frames.
    let extents = parcel.extents.len().into();
    caller.manager.ledger(parcel.owner).refund(Resource::Extents, extents);
    if parcel.extents.clear(caller.mem(), parcel.owner, budget) { Walk::End } else { Walk::More }
}
