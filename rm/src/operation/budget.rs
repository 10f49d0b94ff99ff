//! How much one step of a call may do.
//!
//! Work is counted in units of fixed weight, so that the time EL2 spends in one entry has a bound
//! that no request can stretch (G7).

/// Weights of the units of work. A weight of one stands for about ten instructions.
pub mod weight {
    /// One descriptor read in a search or a check.
    pub const LOOK: u32 = 1;
    /// One descriptor changed.
    pub const DESCRIPTOR: u32 = 1;
    /// One block split into a table, or one table merged: 512 entries are written.
    pub const TABLE: u32 = 160;
    /// One page of a short call: looked at or held, and changed.
    pub const SHORT_PAGE: u32 = LOOK + DESCRIPTOR;
    /// One page zeroed, to the point of coherency.
    pub const ZERO_PAGE: u32 = 24;
    /// One contiguous piece of a parcel taken up, however many pages it has: its extent and address
    /// are read, and the tables are walked to it.
    pub const PIECE: u32 = 60;
    /// One entry of a request's list decoded, checked and noted.
    pub const ENTRY: u32 = 70;
    /// One packet of a queue moved.
    pub const PACKET: u32 = 40;
    /// The packets of an offer that a queue has room for, eight at most.
    pub const OFFER: u32 = 600;
    /// One page of data cleaned or copied.
    pub const COPY_PAGE: u32 = 64;
    /// One parcel looked at in a search: its record is locked, and its short lists are compared.
    pub const VISIT: u32 = 12;
    /// One byte cleared and one doorbell rung.
    pub const WILL: u32 = 40;
    /// A chunk of a copy: two parcels or trees locked and walked, and its bytes moved twice.
    pub const COPY_CHUNK: u32 = 100;
    /// One extent compared with an entry of a request.
    pub const REGION: u32 = 6;
}

/// The weights that a step may still spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    left: u32,
}

impl Budget {
    /// A budget of `weights`; 1 allows exactly one unit, whatever it weighs.
    pub const fn new(weights: u32) -> Self {
        Self { left: weights }
    }

    /// Pays for one unit that is about to be done. `false` when nothing was left: stop before it.
    #[must_use]
    pub fn spend(&mut self, weight: u32) -> bool {
        let affordable = self.left > 0;
        self.left = self.left.saturating_sub(weight);
        affordable
    }

    /// Whether the step must end.
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// What is left, in weights.
    pub const fn left(&self) -> u32 {
        self.left
    }
}
