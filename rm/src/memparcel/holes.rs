//! Pages that have left a parcel before its end.
//!
//! A borrower gives pages up that it still has the rest of; then its owner may take them back, and they
//! are in the parcel no more. Extents and the addresses of borrowers stay what they are: a walk over
//! them passes the holes over. A hole is counted in pages through all extents.

use heapless::Vec;

/// Holes of a parcel, and of one borrower's mapping of it.
pub(crate) const OWNER_HOLES: usize = 8;
pub(crate) const BORROWER_HOLES: usize = 4;

/// A run of pages of a parcel. An owner has fewer than 2^32 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hole {
    first: u32,
    end: u32,
}

impl Hole {
    /// No pages.
    pub(crate) const NONE: Self = Self { first: 0, end: 0 };

    /// The pages from `first` on, if there are any and they lie in a parcel of `all` pages.
    pub(crate) fn within(first: u64, pages: u64, all: u64) -> Option<Self> {
        let end = first.checked_add(pages).filter(|&end| end <= all && first < end)?;
        Some(Self { first: first.try_into().ok()?, end: end.try_into().ok()? })
    }

    pub(crate) const fn first(self) -> u64 {
        self.first as u64
    }

    /// The page behind the last.
    pub(crate) const fn end(self) -> u64 {
        self.end as u64
    }

    pub(crate) const fn pages(self) -> u64 {
        self.end() - self.first()
    }
}

/// Holes in their order, none touching another.
#[derive(Debug)]
pub(crate) struct Holes<const N: usize>(Vec<Hole, N>);

impl<const N: usize> Holes<N> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn all(&self) -> &[Hole] {
        &self.0
    }

    /// Pages in all holes.
    pub(crate) fn pages(&self) -> u64 {
        self.0.iter().map(|hole| hole.pages()).sum()
    }

    /// Whether all of the range is in holes. Where two would be side by side there is one.
    pub(crate) fn covers(&self, range: Hole) -> bool {
        self.0.iter().any(|hole| hole.first <= range.first && range.end <= hole.end)
    }

    /// Whether a part of the range is in a hole.
    pub(crate) fn overlaps(&self, range: Hole) -> bool {
        self.0.iter().any(|hole| hole.first < range.end && range.first < hole.end)
    }

    /// Whether the range, which overlaps no hole, can become one or a part of one.
    pub(crate) fn has_room(&self, range: Hole) -> bool {
        let touches = |hole: &Hole| hole.end == range.first || range.end == hole.first;
        !self.0.is_full() || self.0.iter().any(touches)
    }

    /// Adds a range for which there is room.
    pub(crate) fn insert(&mut self, range: Hole) {
        let mut place = self.0.iter().take_while(|hole| hole.first < range.first).count();
        let mut whole = range;
        if let Some(next) = self.0.get(place).filter(|next| next.first == range.end) {
            whole.end = next.end;
            self.0.remove(place);
        }
        if place > 0 && self.0[place - 1].end == range.first {
            place -= 1;
            whole.first = self.0.remove(place).first;
        }
        self.0.insert(place, whole).expect("G7: there was room for a hole");
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What is missing to who walks over a parcel: the holes of the parcel and his own.
#[derive(Clone, Copy)]
pub(crate) struct Gone<'a>(pub(crate) &'a [Hole], pub(crate) &'a [Hole]);

impl Gone<'_> {
    /// Whether no page is gone.
    #[inline]
    pub(crate) const fn is_nothing(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter().chain(self.1)
    }

    /// How many pages from `page` on are missing at least; 0 if it is there.
    pub(crate) fn skip(&self, page: u64) -> u64 {
        let in_hole = |hole: &&Hole| hole.first() <= page && page < hole.end();
        self.all().find(in_hole).map_or(0, |hole| hole.end() - page)
    }

    /// How many pages from `page` on, which is there, are there too.
    pub(crate) fn until(&self, page: u64) -> u64 {
        let behind = self.all().filter(|hole| hole.first() > page);
        behind.map(|hole| hole.first() - page).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn hole(first: u64, pages: u64) -> Hole {
        Hole::within(first, pages, 100).unwrap()
    }

    fn runs<const N: usize>(holes: &Holes<N>) -> Vec<(u64, u64)> {
        holes.all().iter().map(|hole| (hole.first(), hole.pages())).collect()
    }

    #[test]
    fn holes_that_touch_become_one() {
        let mut holes = Holes::<3>::new();
        for (first, pages) in [(10, 2), (20, 1), (4, 1)] {
            holes.insert(hole(first, pages));
        }
        assert_eq!(runs(&holes), [(4, 1), (10, 2), (20, 1)]);
        assert!(!holes.has_room(hole(30, 1)), "it is full");
        for (range, all) in [
            (hole(12, 3), &[(4, 1), (10, 5), (20, 1)][..]),
            (hole(19, 1), &[(4, 1), (10, 5), (19, 2)]),
            (hole(15, 4), &[(4, 1), (10, 11)]),
            (hole(0, 4), &[(0, 5), (10, 11)]),
        ] {
            assert!(holes.has_room(range) && !holes.overlaps(range));
            holes.insert(range);
            assert_eq!(runs(&holes), all);
        }
        assert_eq!(holes.pages(), 16);
        assert!(holes.covers(hole(12, 5)) && !holes.covers(hole(4, 2)));
        assert!(holes.overlaps(hole(4, 2)) && !holes.overlaps(hole(5, 5)));
    }

    #[test]
    fn a_range_outside_of_the_parcel_is_none() {
        for (first, pages) in [(0, 0), (99, 2), (100, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(Hole::within(first, pages, 100), None, "{first} {pages}");
        }
        assert_eq!(hole(99, 1).end(), 100);
    }

    #[test]
    fn who_walks_passes_over_the_holes_of_both() {
        let (parcel, own) = ([hole(2, 3), hole(10, 1)], [hole(4, 4)]);
        let gone = Gone(&parcel, &own);
        let there = |page| gone.skip(page) == 0;
        assert_eq!((0..12).filter(|&page| there(page)).collect::<Vec<_>>(), [0, 1, 8, 9, 11]);
        assert_eq!([0, 8, 11].map(|page| gone.until(page)), [2, 2, u64::MAX]);
    }
}
