//! Running out of frames at every point, and giving them back.

use super::*;
use crate::machine::fake::effort::few;

/// What the VM could find out: its leaves, joined where they continue each other.
fn view(vm: &Vm) -> Vec<(Ipa, State, Pa, u64)> {
    let mut runs: Vec<(Ipa, State, Pa, u64)> = Vec::new();
    let mut from = Ipa(0);
    while let Next::Leaf(at, leaf) = vm.stage2.next_leaf(vm.mem, from, &mut plenty()) {
        from = at.add_pages(leaf.pages);
        match runs.last_mut() {
            Some((first, state, pa, pages))
                if first.add_pages(*pages) == at
                    && *state == leaf.state
                    && pa.add_pages(*pages) == leaf.pa =>
            {
                *pages += leaf.pages;
            }
            _ => runs.push((at, leaf.state, leaf.pa, leaf.pages)),
        }
    }
    runs
}

/// Lets `attempt` fail at its first, second, … frame, first by the VM's limit and then because the
/// pool is empty; a failure leaves nothing behind. Returns after how many frames it succeeded.
fn at_every_frame<E>(
    ram: u64,
    attempt: impl Fn(&mut Vm) -> Result<(), E>,
    out_of_frames: impl Fn(&E) -> Option<NoFrame>,
) -> u32 {
    let mut needed = [0; 2];
    for (kind, needed) in [NoFrame::Quota, NoFrame::Empty].into_iter().zip(&mut needed) {
        for spare in 0.. {
            let mut vm = Vm::new(ram, 32);
            let used = vm.mem.pool.used(VM);
            let (reserved, limit) = match kind {
                NoFrame::Quota => (0, used + spare),
                NoFrame::Empty => (32 - used - spare, 32),
            };
            if kind == NoFrame::Empty {
                vm.mem.pool.set_quota(vm.mem.machine, VmIndex(0), reserved, 32).unwrap();
            } else {
                vm.mem.pool.set_quota(vm.mem.machine, VM, reserved, limit).unwrap();
            }
            let before = view(&vm);
            match attempt(&mut vm) {
                Ok(()) => {
                    *needed = spare;
                    break;
                }
                Err(error) => assert_eq!(out_of_frames(&error), Some(kind)),
            }
            vm.check();
            assert_eq!(view(&vm), before);
            assert_eq!(vm.mem.pool.used(VM), used);
            vm.merge_all();
            assert_eq!(vm.mem.pool.taken(VM), used);
        }
    }
    assert_eq!(needed[0], needed[1]);
    needed[0]
}

#[test]
fn a_cut_that_finds_no_frame_changes_nothing() {
    let cut = |vm: &mut Vm| vm.stage2.cut(vm.mem, RAM.add_pages(700), 600);
    assert_eq!(at_every_frame(PAGES_PER_1G, cut, |error| Some(*error)), 3);
    let cut = |vm: &mut Vm| vm.stage2.cut(vm.mem, RAM.add_pages(5), PAGES_PER_1G);
    assert_eq!(at_every_frame(2 * PAGES_PER_1G, cut, |error| Some(*error)), 4);
}

#[test]
fn a_claim_that_finds_no_frame_can_be_taken_back() {
    for &step in few(&[1, 400, u32::MAX][..], &[400]) {
        let claim = |vm: &mut Vm| {
            let (at, pages) = (RAM.add_pages(700), 1000);
            let mut done = 0;
            while done < pages {
                let mut budget = Budget::new(step);
                let here = at.add_pages(done);
                match vm.stage2.claim(vm.mem, here, pages - done, &mut budget) {
                    Ok(claimed) => done += claimed,
                    Err(error) => {
                        vm.change(at, done, Change::Unclaim);
                        return Err(error);
                    }
                }
                vm.check();
            }
            Ok(())
        };
        let out_of_frames = |error: &ClaimError| match error {
            ClaimError::NoFrame(kind) => Some(*kind),
            _ => None,
        };
        assert_eq!(at_every_frame(PAGES_PER_1G, claim, out_of_frames), 3);
    }
}

#[test]
fn a_parcel_that_finds_no_frame_to_be_parted_stays_as_it_is() {
    let lent = |ram, from, pages, needed| {
        let part = |vm: &mut Vm| {
            // All of the RAM is one parcel, in the largest blocks.
            vm.change(RAM, ram, Change::Lend { parcel: 1 });
            let at = RAM.add_pages(from);
            let parted = vm.stage2.part(vm.mem, [at, at.add_pages(pages)], &mut plenty());
            vm.check();
            vm.change(RAM, ram, Change::Restore);
            parted
        };
        assert_eq!(at_every_frame(ram, part, |error| Some(*error)), needed);
    };
    lent(PAGES_PER_1G, 700, 1, 2);
    if cfg!(miri) {
        return;
    }
    lent(PAGES_PER_1G, 700, 600, 3);
    lent(PAGES_PER_1G, 512, 512, 1);
    lent(2 * PAGES_PER_1G, 5, PAGES_PER_1G, 4);
    lent(2 * PAGES_PER_2M, 5, 512, 2);
    lent(2 * PAGES_PER_2M, 5, 7, 1);
}

#[test]
fn a_hold_that_finds_no_frame_undoes_itself() {
    let hold = |vm: &mut Vm| vm.hold(WINDOW.add_pages(400), Pa(0x1_0000_0000), 1000);
    let out_of_frames = |error: &HoldError| match error {
        HoldError::NoFrame(kind) => Some(*kind),
        HoldError::Taken => None,
    };
    assert_eq!(at_every_frame(PAGES_PER_2M, hold, out_of_frames), 4);
}

#[test]
fn a_hold_that_meets_a_taken_page_undoes_itself() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    vm.hold(WINDOW.add_pages(1500), Pa(0x1_0000_0000), 1).unwrap();
    let before = view(&vm);
    let taken = vm.mem.pool.taken(VM);
    let refused = vm.hold(WINDOW.add_pages(3), Pa(0x2_0000_0000), 1600);
    assert_eq!(refused, Err(HoldError::Taken));
    vm.check();
    assert_eq!(view(&vm), before);
    assert_eq!(vm.mem.pool.taken(VM), taken);
}

#[test]
fn a_refused_claim_leaves_the_rest_of_the_range_alone() {
    let mut vm = Vm::new(2 * PAGES_PER_2M, 16);
    vm.cut_and_change(RAM.add_pages(600), 1, Change::Lend { parcel: 1 });
    let mut done = 0;
    let error = loop {
        let at = RAM.add_pages(done);
        match vm.stage2.claim(vm.mem, at, 1024 - done, &mut plenty()) {
            Ok(pages) => done += pages,
            Err(error) => break error,
        }
    };
    assert_eq!((error, done), (ClaimError::NotOwned, 600));
    assert_eq!(vm.state(RAM.add_pages(601)), State::Owned);
    vm.change(RAM, done, Change::Unclaim);
    vm.change(RAM.add_pages(600), 1, Change::Restore);
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}

#[test]
fn a_reclaim_needs_no_frame() {
    let mut vm = Vm::new(PAGES_PER_1G, 32);
    let range = (RAM.add_pages(300), 500);
    vm.cut_and_change(range.0, range.1, Change::Lend { parcel: 1 });
    let free = vm.mem.pool.free(vm.mem.machine);
    vm.mem.pool.set_quota(vm.mem.machine, VM, 0, 0).unwrap();
    vm.mem.pool.set_quota(vm.mem.machine, VmIndex(0), free, free).unwrap();
    while vm.stage2.merge_one(vm.mem) {}
    vm.change(range.0, range.1, Change::Restore);
    assert_eq!(view(&vm), [(RAM, State::Owned, RAM_AT, PAGES_PER_1G)]);
}

#[test]
fn mergeable_tables_count_again_when_they_are_used() {
    let mut vm = Vm::new(8 * PAGES_PER_2M, 16);
    for block in 0..8 {
        let at = RAM.add_pages(block * PAGES_PER_2M);
        vm.cut_and_change(at, 1, Change::Lend { parcel: 1 });
        vm.change(at, 1, Change::Restore);
    }
    assert_eq!((vm.stage2.mergeable(), vm.mem.pool.used(VM)), (8, 2));
    vm.mem.pool.set_quota(vm.mem.machine, VM, 0, 4).unwrap();
    vm.cut_and_change(RAM, 1, Change::Lend { parcel: 1 });
    vm.cut_and_change(RAM.add_pages(PAGES_PER_2M), 1, Change::Lend { parcel: 1 });
    let third = RAM.add_pages(2 * PAGES_PER_2M);
    assert_eq!(vm.stage2.cut(vm.mem, third, 1), Err(NoFrame::Quota));
    let refused = Err(ClaimError::NoFrame(NoFrame::Quota));
    assert_eq!(vm.stage2.claim(vm.mem, third, 1, &mut plenty()), refused);
    vm.check();
}

#[test]
fn a_table_is_not_merged_for_the_frame_that_cuts_one_of_its_own_blocks() {
    let mem = machine(2, Features::default());
    mem.pool.set_quota(mem.machine, VM, 0, 8).unwrap();
    let mut vm = Vm::on(mem, PAGES_PER_1G);
    vm.stage2.cut(vm.mem, RAM, PAGES_PER_2M).unwrap();
    vm.check();
    assert_eq!((vm.stage2.mergeable(), vm.leaf(RAM).pages), (1, PAGES_PER_2M));
    assert_eq!(vm.stage2.cut(vm.mem, RAM.add_pages(5), 1), Err(NoFrame::Empty));
    vm.check();
    assert_eq!((vm.stage2.mergeable(), vm.leaf(RAM).pages), (1, PAGES_PER_2M));
}
