//! Charging and refunding, alone and from many threads.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::machine::fake::effort::few;

const KIND: Resource = Resource::Extents;
const LIMIT: Result<(), Refusal> = Err(Refusal::Quota(KIND));
const EMPTY: Result<(), Refusal> = Err(Refusal::SharedQuota(KIND));

fn meter(guaranteed: u64, limit: u64) -> Meter {
    Meter::new(KIND, guaranteed, limit)
}

#[test]
fn a_charge_beyond_the_limit_takes_nothing() {
    let (meter, pool) = (meter(10, 10), Pool::new(0));
    meter.charge(&pool, 8).unwrap();
    assert_eq!(meter.charge(&pool, 3), LIMIT);
    assert_eq!(meter.used(), 8);
    meter.charge(&pool, 2).unwrap();
}

#[test]
fn a_charge_that_would_wrap_is_refused() {
    let (meter, pool) = (meter(u64::MAX, u64::MAX), Pool::new(0));
    meter.charge(&pool, u64::MAX).unwrap();
    assert_eq!(meter.charge(&pool, 1), LIMIT);
    assert_eq!(meter.charge(&pool, u64::MAX), LIMIT);
}

#[test]
fn what_is_above_the_guarantee_comes_from_the_pool_and_goes_back_there_first() {
    let (meter, pool) = (meter(4, 20), Pool::new(5));
    meter.charge(&pool, 3).unwrap();
    assert_eq!(pool.left(), 5, "the guarantee costs the pool nothing");
    meter.charge(&pool, 4).unwrap();
    assert_eq!(pool.left(), 2);
    assert_eq!(meter.charge(&pool, 3), EMPTY);
    assert_eq!((meter.used(), pool.left()), (7, 2), "a refusal takes nothing");
    assert_eq!(meter.charge(&pool, 14), LIMIT, "the own limit is told before the pool");
    meter.refund(&pool, 2);
    assert_eq!(pool.left(), 4);
    meter.refund(&pool, 3);
    assert_eq!((meter.used(), pool.left()), (2, 5));
}

#[test]
fn a_guarantee_above_the_limit_is_the_limit() {
    let (meter, pool) = (meter(u64::MAX, 3), Pool::new(7));
    assert_eq!(meter.charge(&pool, 4), LIMIT);
    meter.charge(&pool, 3).unwrap();
    let usage = Usage { used: 3, guaranteed: 3, limit: 3, shared: 7 };
    assert_eq!(meter.usage(&pool), usage);
    assert!(meter.is_full(&pool));
}

#[test]
fn a_meter_is_full_at_its_limit_or_when_the_pool_is_empty() {
    let (one, other, pool) = (meter(1, 3), meter(0, 9), Pool::new(1));
    assert!(!one.is_full(&pool));
    one.charge(&pool, 1).unwrap();
    assert!(!one.is_full(&pool), "one is left to share");
    other.charge(&pool, 1).unwrap();
    assert!(one.is_full(&pool) && other.is_full(&pool));
    other.refund(&pool, 1);
    assert!(!one.is_full(&pool));
}

/// Two vCPUs each of three VMs charge and refund at random; a fourth VM stays within its guarantee.
#[test]
fn g7_pools_and_guarantees_are_exact_however_many_charge_at_once() {
    const ROUNDS: u64 = few(20_000, 100);
    let pool = Pool::new(6);
    let greedy = [meter(2, 8), meter(0, 5), meter(3, 100)];
    let modest = meter(4, 4);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for (seed, meter) in (1..).zip(greedy.iter().chain(&greedy)) {
            let (pool, ends) = (&pool, &ends);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
                let mut held = 0;
                while !ends.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let amount = random % 4;
                    if random & 64 == 0 && meter.charge(pool, amount).is_ok() {
                        held += amount;
                    } else if held >= amount {
                        meter.refund(pool, amount);
                        held -= amount;
                    }
                    assert!(meter.used() <= meter.limit);
                    assert!(pool.left() <= pool.size, "more came back than there was");
                }
                meter.refund(pool, held);
            });
        }
        for _ in 0..ROUNDS {
            modest.charge(&pool, 4).expect("the guarantee is out of everybody's reach");
            modest.refund(&pool, 4);
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert_eq!(pool.left(), 6);
    assert!(greedy.iter().all(|meter| meter.used() == 0));
}
