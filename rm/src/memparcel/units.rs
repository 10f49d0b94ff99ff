//! Walking the pages of a parcel piece by piece.
//!
//! Every call that touches a parcel's pages does it through here: the walk stops when the budget is
//! spent and goes on from the [`Place`] where it stopped, however many extents there are. Pages that
//! have left the parcel, or that a borrower has given up, are passed over.

use crate::address::{Ipa, Pa};
use crate::machine::Machine;
use crate::memparcel::Memparcel;
use crate::memparcel::borrower::{Borrower, Place};
use crate::memparcel::extents::{Addresses, Extent, Extents};
use crate::memparcel::holes::Gone;
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

/// What a walk meets next.
pub(crate) enum Next {
    /// Pages that are there.
    Piece(Piece),
    /// The budget is spent.
    More,
    /// No page is left.
    End,
}

/// The piece at `place` that ends before `end`; moves `place` over extents that are done and pages that
/// are gone.
pub(crate) fn next<M: Machine>(
    (extents, gone): (&Extents, Gone<'_>),
    mem: Memory<'_, '_, M>,
    place: &mut Place,
    end: End,
    budget: &mut Budget,
) -> Next {
    loop {
        if end_at(place) >= end {
            return Next::End;
        }
        let Some((record, behind)) = extents.read(mem, place.extent) else { return Next::End };
        let extent = Extent::decode(record);
        let until = if place.extent.index() == end.0 { end.1 } else { extent.pages };
        if place.offset < until {
            if budget.is_spent() {
                return Next::More;
            }
            let (rest, page) = (until - place.offset, place.before + place.offset);
            let piece = |pages| Piece {
                at: extent.at.add_pages(place.offset),
                pa: extent.pa.add_pages(place.offset),
                pages,
            };
            // Of most parcels nothing is gone.
            if gone.is_nothing() {
                return Next::Piece(piece(rest));
            }
            let missing = gone.skip(page).min(rest);
            if missing > 0 {
                place.offset += missing;
                let _ = budget.spend(weight::REGION);
                continue;
            }
            return Next::Piece(piece(rest.min(gone.until(page))));
        }
        place.before += extent.pages;
        place.offset = 0;
        place.extent = behind;
    }
}

/// Walks the pages of a parcel from `place` up to `end`, as its owner has them. `work` does the beginning
/// of a piece and says how many pages.
pub(crate) fn pages<M: Machine>(
    (extents, gone): (&Extents, Gone<'_>),
    mem: Memory<'_, '_, M>,
    place: &mut Place,
    end: End,
    budget: &mut Budget,
    mut work: impl FnMut(Piece, &mut Budget) -> u64,
) -> Walk {
    loop {
        match next((extents, gone), mem, place, end, budget) {
            Next::Piece(piece) => place.offset += work(piece, budget),
            Next::More => return Walk::More,
            Next::End => return Walk::End,
        }
        // Paid afterwards, so that a budget of one still does a page.
        let _ = budget.spend(weight::PIECE);
    }
}

/// Walks the owner's view up to `end`, from the parcel's place on; see [`pages`].
pub(crate) fn owner<M: Machine>(
    parcel: &mut Memparcel,
    mem: Memory<'_, '_, M>,
    end: End,
    budget: &mut Budget,
    work: impl FnMut(Piece, &mut Budget) -> u64,
) -> Walk {
    let Memparcel { extents, holes, place, .. } = parcel;
    pages((extents, Gone(holes.all(), &[])), mem, place, end, budget, work)
}

/// Walks the view of the borrower at `entry` up to `end`, from its place on. `work` gets the borrower's
/// address of a piece, does the beginning of it and says how many pages.
pub(crate) fn borrower<M: Machine>(
    parcel: &mut Memparcel,
    entry: usize,
    mem: Memory<'_, '_, M>,
    end: End,
    budget: &mut Budget,
    mut work: impl FnMut(Ipa, Piece, &mut Budget) -> u64,
) -> Walk {
    let Memparcel { extents, holes, borrowers, .. } = parcel;
    let Borrower { place, contiguous, addresses, holes: own, .. } = &mut borrowers[entry];
    let gone = Gone(holes.all(), own.all());
    loop {
        let next = next_mapped((extents, gone), (*contiguous, addresses), mem, place, end, budget);
        let piece = match next {
            Next::Piece(piece) => piece,
            Next::More => return Walk::More,
            Next::End => return Walk::End,
        };
        place.offset += work(place.address_in(*contiguous, addresses, mem), piece, budget);
        let _ = budget.spend(weight::PIECE);
    }
}

/// As [`next`], over what a borrower has mapped: moves the cursor of its addresses too.
fn next_mapped<M: Machine>(
    pages: (&Extents, Gone<'_>),
    (contiguous, addresses): (bool, &Addresses),
    mem: Memory<'_, '_, M>,
    place: &mut Place,
    end: End,
    budget: &mut Budget,
) -> Next {
    let extent = place.extent.index();
    let next = next(pages, mem, place, end, budget);
    if !contiguous {
        // One address for each extent: both cursors move together.
        for _ in extent..place.extent.index() {
            addresses.next(mem, &mut place.address);
        }
    }
    next
}

/// Walks what a device's VM has of the parcel, from the place of the attachment on, up to its end. `work`
/// gets the VM's address of a piece, does the beginning of it and says how many pages, or what is in the way.
pub(crate) fn device<M: Machine, E>(
    parcel: &mut Memparcel,
    attachment: usize,
    mem: Memory<'_, '_, M>,
    budget: &mut Budget,
    mut work: impl FnMut(Ipa, Piece, &mut Budget) -> Result<u64, E>,
) -> Result<Walk, E> {
    let Memparcel { extents, holes, borrowers, attachments, .. } = parcel;
    let attachment = attachments.at(attachment);
    let (entry, end, place) = (attachment.entry, attachment.end, &mut attachment.place);
    let borrower = entry.map(|entry| &borrowers[usize::from(entry)]);
    let gone = Gone(holes.all(), borrower.map_or(&[], |state| state.holes.all()));
    loop {
        let next = match borrower {
            Some(Borrower { contiguous, addresses, .. }) => {
                next_mapped((extents, gone), (*contiguous, addresses), mem, place, end, budget)
            }
            None => next((extents, gone), mem, place, end, budget),
        };
        let piece = match next {
            Next::Piece(piece) => piece,
            Next::More => return Ok(Walk::More),
            Next::End => return Ok(Walk::End),
        };
        let at = borrower.map_or(piece.at, |Borrower { contiguous, addresses, .. }| {
            place.address_in(*contiguous, addresses, mem)
        });
        place.offset += work(at, piece, budget)?;
        let _ = budget.spend(weight::PIECE);
    }
}

/// Moves `place` forward to the page with this number, which is in the parcel, and with it the cursor of
/// the addresses that a borrower has for each extent.
pub(crate) fn seek<M: Machine>(
    extents: &Extents,
    addresses: Option<&Addresses>,
    mem: Memory<'_, '_, M>,
    (place, page): (&mut Place, u64),
    budget: &mut Budget,
) -> Walk {
    loop {
        let record = extents.peek(mem, place.extent).expect("G3: a page is in an extent");
        let Extent { pages, .. } = Extent::decode(record);
        if page - place.before < pages {
            place.offset = page - place.before;
            return Walk::End;
        }
        if budget.is_spent() {
            return Walk::More;
        }
        place.before += pages;
        extents.next(mem, &mut place.extent);
        if let Some(addresses) = addresses {
            addresses.next(mem, &mut place.address);
        }
        let _ = budget.spend(weight::REGION);
    }
}

impl Place {
    /// Where a borrower has the page at this place.
    pub(crate) fn address_in<M: Machine>(
        &self,
        contiguous: bool,
        addresses: &Addresses,
        mem: Memory<'_, '_, M>,
    ) -> Ipa {
        let [unit] = addresses.peek(mem, self.address).expect("G3: a mapped unit has an address");
        let before = if contiguous { self.before } else { 0 };
        Ipa(unit).add_pages(before + self.offset)
    }
}

impl Memparcel {
    /// How many addresses a borrower has to give: one for each extent, or one for all.
    pub(crate) const fn units(&self, contiguous: bool) -> u32 {
        if contiguous { 1 } else { self.extents.len() }
    }

    /// Pages that have not left it. [`Memparcel::pages`] counts the others too, since extents stay.
    pub(crate) fn pages_left(&self) -> u64 {
        self.pages - self.holes.pages()
    }

    /// Pieces that a walk meets at most, extents and what holes make of them, for a borrower or, with
    /// `None`, the owner.
    pub(crate) fn pieces(&self, borrower: Option<usize>) -> u32 {
        let own = borrower.map_or(0, |entry| self.borrowers[entry].holes.all().len());
        self.extents.len() + (self.holes.all().len() + own) as u32
    }

    /// The end of the last extent.
    pub(crate) const fn end(&self) -> End {
        (self.extents.len(), 0)
    }
}
