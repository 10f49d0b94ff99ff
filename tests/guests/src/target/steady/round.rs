//! One round: a parcel is made, used, given back and taken back, and each page is what it should be.

use rm_client::{
    Acceptance, AclEntry, Handle, NewParcel, Rights, Sanitize, SglEntry, Transfer, Vmid, grant,
    pages,
};

use super::{Steady, THIRD};
use crate::demo::{DONE, granted};
use crate::layout::{PAGE, PAGES, VMID_A, VMID_B, WINDOW};
use crate::{cpu, memory, probe};

/// Pages that a VM has for parcels and around them.
const AREA: u64 = 8;
/// Pages behind those that the third may read, and what is in them.
const STANDING: SglEntry = pages(PAGES + AREA * PAGE, 2);
const STANDING_SEED: u64 = 0x57a2;
/// The runs of a parcel, first page and count, and the pages that stay out of it.
const RUNS: [(u64, u64); 2] = [(1, 2), (4, 3)];
const KEPT: [u64; 3] = [0, 3, 7];
/// Pages of a parcel.
const COUNT: u64 = RUNS[0].1 + RUNS[1].1;
/// What is in a page that nobody else has.
const KEPT_SEED: u64 = 0x5afe;
/// What the third calls the parcels that it is offered.
const TAG: u32 = 0x3d;

/// How a parcel is made.
#[derive(Clone, Copy)]
struct Plan {
    transfer: Transfer,
    /// Whether the peer may write.
    writable: bool,
    /// Whether the third may use it too, as the peer does.
    for_third: bool,
}

impl Plan {
    const ALL: [Self; 4] = [
        Self { transfer: Transfer::Lend, writable: true, for_third: false },
        Self { transfer: Transfer::Share, writable: false, for_third: true },
        Self { transfer: Transfer::Share, writable: true, for_third: false },
        Self { transfer: Transfer::Lend, writable: true, for_third: true },
    ];

    const fn of(round: u64) -> Self {
        Self::ALL[(round / 2 % 4) as usize]
    }

    /// Whether the third may put anything into it.
    const fn is_spoiled(self) -> bool {
        self.for_third && self.writable
    }

    const fn rights(self) -> Rights {
        if self.writable { Rights::RW } else { Rights::R }
    }
}

/// What the owner fills the parcel of a round with, and its borrower.
const fn seeds(round: u64) -> (u64, u64) {
    (8 * round, 8 * round + 4)
}

/// The runs of a parcel as its owner has them, and as one behind the other from `WINDOW` on.
const fn at_home() -> [SglEntry; 2] {
    [pages(PAGES + RUNS[0].0 * PAGE, RUNS[0].1), pages(PAGES + RUNS[1].0 * PAGE, RUNS[1].1)]
}

const fn mapped() -> [SglEntry; 2] {
    [pages(WINDOW, RUNS[0].1), pages(WINDOW + RUNS[0].1 * PAGE, RUNS[1].1)]
}

fn fill(runs: [SglEntry; 2], seed: u64) {
    for (run, seed) in runs.iter().zip(seed..) {
        memory::fill(run.ipa, run.size / PAGE, seed);
    }
}

fn check(runs: [SglEntry; 2], seed: u64) {
    for (run, seed) in runs.iter().zip(seed..) {
        memory::check(run.ipa, run.size / PAGE, seed);
    }
}

impl Steady {
    /// Fills the pages that never leave.
    pub(super) fn keep_all(&self) {
        KEPT.iter().for_each(|page| memory::fill(PAGES + page * PAGE, 1, KEPT_SEED));
        memory::fill(STANDING.ipa, STANDING.size / PAGE, STANDING_SEED);
    }

    /// Checks that nobody has touched them.
    pub(super) fn check_kept(&self) {
        const { assert!(KEPT[KEPT.len() - 1] < AREA) };
        KEPT.iter().for_each(|page| memory::check(PAGES + page * PAGE, 1, KEPT_SEED));
        memory::check(STANDING.ipa, STANDING.size / PAGE, STANDING_SEED);
    }

    /// Lets the third read some pages anew, under another handle.
    pub(super) fn renew_standing(&mut self) {
        self.end_standing();
        let acl = [grant(self.me(), Rights::RW), THEIRS];
        let made = self.session.share(&NewParcel::new(&[STANDING], &acl));
        self.standing = self.unless_unread("sharing with the third", made);
        if let Some(parcel) = self.standing {
            let told = self.session.notify_shared(parcel, TAG, &[THIRD]);
            self.unless_unread("telling the third", told);
        }
    }

    /// Takes those pages back.
    pub(super) fn end_standing(&mut self) {
        if let Some(parcel) = self.standing.take() {
            granted("revoking", self.session.revoke(parcel));
            granted("reclaiming", self.session.reclaim(parcel, Sanitize::empty()));
        }
    }

    fn me(&self) -> Vmid {
        if self.peer == Vmid(VMID_B) { Vmid(VMID_A) } else { Vmid(VMID_B) }
    }

    /// Makes the round's parcel, lets the peer use it, and takes it back.
    pub(super) fn give(&mut self, round: u64) {
        let (plan, (mine, theirs)) = (Plan::of(round), seeds(round));
        fill(at_home(), mine);
        let parcel = self.offer(round, plan);
        self.post(round, parcel);
        if plan.for_third {
            let told = self.session.notify_shared(parcel, TAG, &[THIRD]);
            self.unless_unread("telling the third", told);
        }
        if plan.transfer == Transfer::Lend {
            probe::expect_no_access(at_home()[1].ipa);
        }
        self.channel.say_handle(parcel);
        assert!(self.hear() == DONE, "the peer is elsewhere");
        if plan.for_third {
            granted("revoking", self.session.revoke(parcel));
        }
        let wipe = if plan.is_spoiled() { Sanitize::SANITIZE } else { Sanitize::empty() };
        granted("reclaiming", self.session.reclaim(parcel, wipe));
        if plan.is_spoiled() {
            at_home().iter().for_each(|run| memory::check_zero(run.ipa, run.size / PAGE));
        } else {
            check(at_home(), if plan.writable { theirs } else { mine });
        }
    }

    /// Makes a parcel for the peer and maybe the third. Both may be found not to read their notices for a
    /// moment: the peer soon will, and without the third it goes as well.
    fn offer(&mut self, round: u64, plan: Plan) -> Handle {
        let mut acl = [grant(self.me(), Rights::RW), grant(self.peer, plan.rights()), THEIRS];
        acl[2].rights = plan.rights();
        let (mut for_third, start) = (plan.for_third, cpu::now());
        loop {
            let acl: &[AclEntry] = &acl[..2 + usize::from(for_third)];
            let ranges = at_home();
            let label = round as u32;
            let made = if plan.transfer == Transfer::Share {
                self.session.share(&NewParcel::new(&ranges, acl).label(label))
            } else {
                self.session.lend(&NewParcel::new(&ranges, &acl[1..]).label(label))
            };
            if let Some(parcel) = self.unless_unread("offering", made) {
                return parcel;
            }
            for_third = false;
            self.listen();
            cpu::relax();
            self.be_patient(start);
        }
    }

    /// Uses the parcel that the peer has made for this round.
    pub(super) fn take(&mut self, round: u64) {
        let (plan, (theirs, mine)) = (Plan::of(round), seeds(round));
        let parcel = Handle(self.hear() as u32);
        self.post(round, parcel);
        let wanted = Acceptance::new(parcel, plan.transfer).contiguous().expect_label(round as u32);
        granted("accepting", self.session.accept_at(&wanted, &[pages(WINDOW, COUNT)]));
        if !plan.is_spoiled() {
            check(mapped(), theirs);
        }
        if plan.writable {
            fill(mapped(), mine);
        } else {
            let written = probe::write(WINDOW, 0);
            probe::expect_abort(written, probe::DATA_ABORT, WINDOW);
        }
        if !plan.is_spoiled() {
            self.listen();
            check(mapped(), if plan.writable { mine } else { theirs });
        }
        granted("releasing", self.session.release(parcel, Sanitize::empty()));
        probe::expect_no_access(WINDOW);
        self.channel.say(DONE);
    }
}

/// The third's entry, but for its rights.
const THEIRS: AclEntry = grant(THIRD, Rights::R);
