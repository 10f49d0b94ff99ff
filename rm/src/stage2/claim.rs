//! Making a range of OWNED pages ready for a change: whole leaves, and nobody else's.
//!
//! Both ways are invisible to the VM. A *claim* marks the pages, so that it can be made in steps and
//! two calls cannot prepare the same page; a *cut* does not, and holds only as long as the lock.

use super::change::rewrite;
use super::descriptor::{self, ADDRESS, PAGE_LEVEL, State};
use super::walk::{affordable, pay};
use super::{Memory, Stage2};
use crate::address::Ipa;
use crate::frame_pool::NoFrame;
use crate::machine::{FrameIndex, Machine};
use crate::operation::budget::{Budget, weight};

/// Why a page cannot be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimError {
    /// The VM does not own the page, or has lent or shared it.
    NotOwned,
    /// The page is claimed already.
    Claimed,
    /// No table to cut a block into.
    NoFrame(NoFrame),
}

impl From<NoFrame> for ClaimError {
    fn from(error: NoFrame) -> Self {
        Self::NoFrame(error)
    }
}

impl Stage2 {
    /// Claims the pages of a range from its start, as far as the budget goes; returns the pages done.
    /// A refusal is about the first page that is not done: nothing was claimed by this call then. What
    /// was claimed by earlier ones stays, until [`super::Change::Unclaim`].
    pub(crate) fn claim<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<u64, ClaimError> {
        self.assert_finished();
        if !self.contains(at, pages) {
            return Err(ClaimError::NotOwned);
        }
        let mut done = 0;
        while done < pages && !budget.is_spent() {
            match self.claim_run(mem, at.page() + done, pages - done, budget) {
                Ok(claimed) => done += claimed,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Claims at least one leaf, and those after it in its table that the budget allows.
    fn claim_run<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        page: u64,
        pages: u64,
        budget: &mut Budget,
    ) -> Result<u64, ClaimError> {
        let mut slot = self.find(mem, page);
        match State::of(slot.entry) {
            State::Owned => {}
            State::Claimed => return Err(ClaimError::Claimed),
            _ => return Err(ClaimError::NotOwned),
        }
        // A claim follows in this step, so the table stays: a merge cannot undo the cut for ever.
        while slot.offset(page) != 0 || pages < slot.pages() {
            self.split(mem, slot, page, budget)?;
            slot = self.find(mem, page);
        }
        self.charge(mem, slot.table)?;
        let old = slot.entry & !ADDRESS;
        let new = descriptor::retag(old, State::Claimed);
        let limit = (pages / slot.pages()).min(affordable(budget, weight::DESCRIPTOR).max(1));
        let edit = rewrite(mem, &slot, limit, new, &self.home_run(mem, &slot));
        pay(budget, weight::DESCRIPTOR, edit.count);
        let record = mem.pool.record(slot.table);
        record.set_counts(record.uses(), record.deviants() + edit.at_home);
        self.settle(mem, slot.table);
        Ok(edit.count * slot.pages())
    }

    /// Cuts the OWNED blocks that the range's ends lie in, so that a change of the range under the
    /// same lock meets whole leaves and stays within the VM's limit. Other leaves are left as they
    /// are. A refusal leaves at most tables behind that are mergeable and so do not count.
    pub(crate) fn cut<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        at: Ipa,
        pages: u64,
    ) -> Result<(), NoFrame> {
        self.assert_finished();
        if pages == 0 || !self.contains(at, pages) {
            return Ok(());
        }
        let (start, end) = (at.page(), at.page() + pages);
        let mut budget = Budget::new(u32::MAX);
        let first = self.cut_before(mem, start, &mut budget)?;
        // The second cut may merge a table to get its frame; not this one.
        self.delist(mem, first);
        let cut = if end < self.ipa_pages {
            self.cut_before(mem, end, &mut budget).map(drop)
        } else {
            Ok(())
        };
        self.settle(mem, first);
        cut?;
        match self.listed_in(mem, start, end) {
            0 => Ok(()),
            tables if mem.pool.affords(mem.machine, self.vm, tables) => Ok(()),
            _ => Err(NoFrame::Quota),
        }
    }

    /// Makes a leaf begin at `page` if an OWNED block spans it; returns the table it is then in.
    fn cut_before<M: Machine>(
        &mut self,
        mem: Memory<'_, '_, M>,
        page: u64,
        budget: &mut Budget,
    ) -> Result<FrameIndex, NoFrame> {
        let mut slot = self.find(mem, page);
        while slot.offset(page) != 0 && State::of(slot.entry) == State::Owned {
            self.split(mem, slot, page, budget)?;
            slot = self.find(mem, page);
        }
        self.settle(mem, slot.table);
        Ok(slot.table)
    }

    /// How many mergeable tables hold pages of the range. They will count once it changes.
    fn listed_in<M: Machine>(&self, mem: Memory<'_, '_, M>, start: u64, end: u64) -> u32 {
        let listed = |table| u32::from(mem.pool.record(table).is_listed());
        let mut tables = 0;
        let mut above = None;
        let mut page = start;
        while page < end {
            let upper = self.find_above(mem, page, PAGE_LEVEL - 1);
            if above.replace(upper.table) != Some(upper.table) {
                tables += listed(upper.table);
            }
            let slot = self.find(mem, page);
            if slot.level == PAGE_LEVEL {
                tables += listed(slot.table);
            }
            page = page - upper.offset(page) + upper.pages();
        }
        tables
    }
}
