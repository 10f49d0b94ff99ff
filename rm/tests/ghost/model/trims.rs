//! Some pages of a parcel go home, or are given up by a borrower.

use std::ops::Range;

use super::{ARGUMENT, Answer, BUSY, DENIED, IN_USE, Model, NO_RESOURCE, RELEASED};

/// Runs of pages that may leave a parcel, and that a borrower may give up of it.
const OWNER_HOLES: usize = 8;
const BORROWER_HOLES: usize = 4;

fn runs(pages: &[bool]) -> usize {
    (0..pages.len()).filter(|&page| pages[page] && (page == 0 || !pages[page - 1])).count()
}

fn with(pages: &[bool], range: &Range<usize>) -> Vec<bool> {
    (0..pages.len()).map(|page| pages[page] || range.contains(&page)).collect()
}

impl Model {
    /// A range of a parcel's pages goes home, or is given up by a borrower.
    pub(crate) fn trim(
        &mut self,
        vm: u8,
        handle: u32,
        first: usize,
        count: usize,
        wipe: bool,
    ) -> Answer {
        let index = self.find(vm, handle)?;
        let parcel = &self.parcels[index];
        if parcel.owner == vm && parcel.revoked {
            return Err(DENIED);
        }
        if parcel.owner != vm && !parcel.held.contains_key(&vm) {
            return Err(RELEASED);
        }
        if self.maps_device(index, vm) {
            return Err(BUSY);
        }
        let range = first..first + count;
        if count == 0 || range.end > parcel.pages.len() {
            return Err(ARGUMENT);
        }
        if parcel.gone[range.clone()].contains(&true) {
            return Err(RELEASED);
        }
        if parcel.owner == vm {
            self.trim_as_owner(index, &range, wipe)
        } else {
            self.trim_as_borrower(vm, index, &range, wipe)
        }
    }

    fn trim_as_owner(&mut self, index: usize, range: &Range<usize>, wipe: bool) -> Answer {
        let parcel = &mut self.parcels[index];
        let gone = with(&parcel.gone, range);
        if runs(&gone) > OWNER_HOLES {
            return Err(NO_RESOURCE);
        }
        if parcel.held.values().any(|held| held.given[range.clone()].contains(&false)) {
            return Err(IN_USE);
        }
        parcel.gone = gone;
        let (owner, wipe) = (parcel.owner, wipe || parcel.sanitize);
        let home = parcel.pages[range.clone()].to_vec();
        self.end_part(index, owner, Some(range));
        self.bring_home(owner, &home, wipe);
        Ok(())
    }

    fn trim_as_borrower(
        &mut self,
        vm: u8,
        index: usize,
        range: &Range<usize>,
        wipe: bool,
    ) -> Answer {
        let parcel = &self.parcels[index];
        let held = &parcel.held[&vm];
        if held.given[range.clone()].contains(&true) {
            return Err(RELEASED);
        }
        if wipe {
            parcel.may_wipe(vm)?;
        }
        let given = with(&held.given, range);
        if runs(&given) > BORROWER_HOLES {
            return Err(NO_RESOURCE);
        }
        let spots = held.at[range.clone()].to_vec();
        let machine: Vec<_> = parcel.pages[range.clone()].iter().map(|(_, pa)| *pa).collect();
        for at in spots {
            self.pages.remove(&(vm, at));
        }
        self.end_part(index, vm, Some(range));
        if wipe {
            self.wipe(&machine);
        }
        self.parcels[index].held.get_mut(&vm).expect("it holds").given = given;
        Ok(())
    }
}
