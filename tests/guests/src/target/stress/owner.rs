//! What a vCPU does as an owner.

use rm_client::{
    AclEntry, ErrorCode, Handle, NewParcel, Rights, Sanitize, SglEntry, Transfer, TrimFlags, Vmid,
    grant, pages,
};

use super::word::{self, Label, MAX_PAGES, WORDS, vmid_of};
use super::{PARCELS, Player};
use crate::layout::{PAGE, PAGES};
use crate::{memory, probe};

/// Pages from which one parcel is made: one stays out of it, wherever the parcel has its gap.
const AREA: u64 = MAX_PAGES + 1;

/// A parcel of this vCPU.
#[derive(Clone, Copy)]
pub(super) struct Mine {
    parcel: Handle,
    label: Label,
    /// Where its pages begin, and how many lie before the gap.
    at: u64,
    before_gap: u64,
    /// Pages that have come home already.
    trimmed: u64,
}

impl Mine {
    /// Where a page of the parcel is.
    const fn page(&self, page: u64) -> u64 {
        self.at + (page + (page >= self.before_gap) as u64) * PAGE
    }

    /// The addresses of the pages that are away, with their numbers.
    fn away(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mine = *self;
        let away = move |page: &u64| mine.trimmed >> *page & 1 == 0;
        (0..mine.label.pages()).filter(away).map(move |page| (page, mine.page(page)))
    }
}

impl Player {
    /// Where the pages of a slot are.
    fn area(&self, slot: usize) -> u64 {
        PAGES + (self.vcpu * PARCELS as u64 + slot as u64) * AREA * PAGE
    }

    /// Makes all pages of this vCPU say whose they are.
    pub(super) fn keep_all(&mut self) {
        for page in 0..PARCELS as u64 * AREA {
            word::keep(self.area(0) + page * PAGE, self.me);
        }
    }

    /// Checks all pages that nobody else has.
    pub(super) fn check_kept(&mut self) {
        for slot in 0..PARCELS {
            let area = self.area(slot);
            for page in (area..area + AREA * PAGE).step_by(PAGE as usize) {
                let away =
                    self.mine[slot].is_some_and(|mine| mine.away().any(|(_, at)| at == page));
                if !away {
                    word::check_kept(page, self.me);
                }
            }
        }
    }

    /// A parcel of this vCPU that there is.
    fn one_of_mine(&mut self) -> Option<(usize, Mine)> {
        let slot = self.random.index(PARCELS);
        Some((slot, self.mine[slot]?))
    }

    /// Makes a parcel for some of the others, and tells them.
    pub(super) fn offer(&mut self) {
        let slot = self.random.index(PARCELS);
        if self.mine[slot].is_some() {
            return;
        }
        let [share, writable] = [self.random.once_in(2), !self.random.once_in(3)];
        let zeroed = self.random.once_in(4);
        let (before_gap, behind) = (1 + self.random.below(3), self.random.below(4));
        let all = self.others().fold(0, |all, vm| all | 1 << vm);
        let borrowers = Some(self.random.below(1 << super::VMS) & all).filter(|some| *some != 0);
        let borrowers = borrowers.unwrap_or(all);
        let label = Label::new([self.me, self.vcpu, self.life, self.made]);
        let label = label.with(borrowers, before_gap + behind, [writable, zeroed, share]);
        let at = self.area(slot);
        let mine = Mine { parcel: Handle(0), label, at, before_gap, trimmed: 0 };
        mine.away().for_each(|(page, at)| word::fill(at, label, page));

        let rights = if writable { Rights::RW } else { Rights::R };
        let mut acl = [grant(vmid_of(self.me), Rights::RW); super::VMS as usize];
        let mut targets = [Vmid(0); super::VMS as usize];
        let mut count = 0;
        for vm in self.others().filter(|vm| label.is_for(*vm)) {
            targets[count] = vmid_of(vm);
            count += 1;
            acl[count] = grant(vmid_of(vm), rights);
        }
        let acl: &[AclEntry] = &acl[usize::from(!share)..=count];
        let ranges: [SglEntry; 2] =
            [pages(at, before_gap), pages(at + (before_gap + 1) * PAGE, behind)];
        let parcel = NewParcel::new(&ranges[..1 + usize::from(behind != 0)], acl).label(label.0);
        let parcel = if zeroed { parcel.sanitized() } else { parcel };
        let made = if share { self.session.share(&parcel) } else { self.session.lend(&parcel) };
        // Who does not read its notices for a while uses up what this VM may leave unread.
        let codes = [ErrorCode::NoResource];
        let Some(parcel) = self.tolerated("offering", made, &codes) else {
            mine.away().for_each(|(_, at)| word::keep(at, self.me));
            return;
        };
        self.made += 1;
        self.mine[slot] = Some(Mine { parcel, ..mine });
        let told = self.session.notify_shared(parcel, label.0, &targets[..count]);
        self.tolerated("telling", told, &codes);
    }

    /// Uses what it shares, and finds that it cannot use what it lends.
    pub(super) fn use_mine(&mut self) {
        let Some((_, mine)) = self.one_of_mine() else { return };
        for (page, at) in mine.away() {
            let (number, at) = word::word(at, self.random.index(WORDS));
            if mine.label.transfer() == Transfer::Lend {
                return probe::expect_no_access(at);
            }
            word::expect_stamp(memory::read(at), mine.label, page, number);
            if self.random.once_in(2) {
                memory::write(at, word::stamp(mine.label, self.me, page, number));
            }
        }
    }

    /// Takes a parcel back: if nobody has it, by asking, by letting nobody begin, or at once.
    pub(super) fn take_back(&mut self) {
        let Some((slot, mine)) = self.one_of_mine() else { return };
        match self.random.below(4) {
            0 => self.reclaim(slot, &[ErrorCode::MemoryInUse, ErrorCode::Busy]),
            1 => {
                let asked = self.others().filter(|vm| mine.label.is_for(*vm)).map(vmid_of);
                for borrower in asked {
                    let asked = self.session.notify_recall(mine.parcel, mine.label.0, &[borrower]);
                    self.tolerated("asking for it", asked, &[]);
                }
            }
            2 => {
                let recalled = self.session.recall(mine.parcel);
                self.tolerated("recalling", recalled, &[]);
            }
            _ => self.revoke(slot),
        }
    }

    /// Takes a parcel away from whoever has it, and then back.
    pub(super) fn revoke(&mut self, slot: usize) {
        let Some(mine) = self.mine[slot] else { return };
        let revoked = self.session.revoke(mine.parcel);
        if self.tolerated("revoking", revoked, &[]).is_some() {
            self.reclaim(slot, &[]);
        }
    }

    fn reclaim(&mut self, slot: usize, codes: &[ErrorCode]) {
        let Some(mine) = self.mine[slot] else { return };
        let wiped = self.random.once_in(4);
        let flags = if wiped { Sanitize::SANITIZE } else { Sanitize::empty() };
        let reclaimed = self.session.reclaim(mine.parcel, flags);
        if self.tolerated("reclaiming", reclaimed, codes).is_none() {
            return;
        }
        for (page, at) in mine.away() {
            word::check_home(at, mine.label, page, wiped);
            word::keep(at, self.me);
        }
        self.mine[slot] = None;
    }

    /// Takes one page back.
    pub(super) fn trim_mine(&mut self) {
        let Some((slot, mine)) = self.one_of_mine() else { return };
        let wanted = self.random.below(mine.label.pages());
        let Some((page, at)) = mine.away().find(|(page, _)| *page == wanted) else { return };
        let trimmed = self.session.trim(mine.parcel, page * PAGE, PAGE, TrimFlags::empty());
        let codes = [ErrorCode::MemoryInUse, ErrorCode::Busy];
        if self.tolerated("trimming mine", trimmed, &codes).is_some() {
            word::check_home(at, mine.label, page, false);
            word::keep(at, self.me);
            self.mine[slot] = Some(Mine { trimmed: mine.trimmed | 1 << page, ..mine });
        }
    }
}
