//! What a VM of the ACL has done with a parcel.

use crate::memparcel::extents::Addresses;
use crate::memparcel::holes::{BORROWER_HOLES, Hole, Holes};
use crate::memparcel::units::End;
use crate::memparcel::wills::Wills;
use crate::memparcel::words::Cursor;

/// How far a borrower is. A call of several steps keeps its progress here, not with its caller, so
/// that whoever needs the parcel next can see it and carry on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum Stage {
    /// Holds nothing.
    #[default]
    Away,
    /// An accept is reserving addresses; it may still be refused.
    Assigning,
    /// An accept was refused and gives its reservations back.
    Unassigning,
    /// Some or all units have an address, nothing is mapped. The VM counts as a holder.
    Assigned,
    /// An accept is mapping; it can no longer be refused.
    Mapping,
    /// All units are mapped.
    Mapped,
    /// A trim is looking for its range; nothing has changed.
    Cutting,
    /// A trim is unmapping its range.
    Trimming,
    /// A release is unmapping.
    Releasing,
    /// The mapping is being taken away, without this VM's help.
    Revoking,
}

/// A place in a parcel's units: one of them, and pages into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) extent: Cursor,
    pub(crate) address: Cursor,
    /// Pages of the current extent that are done.
    pub(crate) offset: u64,
    /// Pages of earlier extents: what a contiguous mapping adds to its address.
    pub(crate) before: u64,
}

impl Place {
    /// Before the first page.
    pub(crate) const START: Self =
        Self { extent: Cursor::START, address: Cursor::START, offset: 0, before: 0 };
}

/// The state of one ACL entry.
#[derive(Debug)]
pub(crate) struct Borrower {
    pub(crate) stage: Stage,
    /// All extents behind one another at one address, instead of one address for each.
    pub(crate) contiguous: bool,
    /// Pages that the VM is charged for.
    pub(crate) pages: u64,
    /// Pages that it has mapped and given up.
    pub(crate) holes: Holes<BORROWER_HOLES>,
    /// Those that a trim is giving up, and whether they are to be wiped then.
    pub(crate) trimmed: (Hole, bool),
    /// Where each unit is, or will be.
    pub(crate) addresses: Addresses,
    /// Progress of the call that is at work on the mapping.
    pub(crate) place: Place,
    /// Where the removal that is at work ends.
    pub(crate) end: End,
    /// Of an accept that was refused: where the reservations end that stay.
    pub(crate) kept: End,
    /// What it wants done when its mapping has ended.
    pub(crate) wills: Wills,
    /// How many CPU accesses have begun and not ended.
    pub(crate) accesses: u32,
    /// Rises when the work of this VM's own call is taken over: that call has nothing left to do.
    pub(crate) epoch: u32,
}

impl Borrower {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Away,
            contiguous: false,
            pages: 0,
            holes: Holes::new(),
            trimmed: (Hole::NONE, false),
            addresses: Addresses::new(),
            place: Place::START,
            end: (0, 0),
            kept: (0, 0),
            wills: Wills::new(),
            accesses: 0,
            epoch: 0,
        }
    }

    /// A call is at work on what this VM has.
    pub(crate) const fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Away | Stage::Assigned | Stage::Mapped)
    }

    /// Whether this VM may still reach a page of the range.
    pub(crate) fn reaches(&self, range: Hole) -> bool {
        self.holds() && !(self.stage == Stage::Mapped && self.holes.covers(range))
    }

    /// The range that a trim was giving up is unmapped: from now on it is a hole. The result is how many
    /// pages the VM is to be refunded.
    pub(crate) fn end_trim(&mut self) -> u64 {
        let (range, _) = core::mem::replace(&mut self.trimmed, (Hole::NONE, false));
        self.holes.insert(range);
        self.pages -= range.pages();
        self.stage = Stage::Mapped;
        range.pages()
    }

    /// Whether the owner must wait for this VM before it can reclaim.
    pub(crate) fn holds(&self) -> bool {
        self.stage != Stage::Away
    }
}
