//! Blocks of a parcel are cut where a range leaves it, and come back after its end.

use super::*;

const BLOCK: Pa = Pa(0x1_0000_0000);
const SHARE: Change = Change::Share { rights: Rights::R, memory: MemoryType::WriteBack };
const BORROW: Change = Change::Borrow { rights: Rights::RW, memory: MemoryType::WriteBack };

/// Takes `pages` from `at` on out of what is there.
fn part(vm: &mut Vm, at: Ipa, pages: u64, to: Change) {
    vm.stage2.part(vm.mem, [at, at.add_pages(pages)], &mut plenty()).unwrap();
    vm.check();
    vm.change(at, pages, to);
}

#[test]
fn a_page_of_a_lent_block_comes_home_before_the_others_and_the_block_after_them() {
    for (ram, tables) in [(PAGES_PER_2M, 3), (PAGES_PER_1G, 3)] {
        let mut vm = Vm::new(ram, 8);
        let page = RAM.add_pages(300);
        vm.cpu().write(page, 42).unwrap();
        vm.cut_and_change(RAM, ram, Change::Lend { parcel: 8191 });
        assert_eq!(vm.leaf(RAM).pages, ram);
        part(&mut vm, page, 1, Change::Restore);
        assert_eq!(vm.stage2.tables(), tables);
        assert_eq!(vm.cpu().read(page), Ok(42));
        for other in [299, 301] {
            let leaf = vm.leaf(RAM.add_pages(other));
            let lent = (State::Lent, 8191, RAM_AT.add_pages(other));
            assert_eq!((leaf.state, leaf.parcel, leaf.pa), lent);
        }
        vm.change(RAM, 300, Change::Restore);
        vm.change(RAM.add_pages(301), ram - 301, Change::Restore);
        vm.merge_all();
        assert_eq!((vm.state(RAM), vm.leaf(RAM).pages), (State::Owned, ram));
    }
}

#[test]
fn a_shared_block_keeps_its_rights_when_it_is_cut_and_a_page_without_gets_them_back() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    let page = RAM.add_pages(511);
    vm.cpu().write(page, 42).unwrap();
    vm.cut_and_change(RAM, PAGES_PER_2M, SHARE);
    part(&mut vm, page, 1, Change::Restore);
    // As an abort handler does, which finds the access allowed.
    vm.cpu().forget(page);
    vm.cpu().write(page, 43).unwrap();
    assert!(vm.cpu().write(RAM, 1).is_err() && vm.cpu().read(RAM).is_ok());
    vm.change(RAM, 511, Change::Restore);
    vm.merge_all();
    assert_eq!(vm.leaf(RAM).pages, PAGES_PER_2M);
}

#[test]
fn a_borrowed_block_gives_pages_up_and_leaves_no_table_behind() {
    let mut vm = Vm::new(PAGES_PER_2M, 8);
    let before = vm.mem.pool.taken(VM);
    vm.hold(WINDOW, BLOCK, PAGES_PER_2M).unwrap();
    vm.change(WINDOW, PAGES_PER_2M, BORROW);
    assert_eq!(vm.leaf(WINDOW).pages, PAGES_PER_2M);
    let middle = WINDOW.add_pages(200);
    vm.cpu().write(middle, 1).unwrap();
    part(&mut vm, middle, 3, Change::Unmap);
    assert!(vm.cpu().read(middle).is_err());
    assert!(vm.cpu().write(middle.add_pages(3), 1).is_ok());
    // Whatever is put there later, the table was cut from nothing of this VM's own.
    vm.hold(middle, BLOCK.add_pages(200), 3).unwrap();
    vm.change(middle, 3, Change::Own);
    assert_eq!(vm.stage2.mergeable(), 0);
    vm.change(WINDOW, 200, Change::Unmap);
    vm.change(middle.add_pages(3), 309, Change::Unmap);
    vm.cut_and_change(middle, 3, Change::Lend { parcel: 1 });
    vm.change(middle, 3, Change::GiveAway);
    assert_eq!(vm.mem.pool.taken(VM), before);
}

#[test]
fn a_range_within_leaves_that_are_whole_needs_no_table() {
    let mut vm = Vm::new(2 * PAGES_PER_2M, 8);
    vm.cut_and_change(RAM, 2 * PAGES_PER_2M, Change::Lend { parcel: 1 });
    let tables = vm.stage2.tables();
    part(&mut vm, RAM, PAGES_PER_2M, Change::Restore);
    assert_eq!(vm.stage2.tables(), tables);
}
