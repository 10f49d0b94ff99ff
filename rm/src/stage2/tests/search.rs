//! Walking, comparing and finding room.

use super::*;
use crate::machine::fake::effort::some;

fn find(vm: &mut Vm, pages: u64, align: u64, step: u32) -> Search {
    let mut cursor = FreeCursor::default();
    loop {
        let mut budget = Budget::new(step);
        match vm.stage2.find_free(vm.mem, &mut cursor, pages, align, &mut budget) {
            Search::More => {}
            found => return found,
        }
    }
}

#[test]
fn the_lowest_range_that_fits_is_found_in_steps_of_any_size() {
    for step in some([1, 7, 1000], 3) {
        let mut vm = Vm::new(PAGES_PER_2M, 16);
        vm.hold(Ipa(0), Pa(0x1_0000_0000), 3).unwrap();
        vm.hold(Ipa(0x5000), Pa(0x1_0000_0000), 1).unwrap();
        assert_eq!(find(&mut vm, 2, 1, step), Search::Found(Ipa(0x3000)));
        assert_eq!(find(&mut vm, 3, 1, step), Search::Found(Ipa(0x6000)));
        assert_eq!(find(&mut vm, 1, 4, step), Search::Found(Ipa(0x4000)));
        assert_eq!(find(&mut vm, 512, 512, step), Search::Found(Ipa(0x20_0000)));
        let beyond = RAM.add_pages(PAGES_PER_2M);
        assert_eq!(find(&mut vm, PAGES_PER_1G, 1, step), Search::Found(beyond));
    }
}

#[test]
fn what_became_free_is_found_again() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    vm.hold(Ipa(0), Pa(0x1_0000_0000), 8).unwrap();
    assert_eq!(find(&mut vm, 1, 1, 1), Search::Found(Ipa(0x8000)));
    vm.change(Ipa(0x2000), 2, Change::Unhold);
    assert_eq!(find(&mut vm, 1, 1, 1), Search::Found(Ipa(0x2000)));
}

#[test]
fn a_full_beginning_is_not_searched_again() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    vm.hold(Ipa(0), Pa(0x1_0000_1000), 1000).unwrap();
    assert_eq!(find(&mut vm, 1, 1, 1000), Search::Found(Ipa(1000 * PAGE_SIZE)));
    let (mut cursor, mut budget) = (FreeCursor::default(), Budget::new(1));
    let found = vm.stage2.find_free(vm.mem, &mut cursor, 1, 1, &mut budget);
    assert_eq!(found, Search::Found(Ipa(1000 * PAGE_SIZE)));
}

#[test]
fn there_is_no_room_for_more_than_the_address_space() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    assert_eq!(find(&mut vm, MAX_IPA_PAGES, 1, 100), Search::Nowhere);
    assert_eq!(find(&mut vm, u64::MAX, 1, 100), Search::Nowhere);
    let last = Ipa::of_page(MAX_IPA_PAGES - 4);
    let (mut cursor, mut budget) = (FreeCursor::from(last), plenty());
    let found = vm.stage2.find_free(vm.mem, &mut cursor, 4, 1, &mut budget);
    assert_eq!(found, Search::Found(last));
    let found = vm.stage2.find_free(vm.mem, &mut FreeCursor::from(last), 5, 1, &mut budget);
    assert_eq!(found, Search::Nowhere);
}

#[test]
fn a_full_beginning_is_remembered_where_searches_begin() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    let next = RAM.add_pages(PAGES_PER_2M);
    let search = |vm: &mut Vm, budget| {
        let (mut cursor, mut budget) = (FreeCursor::from(RAM), Budget::new(budget));
        vm.stage2.find_free(vm.mem, &mut cursor, 1, 1, &mut budget)
    };
    vm.hold(next, Pa(0x1_0000_1000), 3).unwrap();
    assert_eq!(search(&mut vm, 100), Search::Found(next.add_pages(3)));
    assert_eq!(search(&mut vm, 1), Search::Found(next.add_pages(3)));
    vm.cut_and_change(RAM, 1, Change::Lend { parcel: 1 });
    vm.change(RAM, 1, Change::GiveAway);
    assert_eq!(search(&mut vm, 1), Search::Found(RAM));
}

#[test]
fn registers_are_neither_room_nor_memory() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    vm.stage2.give_device(vm.mem, Ipa(0), Pa(0x900_0000), 1).unwrap();
    vm.check();
    assert_eq!(find(&mut vm, 1, 1, 1), Search::Found(Ipa(0x1000)));
    assert_eq!(vm.hold(Ipa(0), RAM_AT, 1), Err(HoldError::Taken));
    assert_eq!(vm.stage2.claim(vm.mem, Ipa(0), 1, &mut plenty()), Err(ClaimError::NotOwned));
    for access in [Access::Read, Access::Write, Access::Execute] {
        assert_eq!(vm.stage2.allows(vm.mem, Ipa(0), access), None);
    }
    assert!(vm.cpu().write(Ipa(0), 1).is_ok());
    assert!(vm.cpu().execute(Ipa(0)).is_err());
    vm.stage2.give_emulated(vm.mem, Ipa(0x1000), 2).unwrap();
    vm.check();
    assert_eq!(find(&mut vm, 1, 1, 1), Search::Found(Ipa(0x3000)));
    assert_eq!(vm.hold(Ipa(0x2000), RAM_AT, 1), Err(HoldError::Taken));
    assert!(vm.cpu().read(Ipa(0x1000)).is_err());
}

#[test]
fn a_run_ends_where_the_machine_pages_or_what_they_are_change() {
    let mut vm = Vm::new(3 * PAGES_PER_2M, 16);
    let run =
        |vm: &Vm, at, pages, budget| vm.stage2.run(vm.mem, at, pages, &mut Budget::new(budget));
    let all = 3 * PAGES_PER_2M;
    assert_eq!(run(&vm, RAM, all, 10), (State::Owned, RAM_AT, all));
    assert_eq!(run(&vm, RAM, all + 1, 10), (State::Owned, RAM_AT, all));
    assert_eq!(run(&vm, RAM, 5, 10), (State::Owned, RAM_AT, 5));
    assert_eq!(run(&vm, RAM, all, 1), (State::Owned, RAM_AT, PAGES_PER_2M));
    vm.cut_and_change(RAM.add_pages(600), 1, Change::Lend { parcel: 3 });
    vm.cut_and_change(RAM.add_pages(601), 2, Change::Lend { parcel: 4 });
    assert_eq!(run(&vm, RAM, all, 1000), (State::Owned, RAM_AT, 600), "across a table's border");
    let lent = RAM.add_pages(600);
    assert_eq!(run(&vm, lent, all, 1000), (State::Lent, RAM_AT.add_pages(600), 1));
    let from = RAM.add_pages(700);
    assert_eq!(run(&vm, from, all, 1000), (State::Owned, RAM_AT.add_pages(700), all - 700));

    vm.hold(WINDOW, RAM_AT, 4).unwrap();
    vm.hold(WINDOW.add_pages(4), RAM_AT.add_pages(5), 4).unwrap();
    assert_eq!(run(&vm, WINDOW, 8, 1000), (State::Held, RAM_AT, 4));
    assert_eq!(run(&vm, WINDOW.add_pages(8), 8, 1000), (State::Absent, Pa(0), 1));
}

#[test]
fn every_leaf_is_visited_in_steps_of_any_size() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    vm.hold(WINDOW.add_pages(3), Pa(0x1_0000_0000), 2).unwrap();
    for step in some([1, 3, 600], 3) {
        let mut leaves = Vec::new();
        let mut from = Ipa(0);
        loop {
            match vm.stage2.next_leaf(vm.mem, from, &mut Budget::new(step)) {
                Next::Leaf(at, leaf) => {
                    leaves.push((at, leaf.state));
                    from = at.add_pages(leaf.pages);
                }
                Next::More(at) => from = at,
                Next::End => break,
            }
        }
        let held = WINDOW.add_pages(3);
        let expected = [(RAM, State::Owned), (held, State::Held), (held.add_pages(1), State::Held)];
        assert_eq!(leaves, expected);
    }
}

#[test]
fn addresses_outside_the_address_space_are_refused_and_absent() {
    let mut vm = Vm::new(PAGES_PER_2M, 16);
    for at in [Ipa(1 << 39), Ipa(1 << 47), Ipa(!0xfff)] {
        assert_eq!(vm.state(at), State::Absent);
        assert_eq!(vm.stage2.allows(vm.mem, at, Access::Read), None);
        assert_eq!(vm.stage2.claim(vm.mem, at, 1, &mut plenty()), Err(ClaimError::NotOwned));
        assert_eq!(vm.hold(at, RAM_AT, 1), Err(HoldError::Taken));
        assert_eq!(vm.stage2.cut(vm.mem, at, 1), Ok(()));
        assert_eq!(vm.stage2.run(vm.mem, at, 9, &mut plenty()).0, State::Absent);
        assert_eq!(vm.stage2.next_leaf(vm.mem, at, &mut plenty()), Next::End);
    }
    let whole = vm.stage2.claim(vm.mem, RAM, u64::MAX, &mut plenty());
    assert_eq!(whole, Err(ClaimError::NotOwned));
    vm.check();
}
