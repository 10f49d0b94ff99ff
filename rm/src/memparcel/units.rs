//! Walking the pages of a parcel piece by piece.
//!
//! Every call that touches a parcel's pages does it through here: the walk stops when the budget is
//! spent and goes on from the [`Place`] where it stopped, however many extents there are.

use crate::address::{Ipa, Pa};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::borrower::{Borrower, Place};
use crate::memparcel::extents::{Extent, Extents};
use crate::operation::budget::{Budget, weight};
use crate::stage2::Memory;

/// Whether a walk reached its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Walk {
    /// Everything is done.
    End,
    /// The budget is spent.
    More,
}

/// Part of an extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Where the owner has it.
    pub(crate) at: Ipa,
    /// Where the machine has it.
    pub(crate) pa: Pa,
    /// Its length, at least one page.
    pub(crate) pages: u64,
}

/// Where a walk ends: an extent's number, and pages into it.
pub(crate) type End = (u32, u64);

/// A place as an end.
pub(crate) const fn end_at(place: &Place) -> End {
    (place.extent.index(), place.offset)
}

/// The piece at `place` that ends before `end`; moves `place` over extents that are done.
fn piece<M: Machine>(
    extents: &Extents,
    mem: Memory<'_, '_, M>,
    place: &mut Place,
    end: End,
) -> Option<Piece> {
    loop {
        if end_at(place) >= end {
            return None;
        }
        let extent = Extent::decode(extents.peek(mem, place.extent)?);
        let until = if place.extent.index() == end.0 { end.1 } else { extent.pages };
        if place.offset < until {
            return Some(Piece {
                at: extent.at.add_pages(place.offset),
                pa: extent.pa.add_pages(place.offset),
                pages: until - place.offset,
            });
        }
        place.before += extent.pages;
        place.offset = 0;
        extents.next(mem, &mut place.extent)?;
    }
}

/// Walks the owner's view of all extents. `work` does the beginning of a piece and says how many
/// pages.
pub(crate) fn owner<M: Machine>(
    extents: &Extents,
    mem: Memory<'_, '_, M>,
    place: &mut Place,
    budget: &mut Budget,
    mut work: impl FnMut(Piece, &mut Budget) -> u64,
) -> Walk {
    while let Some(piece) = piece(extents, mem, place, (u32::MAX, 0)) {
        if budget.is_spent() {
            return Walk::More;
        }
        place.offset += work(piece, budget);
        // Paid afterwards, so that a budget of one still does a page.
        let _ = budget.spend(weight::PIECE);
    }
    Walk::End
}

/// Walks a borrower's view up to `end`. `work` gets the borrower's address of a piece, does the
/// beginning of it and says how many pages.
pub(crate) fn borrower<M: Machine>(
    extents: &Extents,
    borrower: &mut Borrower,
    mem: Memory<'_, '_, M>,
    end: End,
    budget: &mut Budget,
    mut work: impl FnMut(Ipa, Piece, &mut Budget) -> u64,
) -> Walk {
    let Borrower { place, contiguous, addresses, .. } = borrower;
    loop {
        let extent = place.extent;
        let Some(piece) = piece(extents, mem, place, end) else { return Walk::End };
        if !*contiguous && place.extent != extent {
            // One address for each extent: both cursors move together.
            addresses.next(mem, &mut place.address);
        }
        if budget.is_spent() {
            return Walk::More;
        }
        let address = addresses.peek(mem, place.address).expect("G3: a mapped unit has an address");
        let [unit] = address;
        let offset = if *contiguous { place.before + place.offset } else { place.offset };
        place.offset += work(Ipa(unit).add_pages(offset), piece, budget);
        let _ = budget.spend(weight::PIECE);
    }
}

impl Memparcel {
    /// How many addresses a borrower has to give: one for each extent, or one for all.
    pub(crate) const fn units(&self, contiguous: bool) -> u32 {
        if contiguous { 1 } else { self.extents.len() }
    }

    /// The end of the last extent.
    pub(crate) const fn end(&self) -> End {
        (self.extents.len(), 0)
    }
}
