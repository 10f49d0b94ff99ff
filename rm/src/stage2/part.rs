//! Cutting leaves that are part of a parcel, so that some of their pages can leave it.
//!
//! A block that is LENT, SHARED or BORROWED was cut for its parcel as a whole. When a range in the
//! middle of it goes, it is replaced by a table that says the same. All tables that both ends of the
//! range need are taken before the first is put in its place, so a refusal changes nothing; what is the
//! VM's own remembers its home there and merges after the parcel's end.

use heapless::Vec;

use super::descriptor::{Level, State, pages_of};
use super::{Memory, Stage2};
use crate::address::Ipa;
use crate::frame_pool::NoFrame;
use crate::machine::{FrameIndex, Machine};
use crate::operation::budget::{Budget, weight};

/// Tables that the two ends of a range need at most: two each.
const TABLES: usize = 4;
/// What cutting at both ends weighs at most.
pub(crate) const PART: u32 = TABLES as u32 * weight::TABLE;

/// Tables that are missing: the level and first page of each, those above before those below.
type Missing = Vec<(Level, u64), TABLES>;

impl Stage2 {
    /// Makes leaves begin at both addresses, whatever the leaf that spans one of them is. A refusal
    /// changes nothing.
    pub(crate) fn part<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: [Ipa; 2],
        budget: &mut Budget,
    ) -> Result<(), NoFrame> {
        self.assert_finished();
        let mut missing = Missing::new();
        for at in at {
            self.missing_at(mem, at.page(), &mut missing);
        }
        let tables = self.take_tables(mem, &missing, budget)?;
        for (&(level, first_page), &table) in missing.iter().zip(&tables) {
            let slot = self.find_above(mem, first_page, level - 1);
            self.replace_by_table(mem, slot, first_page, table);
        }
        Ok(())
    }

    /// Notes the tables that are missing for a leaf to begin at `page`.
    fn missing_at<M: Machine>(&self, mem: Memory<'_, '_, M>, page: u64, missing: &mut Missing) {
        if page >= self.ipa_pages {
            return;
        }
        let slot = self.find(mem, page);
        let spans = slot.offset(page) != 0 && slot.entry != 0;
        assert!(
            !spans
                || matches!(State::of(slot.entry), State::Lent | State::Shared | State::Borrowed),
            "G4: a page of a parcel is {:?}",
            State::of(slot.entry)
        );
        let mut level = slot.level;
        while spans && page & (pages_of(level) - 1) != 0 {
            let table = (level + 1, page & !(pages_of(level) - 1));
            if !missing.contains(&table) {
                missing.push(table).expect("two levels lie below the root's");
            }
            level += 1;
        }
    }

    /// All of these tables, or none.
    fn take_tables<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        missing: &Missing,
        budget: &mut Budget,
    ) -> Result<Vec<FrameIndex, TABLES>, NoFrame> {
        let mut tables = Vec::new();
        for &(level, first_page) in missing {
            match self.take_table(mem, level, first_page, budget) {
                Ok(table) => tables.push(table).expect("as many as are missing"),
                Err(error) => {
                    tables.into_iter().for_each(|table| self.put_table(mem, table));
                    return Err(error);
                }
            }
            let _ = budget.spend(weight::TABLE);
        }
        Ok(tables)
    }
}
