//! Deliberately wrong orders for the tree of a device, written by hand: each must be noticed.

use super::*;
use crate::machine::fake::tests::{LOWER, LOWEST, map_first, write};
use crate::machine::{IpaRange, Machine};

const STREAM: Stream = Stream(7);
const OTHER: Stream = Stream(8);
const AT: Ipa = Ipa(0x10);
/// Valid, accessed, read and write, write-back, not to execute.
const ATTRIBUTES: u64 = 1 | 1 << 10 | 3 << 8 | 3 << 6 | 0xf << 2 | 1 << 54;
const LEAF: u64 = ATTRIBUTES | 2 | 0x8000_0000;
const WRITABLE: u64 = 1 << 7;

/// A machine in which the first page is mapped for a device.
struct Hand(FakeMachine);

impl Hand {
    fn new() -> Self {
        let hand = Self(FakeMachine::new(8));
        map_first(&hand.0, FrameUse::StreamTable(STREAM), LEAF);
        hand
    }

    fn write(&self, frame: FrameIndex, index: usize, new: u64) {
        write(&self.0, frame, index, new);
    }

    fn invalidate(&self, stream: Stream) {
        let context = StreamContext { stream, root: self.0.frames_base() };
        let first = [IpaRange { at: Ipa(0), pages: 1 }];
        self.0.invalidate_stream(context, Scope::Ranges(&first));
    }

    fn device(&self) -> FakeDevice<'_> {
        self.0.device(STREAM, true)
    }
}

#[test]
fn the_right_order_passes() {
    let hand = Hand::new();
    let device = hand.device();
    assert_eq!((device.write(AT, 7), device.read(AT)), (Ok(()), Ok(7)));
    device.post(AT, 8).unwrap();
    hand.write(LOWEST, 0, 0);
    assert_eq!(device.read(AT), Ok(7), "a cached translation outlives its entry");
    hand.invalidate(STREAM);
    assert!(device.read(AT).is_err() && device.post(AT, 9).is_err());
    assert_eq!(
        hand.0.page(Pa(0x8000_0000))[0x10],
        8,
        "the invalidation waited for what was under way"
    );
    hand.0.zero_page(Pa(0x8000_0000));
    hand.write(LOWER, 0, 0);
    hand.invalidate(STREAM);
    hand.0.frame_use(LOWEST, None);
    hand.0.check_no_stale();
}

#[test]
fn a_device_reaches_pages_with_its_own_rights_and_no_other_device_does() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, LEAF & !WRITABLE);
    hand.invalidate(STREAM);
    let fault = DeviceFault { stream: STREAM, at: AT, direction: Direction::FromDevice };
    assert_eq!((hand.device().read(AT), hand.device().write(AT, 1)), (Ok(0), Err(fault)));
    assert!(hand.0.device(OTHER, true).read(AT).is_err());
    let page = hand.device().pages()[0];
    assert_eq!((page.at, page.direction), (Ipa(0), Direction::ToDevice));
}

#[test]
#[should_panic(expected = "break-before-make")]
fn one_write_to_another_address() {
    Hand::new().write(LOWEST, 0, LEAF + PAGE_SIZE);
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
fn make_after_the_invalidation_of_another_stream() {
    let hand = Hand::new();
    hand.0.frame_use(FrameIndex(3), Some(FrameUse::StreamTable(OTHER)));
    hand.write(LOWEST, 0, 0);
    hand.invalidate(OTHER);
    hand.write(LOWEST, 0, LEAF + PAGE_SIZE);
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
fn a_step_that_ends_with_an_invalidation_of_the_cpus() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, LEAF & !WRITABLE);
    let context = TranslationContext { tag: TAG, root: hand.0.frames_base() };
    hand.0.invalidate(context, Scope::All);
    hand.0.check_no_stale();
}

#[test]
#[should_panic(expected = "not published")]
fn a_step_that_ends_without_a_barrier() {
    let hand = Hand::new();
    hand.write(LOWEST, 1, LEAF + PAGE_SIZE);
    hand.0.check_no_stale();
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
#[should_panic(expected = "is written while")]
fn a_page_zeroed_while_a_translation_is_cached() {
    let hand = Hand::new();
    hand.write(LOWEST, 0, 0);
    hand.0.zero_page(Pa(0x8000_0000));
}

#[test]
#[should_panic(expected = "is under way")]
fn a_page_zeroed_while_a_write_is_under_way() {
    let hand = Hand::new();
    hand.device().post(AT, 1).unwrap();
    hand.0.zero_page(Pa(0x8000_0000));
}

#[test]
#[should_panic(expected = "pages only")]
fn a_block_for_a_device() {
    Hand::new().write(LOWER, 1, ATTRIBUTES | 0x8000_0000);
}

#[test]
#[should_panic(expected = "to execute")]
fn a_page_to_execute_for_a_device() {
    let hand = Hand::new();
    hand.write(LOWEST, 1, (LEAF & !(1 << 54)) + PAGE_SIZE);
    hand.0.publish();
    let _ = hand.device().read(Ipa(PAGE_SIZE));
}
