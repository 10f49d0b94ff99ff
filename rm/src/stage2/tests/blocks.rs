//! Blocks are cut where a range cuts them, and come back.

use super::*;

#[test]
fn a_vm_is_built_from_the_largest_blocks() {
    let vm = Vm::new(PAGES_PER_1G + 3 * PAGES_PER_2M, 8);
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_1G);
    assert_eq!(vm.leaf(RAM.add_pages(PAGES_PER_1G)).pages, PAGES_PER_2M);
    assert_eq!(vm.stage2.tables(), 2, "the root and one table of 2 MiB blocks");
    assert_eq!(vm.leaf(RAM.add_pages(5)).pa, RAM_AT.add_pages(5));
}

#[test]
fn one_page_is_lent_out_of_a_1_gib_block_and_the_block_comes_back() {
    let mut vm = Vm::new(PAGES_PER_1G, 8);
    let page = RAM.add_pages(700);
    vm.cpu().write(page, 42).unwrap();
    vm.cut_and_change(page, 1, Change::Lend { parcel: 8191 });
    assert_eq!(vm.leaf(page).parcel, 8191);
    assert_eq!(vm.leaf(page).pa, RAM_AT.add_pages(700));
    assert!(vm.cpu().read(page).is_err());
    assert!(vm.cpu().read(page.add_pages(1)).is_ok());
    assert_eq!(vm.stage2.tables(), 3);

    vm.change(page, 1, Change::Restore);
    assert_eq!(vm.cpu().read(page), Ok(42));
    vm.merge_all();
    assert_eq!(vm.stage2.tables(), 1);
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_1G);
}

#[test]
fn a_block_that_is_lent_whole_stays_a_block() {
    let mut vm = Vm::new(PAGES_PER_1G, 8);
    vm.cut_and_change(RAM, PAGES_PER_2M, Change::Lend { parcel: 1 });
    assert_eq!((vm.state(RAM), vm.leaf(RAM).pages), (State::Lent, PAGES_PER_2M));
    let next = RAM.add_pages(PAGES_PER_2M);
    assert_eq!((vm.state(next), vm.leaf(next).pages), (State::Owned, PAGES_PER_2M));
    vm.change(RAM, PAGES_PER_2M, Change::Restore);
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_1G);
}

#[test]
fn a_range_that_lacks_one_page_of_a_block_is_held_in_pages() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    let rest = WINDOW.add_pages(PAGES_PER_2M - 1);
    vm.hold(WINDOW, Pa(0x1_0000_0000), PAGES_PER_2M - 1).unwrap();
    vm.change(WINDOW, PAGES_PER_2M - 1, Change::Own);
    assert_eq!(vm.leaf(WINDOW).pages, 1);
    assert!(vm.cpu().read(WINDOW.add_pages(PAGES_PER_2M - 2)).is_ok());
    assert_eq!(vm.state(rest), State::Absent);
    assert!(vm.cpu().read(rest).is_err());
}

#[test]
fn scattered_pages_that_were_donated_never_merge() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    for page in 0..512 {
        let pa = Pa(0x1_0000_0000).add_pages(page * 2);
        vm.stage2.hold(vm.mem, WINDOW.add_pages(page), pa, 1, &mut plenty()).unwrap();
    }
    vm.change(WINDOW, 512, Change::Own);
    vm.merge_all();
    assert_eq!(vm.leaf(WINDOW).pages, 1);
    assert_eq!(vm.stage2.mergeable(), 0);
}

#[test]
fn donated_pages_that_come_home_merge() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    vm.cut_and_change(RAM, 3, Change::Lend { parcel: 1 });
    vm.change(RAM, 3, Change::GiveAway);
    assert_eq!(vm.state(RAM), State::Absent);
    vm.hold(RAM, RAM_AT, 3).unwrap();
    vm.change(RAM, 3, Change::Own);
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}

#[test]
fn a_table_is_returned_when_its_last_entry_turns_absent() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    let tables = vm.stage2.tables();
    vm.hold(WINDOW, Pa(0x1_0000_1000), 4).unwrap();
    let rights = Rights::RX;
    vm.change(WINDOW, 4, Change::Borrow { rights, memory: MemoryType::WriteBack });
    assert_eq!(vm.stage2.tables(), tables + 2);
    assert!(vm.cpu().execute(WINDOW).is_ok());
    assert!(vm.cpu().write(WINDOW, 1).is_err());
    vm.change(WINDOW, 4, Change::Unmap);
    assert_eq!(vm.stage2.tables(), tables);
    assert!(vm.cpu().read(WINDOW).is_err());
}

#[test]
fn an_own_table_is_merged_when_its_frame_is_wanted() {
    // Root, one table of 2 MiB blocks, and one frame to cut with.
    let mut vm = Vm::new(2 * PAGES_PER_2M, 3);
    vm.cut_and_change(RAM, 1, Change::Lend { parcel: 1 });
    let second = RAM.add_pages(PAGES_PER_2M);
    assert_eq!(vm.stage2.cut(vm.mem, second, 1), Err(NoFrame::Quota));
    vm.change(RAM, 1, Change::Restore);
    vm.cut_and_change(second, 1, Change::Lend { parcel: 1 });
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
    vm.change(second, 1, Change::Restore);
}

#[test]
fn a_cut_at_the_end_of_a_range_does_not_undo_the_cut_at_its_start() {
    let mut vm = Vm::new(2 * PAGES_PER_2M, 3);
    let range = (RAM.add_pages(500), 24);
    assert!(vm.stage2.cut(vm.mem, range.0, range.1).is_err());
    vm.check();
    assert_eq!(vm.stage2.mergeable(), 1);
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}

#[test]
fn a_block_from_elsewhere_merges_and_keeps_its_surroundings_from_merging() {
    let mut vm = Vm::new(PAGES_PER_1G, 8);
    vm.cut_and_change(RAM, PAGES_PER_2M, Change::Lend { parcel: 1 });
    vm.change(RAM, PAGES_PER_2M, Change::GiveAway);
    vm.hold(RAM, Pa(0x1_0000_0000), PAGES_PER_2M).unwrap();
    vm.change(RAM, PAGES_PER_2M, Change::Own);
    vm.cut_and_change(RAM, 1, Change::Lend { parcel: 1 });
    vm.change(RAM, 1, Change::Restore);
    assert_eq!(vm.stage2.mergeable(), 1, "the foreign block's table, not the one above it");
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}
