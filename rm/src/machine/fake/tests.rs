//! Deliberately wrong orders, written by hand: each must be noticed.

use super::*;
use crate::address::{Ipa, PAGE_SIZE};
use crate::machine::IpaRange;
use crate::stage2::Access;

const TAG: TlbTag = TlbTag(9);
const ROOT: FrameIndex = FrameIndex(0);
pub(super) const LOWER: FrameIndex = FrameIndex(1);
pub(super) const LOWEST: FrameIndex = FrameIndex(2);
const PAGE: Ipa = Ipa(0);
/// Valid, accessed, read and write, write-back.
const ATTRIBUTES: u64 = 1 | 1 << 10 | 3 << 8 | 3 << 6 | 0xf << 2;
const LEAF: u64 = ATTRIBUTES | 2 | 0x8000_0000;

/// Writes tables of three levels, which map the first page by `leaf`.
pub(super) fn map_first(machine: &FakeMachine, user: FrameUse, leaf: u64) {
    for frame in [ROOT, LOWER, LOWEST] {
        machine.frame_use(frame, Some(user));
    }
    write(machine, LOWEST, 0, leaf);
    write(machine, LOWER, 0, table(machine, LOWEST));
    machine.publish();
    write(machine, ROOT, 0, table(machine, LOWER));
    machine.publish();
    machine.check_no_stale();
}

/// Writes an entry of a table, as the manager does.
pub(super) fn write(machine: &FakeMachine, frame: FrameIndex, index: usize, new: u64) {
    let table = &machine.frames()[frame.0 as usize];
    machine.table_write(frame, index, table.read(index), new);
    table.write(index, new);
}

/// The descriptor of a table.
fn table(machine: &FakeMachine, frame: FrameIndex) -> u64 {
    machine.frames_base().add_pages(frame.0.into()).0 | 3
}

/// A machine in which [`PAGE`] is mapped through three tables.
struct Hand(FakeMachine);

impl Hand {
    fn new() -> Self {
        Self::with(Features::default(), LEAF)
    }

    fn with(features: Features, leaf: u64) -> Self {
        let hand = Self(FakeMachine::with_features(8, features));
        map_first(&hand.0, FrameUse::Table(TAG), leaf);
        hand
    }

    fn write(&self, frame: FrameIndex, index: usize, new: u64) {
        write(&self.0, frame, index, new);
    }

    fn table(&self, frame: FrameIndex) -> u64 {
        table(&self.0, frame)
    }

    fn context(&self) -> TranslationContext {
        TranslationContext { tag: TAG, root: self.0.frames_base() }
    }

    fn invalidate(&self, at: Ipa, pages: u64) {
        self.0.invalidate(self.context(), Scope::Ranges(&[IpaRange { at, pages }]));
    }

    fn reads(&self) -> Result<Pa, Fault> {
        self.0.cpu(self.context()).translate(PAGE, Access::Read)
    }
}

#[test]
fn the_right_order_passes() {
    let hand = Hand::new();
    assert_eq!(hand.reads(), Ok(Pa(0x8000_0000)));
    hand.write(LOWEST, 0, 0);
    assert_eq!(hand.reads(), Ok(Pa(0x8000_0000)), "a cached translation outlives its entry");
    hand.invalidate(PAGE, 1);
    assert_eq!(hand.reads(), Err(Fault::Translation));
    hand.write(LOWEST, 0, LEAF + PAGE_SIZE);
    assert_eq!(hand.reads(), Err(Fault::Translation), "not published yet");
    hand.0.publish();
    assert_eq!(hand.reads(), Ok(Pa(0x8000_1000)));
    hand.write(LOWEST, 0, 0);
    hand.write(LOWER, 0, 0);
    hand.invalidate(PAGE, 1);
    hand.0.frame_use(LOWEST, None);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "break-before-make")]
fn one_write_to_another_address() {
    Hand::new().write(LOWEST, 0, LEAF + PAGE_SIZE);
}

#[test]
#[should_panic(expected = "break-before-make")]
fn one_write_to_another_memory_type() {
    Hand::new().write(LOWEST, 0, LEAF & !(0xf << 2) & !(3 << 8) | 0b0101 << 2);
}

#[test]
#[should_panic(expected = "break-before-make")]
fn one_write_from_a_table_to_a_block() {
    Hand::new().write(LOWER, 0, ATTRIBUTES | 0x8000_0000);
}

#[test]
#[should_panic(expected = "break-before-make")]
fn make_before_the_invalidation() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.write(LOWEST, 0, LEAF + PAGE_SIZE);
}

#[test]
#[should_panic(expected = "break-before-make")]
fn a_block_made_after_an_invalidation_of_a_part() {
    let hand = Hand::new();
    hand.write(LOWEST, 7, LEAF + 7 * PAGE_SIZE);
    hand.0.publish();
    hand.write(LOWER, 0, 0);
    hand.invalidate(PAGE, 1);
    hand.write(LOWER, 0, ATTRIBUTES | 0x8000_0000);
}

#[test]
#[should_panic(expected = "a cached walk leads there")]
fn a_table_freed_before_the_invalidation() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.write(LOWER, 0, 0);
    hand.0.frame_use(LOWEST, None);
}

#[test]
#[should_panic(expected = "while it is linked")]
fn a_table_freed_while_linked() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.invalidate(PAGE, 1);
    hand.0.frame_use(LOWEST, None);
}

#[test]
#[should_panic(expected = "with data in it")]
fn a_table_freed_with_entries() {
    let hand = Hand::new();
    hand.write(LOWER, 0, 0);
    hand.invalidate(PAGE, 1);
    hand.0.frame_use(LOWEST, None);
}

#[test]
#[should_panic(expected = "before it was published")]
fn a_table_linked_before_its_entries_are_visible() {
    let hand = Hand::new();
    hand.0.frame_use(FrameIndex(3), Some(FrameUse::Table(TAG)));
    hand.write(FrameIndex(3), 0, LEAF);
    hand.write(LOWER, 1, hand.table(FrameIndex(3)));
}

#[test]
#[should_panic(expected = "not published")]
fn a_step_that_ends_without_a_barrier() {
    let hand = Hand::new();
    hand.write(LOWEST, 1, LEAF + PAGE_SIZE);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "stale")]
fn a_step_that_ends_without_an_invalidation() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.0.publish();
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "stale")]
fn a_right_taken_without_an_invalidation() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, LEAF & !(1 << 7));
    hand.0.publish();
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "stale")]
fn an_invalidation_of_the_wrong_pages() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.invalidate(PAGE.add_pages(1), 1);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "stale")]
fn an_invalidation_with_the_wrong_tag() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.0.invalidate(TranslationContext { tag: TlbTag(8), ..hand.context() }, Scope::All);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "stale")]
fn an_invalidation_with_the_wrong_root() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.0.invalidate(TranslationContext { root: Pa(0), ..hand.context() }, Scope::All);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "G5")]
fn a_page_zeroed_before_the_invalidation() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.0.zero_page(Pa(0x8000_0000));
}

#[test]
#[should_panic(expected = "another VM")]
fn a_table_of_another_vm_is_linked() {
    let hand = Hand::new();
    hand.0.frame_use(FrameIndex(3), Some(FrameUse::Table(TlbTag(8))));
    hand.write(LOWER, 1, hand.table(FrameIndex(3)));
}

#[test]
#[should_panic(expected = "taken twice")]
fn a_frame_taken_twice() {
    Hand::new().0.frame_use(LOWER, Some(FrameUse::Data));
}

const RAM: Pa = Pa(0x8000_0000);
/// [`LEAF`], non-cacheable.
const UNCACHED: u64 = LEAF & !(0xf << 2) & !(3 << 8) | 0b0101 << 2;

impl Hand {
    /// Another memory type, by break-before-make.
    fn retype(&self, leaf: u64) {
        self.write(LOWEST, 0, 0);
        self.invalidate(PAGE, 1);
        self.write(LOWEST, 0, leaf);
        self.0.publish();
    }

    fn load(&self) -> u8 {
        self.0.cpu(self.context()).read(PAGE).unwrap()
    }

    fn store(&self, value: u8) {
        self.0.cpu(self.context()).write(PAGE, value).unwrap();
    }

    /// Links [`PAGE`] of a second VM to `leaf`.
    fn alias(&self, leaf: u64) {
        let tables = [4, 5, 6].map(FrameIndex);
        for frame in tables {
            self.0.frame_use(frame, Some(FrameUse::Table(TlbTag(8))));
        }
        self.write(tables[2], 0, leaf);
        self.write(tables[1], 0, self.table(tables[2]));
        self.0.publish();
        self.write(tables[0], 0, self.table(tables[1]));
        self.0.publish();
    }
}

#[test]
fn what_was_written_before_a_page_turned_uncached_is_found_if_it_was_cleaned() {
    let hand = Hand::new();
    hand.store(7);
    assert_eq!((hand.0.page(RAM)[0], hand.0.memory(RAM)[0]), (7, 0), "in the cache alone");
    hand.retype(UNCACHED);
    assert_eq!(hand.load(), 0, "memory does not have it yet");
    hand.0.clean_invalidate_page(RAM);
    assert_eq!(hand.load(), 7);
    hand.0.check_caches();
}

#[test]
#[should_panic(expected = "was not cleaned")]
fn a_page_that_turned_uncached_without_a_clean() {
    let hand = Hand::new();
    hand.store(7);
    hand.retype(UNCACHED);
    hand.0.check_caches();
}

#[test]
#[should_panic(expected = "was not cleaned")]
fn a_page_that_was_cleaned_and_then_written_once_more() {
    let hand = Hand::new();
    hand.0.clean_invalidate_page(RAM);
    hand.store(7);
    hand.retype(UNCACHED);
    hand.0.check_caches();
}

#[test]
fn what_was_written_uncached_is_found_by_the_caches_users_if_it_was_invalidated() {
    let hand = Hand::new();
    hand.retype(UNCACHED);
    hand.store(7);
    assert_eq!((hand.0.page(RAM)[0], hand.0.memory(RAM)[0]), (0, 7), "a CPU has read ahead");
    hand.0.clean_invalidate_page(RAM);
    hand.retype(LEAF);
    assert_eq!(hand.load(), 7);
    hand.0.check_caches();
}

#[test]
#[should_panic(expected = "was not invalidated")]
fn a_page_that_turned_cached_without_an_invalidation() {
    let hand = Hand::new();
    hand.retype(UNCACHED);
    hand.store(7);
    hand.retype(LEAF);
    hand.0.check_caches();
}

#[test]
fn zeros_reach_the_caches_and_memory() {
    let hand = Hand::new();
    hand.store(7);
    hand.write(LOWEST, 0, 0);
    hand.invalidate(PAGE, 1);
    hand.0.zero_page(RAM);
    assert_eq!((hand.0.page(RAM)[0], hand.0.memory(RAM)[0]), (0, 0));
}

#[test]
fn stage_2_forces_write_back_only_with_the_feature() {
    let plain = Hand::new();
    plain.store(7);
    let bypassing = |hand: &Hand| hand.0.cpu(hand.context()).uncached().read(PAGE).unwrap();
    assert_eq!(bypassing(&plain), 0, "the stricter stage wins");
    let features = Features { forced_write_back: true, ..Features::default() };
    let forced = Hand::with(features, LEAF & !(0xf << 2) | 0b0110 << 2);
    forced.store(7);
    assert_eq!(bypassing(&forced), 7);
}

#[test]
fn two_vms_may_map_a_page_alike() {
    let hand = Hand::new();
    hand.alias(LEAF);
    let hand = Hand::with(Features::default(), UNCACHED);
    hand.alias(UNCACHED);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "mismatched aliases")]
fn a_second_vm_maps_a_cached_page_uncached() {
    Hand::new().alias(UNCACHED);
}

#[test]
#[should_panic(expected = "mismatched aliases")]
fn a_second_vm_maps_an_uncached_page_cached() {
    Hand::with(Features::default(), UNCACHED).alias(LEAF);
}

#[test]
#[should_panic(expected = "mismatched aliases")]
fn a_page_turns_uncached_while_another_vm_has_it_cached() {
    let hand = Hand::new();
    hand.alias(LEAF);
    hand.retype(UNCACHED);
}

#[test]
#[should_panic(expected = "mismatched aliases")]
fn a_page_turns_cached_before_another_vm_has_lost_its_uncached_translation() {
    let hand = Hand::with(Features::default(), UNCACHED);
    hand.alias(UNCACHED);
    hand.write(FrameIndex(6), 0, 0);
    hand.retype(LEAF);
}
