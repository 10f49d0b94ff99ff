//! Quotas that the resource manager can keep.

use std::collections::BTreeSet;

use package::MEMORY_GRANULE as GRANULE;
use rm::memparcel::MAX_HANDLES;
use rm::quota::Quotas as Manager;

use crate::draft::{Draft, Vm};
use crate::map::range;
use crate::report::Problem;

/// Notes quotas that contradict each other or what every VM needs.
pub(super) fn check(draft: &Draft<'_>) {
    let mut parcels = 0;
    for vm in &draft.config.vms {
        let note = |message: String| {
            let help = "guarantee below limit; see \"Quotas\" in the reference";
            draft.problems.add(Problem::new(&vm.quotas.span, message).help(help));
        };
        let (guaranteed, limit) = (&vm.quotas.value.guaranteed, &vm.quotas.value.limit);
        let each = [
            ("parcels", u64::from(guaranteed.parcels), u64::from(limit.parcels)),
            ("extents", guaranteed.extents.into(), limit.extents.into()),
            ("unfinished", guaranteed.unfinished.into(), limit.unfinished.into()),
            ("unread", guaranteed.unread.into(), limit.unread.into()),
            ("frames", guaranteed.frames.into(), limit.frames.into()),
            ("pages_lent", guaranteed.pages_lent, limit.pages_lent),
            ("pages_accepted", guaranteed.pages_accepted, limit.pages_accepted),
        ];
        for (name, guaranteed, limit) in each {
            if guaranteed > limit {
                note(format!(
                    "{}: {guaranteed} {name} are guaranteed, but the limit is {limit}",
                    vm.called()
                ));
            }
        }
        if guaranteed.unread == 0 {
            note(format!("{}: at least 1 `unread` must be guaranteed", vm.called()));
        }
        if limit.unread > Manager::MAX_UNREAD {
            note(format!(
                "{}: the limit of `unread` is at most {}",
                vm.called(),
                Manager::MAX_UNREAD
            ));
        }
        if guaranteed.frames < Manager::MIN_FRAMES {
            note(format!(
                "{}: at least {} `frames` must be guaranteed",
                vm.called(),
                Manager::MIN_FRAMES
            ));
        }
        parcels += u64::from(limit.parcels);
        if parcels > MAX_HANDLES as u64 && parcels - u64::from(limit.parcels) <= MAX_HANDLES as u64
        {
            note(format!(
                "the limits of `parcels` of all VMs up to {} add up to {parcels}, more than {MAX_HANDLES}",
                vm.called()
            ));
        }
    }
}

/// Whether each VM may have as many frames as the tables of its own addresses take.
pub(super) fn check_frames(draft: &Draft<'_>) {
    for vm in draft.vms.iter().filter(|vm| vm.memory.is_some()) {
        let (needed, limit) = (frames(vm), vm.said.quotas.value.limit.frames);
        if needed > u64::from(limit) {
            let message = format!(
                "the memory, devices and channels of {} take up to {needed} `frames`, but its limit \
                 is {limit}",
                vm.said.called()
            );
            draft.problems.add(Problem::new(&vm.said.quotas.span, message));
        }
    }
}

/// The most that a VM's tables take before it has shared anything: a table for each GiB of which it
/// has some, and one for each 2 MiB of which it has a part.
fn frames(vm: &Vm<'_>) -> u64 {
    let cuts = vm.ends.iter().map(|end| range(end.at, end.size));
    let used: Vec<_> = vm.space.claims().iter().map(|claim| claim.range.clone()).collect();
    let (mut tables, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for range in used.into_iter().chain(cuts) {
        tables.extend(range.start >> 30..=(range.end - 1) >> 30);
        // Whole blocks need no table below them.
        parts.extend(
            [range.start, range.end].iter().filter(|at| *at % GRANULE > 0).map(|at| at / GRANULE),
        );
    }
    u64::from(Manager::MIN_FRAMES) + (tables.len() + parts.len()) as u64
}
