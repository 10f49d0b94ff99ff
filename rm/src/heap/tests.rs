//! Walks in small steps, and what others do between them.

use std::vec::Vec;

use super::*;
use crate::machine::fake::effort::few;
use crate::machine::fake::world::{World, vm};
use crate::operation::STEP;

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const NAME: VmName = VmName::new("heap");
const ENDLESS: u32 = u32::MAX;

fn world(blocks: u64) -> World {
    let world = World::new(&[vm(3), vm(4)]);
    world.add_heap("heap", 0b11, blocks);
    world
}

fn heap(world: &World) -> View<'static, crate::machine::fake::YieldThread> {
    world.manager.heaps().get(0, A).unwrap()
}

/// Takes pages in steps of so much; where in the heap they begin.
fn take(world: &World, vm: VmIndex, pages: u64, step: u32) -> Result<u64, Refusal> {
    let (heap, machine, mut cursor) = (heap(world), world.manager.machine(), Cursor::default());
    let pa = loop {
        let taken = heap.take(machine, vm, &mut cursor, pages, &mut Budget::new(step))?;
        if let Some(pa) = taken {
            break pa;
        }
    };
    while !heap.mark_taken(machine, vm, &mut Budget::new(step)) {}
    Ok(pa.page() - World::heap_pa(NAME).page())
}

fn put(world: &World, vm: VmIndex, page: u64, pages: u64) {
    let pa = World::heap_pa(NAME).add_pages(page);
    let done = heap(world).put(world.manager.machine(), vm, (pa, pages), &mut Budget::new(ENDLESS));
    assert_eq!(done, pages);
}

fn bits(world: &World) -> u32 {
    heap(world).words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
}

fn longest(world: &World) -> u64 {
    let mut longest = Longest::default();
    while !heap(world).measure(world.manager.machine(), &mut longest, &mut Budget::new(1)) {}
    longest.pages
}

#[test]
fn the_marks_of_a_gib_are_made_in_steps_of_bounded_length() {
    let (blocks, step) = few((512, STEP), (32, STEP / 16));
    let world = world(blocks);
    let (heap, machine) = (heap(&world), world.manager.machine());
    let (mut cursor, pages) = (Cursor::default(), blocks * 512);
    let mut looks = 0;
    while heap.take(machine, A, &mut cursor, pages, &mut Budget::new(step)) == Ok(None) {
        assert_eq!(bits(&world), 0);
        looks += 1;
    }
    assert!(looks >= 4, "{looks}");
    // Taken, though no bit says so.
    assert_eq!((heap.free(machine), bits(&world), longest(&world)), (0, 0, 0));
    assert_eq!(take(&world, B, 1, ENDLESS), Err(Refusal::HeapFull));
    let mut marked = 0;
    loop {
        let is_done = heap.mark_taken(machine, A, &mut Budget::new(step));
        let now = bits(&world);
        assert!(now - marked <= (step / MARK + 1) * 512, "{} marks in one step", now - marked);
        marked = now;
        if is_done {
            break;
        }
    }
    assert_eq!(u64::from(marked), pages);
    let (pa, mut left) = (World::heap_pa(NAME), pages);
    while left > 0 {
        let piece = (pa.add_pages(pages - left), left);
        let done = heap.put(machine, A, piece, &mut Budget::new(step));
        assert!(done > 0 && done <= u64::from(step / MARK + 1) * 512);
        left -= done;
    }
    assert_eq!((heap.free(machine), bits(&world), longest(&world)), (pages, 0, pages));
}

#[test]
fn between_the_look_and_the_marks_a_run_is_its_takers_alone() {
    let world = world(4);
    let (heap, machine, mut cursor) = (heap(&world), world.manager.machine(), Cursor::default());
    let taken = heap.take(machine, A, &mut cursor, 1024, &mut Budget::new(ENDLESS));
    assert_eq!(taken, Ok(Some(World::heap_pa(NAME))));
    assert!(!heap.mark_taken(machine, A, &mut Budget::new(1)));
    assert_eq!(take(&world, B, 512, 1), Ok(1024));
    assert_eq!(take(&world, B, 3, 1), Ok(1536));
    assert_eq!((heap.free(machine), longest(&world)), (509, 509));
    assert!(heap.mark_taken(machine, A, &mut Budget::new(ENDLESS)));
    assert_eq!(bits(&world), 1024 + 512 + 3);
}

#[test]
fn who_searches_is_in_nobodys_way() {
    // Blocks 0 and 1 are in A's run when B takes from them; A goes on behind what it lost.
    for (pages, lost) in [(1, 1), (512, 1), (1024, 2)] {
        let world = world(5);
        let (heap, machine, mut cursor) =
            (heap(&world), world.manager.machine(), Cursor::default());
        for _ in 0..2 {
            let taken = heap.take(machine, A, &mut cursor, 3 * 512, &mut Budget::new(1));
            assert_eq!(taken, Ok(None));
        }
        assert_eq!(take(&world, B, pages, 1), Ok(0), "as if nobody searched");
        let taken = heap.take(machine, A, &mut cursor, 3 * 512, &mut Budget::new(ENDLESS));
        assert_eq!(taken, Ok(Some(World::heap_pa(NAME).add_pages(512 * lost))));
        assert!(heap.mark_taken(machine, A, &mut Budget::new(ENDLESS)));
        assert_eq!(u64::from(bits(&world)), pages + 3 * 512);
    }
}

#[test]
fn a_search_that_fails_forgets_its_run() {
    let world = world(3);
    assert_eq!(take(&world, B, 1, ENDLESS), Ok(0));
    assert_eq!(take(&world, A, 3 * 512, 1), Err(Refusal::HeapFull));
    put(&world, B, 0, 1);
    assert_eq!(take(&world, A, 512, 1), Ok(0), "not what the last search saw");
    // Refused in the middle: what others took since leaves too little.
    let (heap, machine, mut cursor) = (heap(&world), world.manager.machine(), Cursor::default());
    let mut search = |step| heap.take(machine, A, &mut cursor, 1024, &mut Budget::new(step));
    assert_eq!((search(1), search(1)), (Ok(None), Ok(None)));
    assert_eq!(take(&world, B, 512, 1), Ok(512));
    assert_eq!(search(1), Err(Refusal::HeapFull));
    put(&world, B, 512, 512);
    assert_eq!(take(&world, A, 1024, 1), Ok(512));
}

#[test]
fn pages_are_found_across_words_and_in_the_smallest_gap() {
    let world = world(1);
    assert_eq!(take(&world, A, 511, ENDLESS), Ok(0));
    for (page, pages) in [(3, 1), (60, 70), (200, 2), (400, 64)] {
        put(&world, A, page, pages);
    }
    assert_eq!(longest(&world), 70);
    let found: Vec<_> = [71, 70, 64, 2, 1, 2, 1, 1]
        .map(|pages| take(&world, B, pages, 1).ok())
        .into_iter()
        .collect();
    let expected = [None, Some(60), Some(400), Some(200), Some(3), None, Some(511), None];
    assert_eq!(found, expected);
    assert_eq!(heap(&world).free(world.manager.machine()), 0);
}
