//! Promises and limits.

use std::vec::Vec;

use super::*;
use crate::address::TlbTag;
use crate::machine::fake::FakeMachine;

const A: VmIndex = VmIndex(0);
const B: VmIndex = VmIndex(1);
const DATA: FrameUse = FrameUse::Data;

/// Runs `story` over a pool of eight frames.
fn with_pool(story: impl FnOnce(&FakeMachine, &FramePool<'_, <FakeMachine as Machine>::Relax>)) {
    let machine = FakeMachine::new(8);
    let records: Vec<_> = (0..8).map(|_| FrameRecord::default()).collect();
    let stack: Vec<_> = (0..8).map(|_| AtomicU32::new(0)).collect();
    story(&machine, &FramePool::new(&records, &stack));
}

#[test]
fn a_reserve_is_out_of_reach_of_every_other_vm() {
    with_pool(|machine, pool| {
        pool.set_quota(machine, A, 3, 8).unwrap();
        pool.set_quota(machine, B, 0, 100).unwrap();
        for _ in 0..5 {
            pool.take(machine, B, DATA).unwrap();
        }
        assert_eq!(pool.take(machine, B, DATA), Err(NoFrame::Empty));
        for _ in 0..3 {
            pool.take(machine, A, DATA).unwrap();
        }
        assert_eq!(pool.take(machine, A, DATA), Err(NoFrame::Empty));
        assert_eq!(pool.free(machine), 0);
    });
}

#[test]
fn what_goes_back_is_promised_again() {
    with_pool(|machine, pool| {
        pool.set_quota(machine, A, 2, 8).unwrap();
        pool.set_quota(machine, B, 0, 8).unwrap();
        let first = pool.take(machine, A, DATA).unwrap();
        pool.take(machine, A, DATA).unwrap();
        let third = pool.take(machine, A, DATA).unwrap();
        pool.put(machine, A, third);
        pool.put(machine, A, first);
        for _ in 0..6 {
            pool.take(machine, B, DATA).unwrap();
        }
        assert_eq!(pool.take(machine, B, DATA), Err(NoFrame::Empty));
        pool.take(machine, A, DATA).unwrap();
    });
}

#[test]
fn a_limit_holds_while_frames_are_left() {
    with_pool(|machine, pool| {
        pool.set_quota(machine, A, 0, 2).unwrap();
        pool.take(machine, A, DATA).unwrap();
        pool.take(machine, A, FrameUse::Table(TlbTag(1))).unwrap();
        assert_eq!(pool.take(machine, A, DATA), Err(NoFrame::Quota));
        pool.credit(A);
        assert_eq!(pool.used(A), 1);
        pool.take(machine, A, DATA).unwrap();
        assert!(!pool.affords(machine, A, 1));
    });
}

#[test]
fn more_cannot_be_promised_than_there_is() {
    with_pool(|machine, pool| {
        pool.set_quota(machine, A, 5, 5).unwrap();
        assert_eq!(pool.set_quota(machine, B, 4, 4), Err(NoFrame::Empty));
        pool.set_quota(machine, A, 4, 4).unwrap();
        pool.set_quota(machine, B, 4, 4).unwrap();
    });
}
