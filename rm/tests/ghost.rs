//! Random histories of all VMs against a specification of ownership that knows nothing of descriptors.
//!
//! The specification is `ghost/model.rs`, with a page for each concern beside it: a map from a VM's page to
//! what the VM may do there and which machine page it is, a list of parcels, with who wants what done at the
//! end of its part and which devices have a part in it, what is taken of heaps, and the bytes of memory. Each
//! step of a history is a call, the death of a VM, or a question that must change nothing. After every step
//! the answer is compared, every page of every VM and every device is read back from its tables, and the rings
//! of every bell are counted; the machine is asked for stale translations (G5) and conservation is checked (G8).
//! All content, memory types, caches and heaps take longer and are compared every eighth step; VMs and devices
//! write between the calls, over caches that lose what they may.
//!
//! The number of histories grows with the square of `RM_EFFORT`. One that fails is made shorter as long as it still fails, and
//! what is left is printed with the seed and the steps; `RM_SEED` and `RM_STEPS` play them again.

mod ghost {
    pub(crate) mod model;
    pub(crate) mod story;
}

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

use ghost::story::Story;
use rm::machine::fake::effort::{effort, few};

/// Steps of a history.
const STEPS: u32 = 4000;
/// Histories at this effort: a million steps at ten, and a few seconds at one.
const fn histories(effort: u64) -> u64 {
    (5 * effort * effort).div_ceil(2)
}

/// How many shorter histories are tried at most.
const TRIES: u32 = 400;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Plays these steps of the history with this seed; how many of them were done, as they are. The result is
/// how many calls succeeded.
fn play(seed: u64, steps: &[u32], done: &AtomicU64) -> u64 {
    let mut story = Story::new(seed);
    for &step in steps {
        story.step(step);
        done.fetch_add(1, Ordering::Relaxed);
    }
    story.successes
}

/// The shortest part that could be found of `steps` which still fails.
fn shorten(mut steps: Vec<u32>, mut fails: impl FnMut(&[u32]) -> bool) -> Vec<u32> {
    let (mut part, mut tries) = (steps.len().div_ceil(2), 0);
    while part > 0 && tries < TRIES {
        let mut at = 0;
        while at < steps.len() && tries < TRIES {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + part).min(steps.len()));
            tries += 1;
            if fails(&shorter) {
                steps = shorter;
            } else {
                at += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    steps
}

/// Plays a history; if it fails, says which part of it suffices for that.
fn try_history(seed: u64, steps: Vec<u32>) -> u64 {
    let fails = |steps: &[u32]| {
        let done = AtomicU64::new(0);
        let played = panic::catch_unwind(AssertUnwindSafe(|| play(seed, steps, &done)));
        played.map_err(|_| done.into_inner() as usize)
    };
    let at = match fails(&steps) {
        Ok(successes) => return successes,
        Err(at) => at,
    };
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let short = shorten(steps[..=at].to_vec(), |steps| fails(steps).is_err());
    panic::set_hook(hook);
    let list: Vec<_> = short.iter().map(u32::to_string).collect();
    let mut story = Story::new(seed);
    story.tells = true;
    eprintln!("RM_SEED={seed} RM_STEPS={}", list.join(","));
    short.iter().for_each(|&step| story.step(step));
    panic!("RM_SEED={seed} failed once and does not any more");
}

#[test]
fn no_sequence_of_calls_leaves_the_model() {
    let steps: Option<Vec<u32>> = variable("RM_STEPS")
        .map(|list| list.split(',').map(|step| step.parse().expect("a number")).collect());
    let seeds = match variable("RM_SEED").map(|seed| seed.parse::<u64>().expect("a number")) {
        Some(seed) => seed..seed + 1,
        None => 1..1 + few(histories(effort()), 1),
    };
    let steps = steps.unwrap_or_else(|| (few(0, 38)..few(STEPS, 43)).collect());
    let (next, successes) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            successes.fetch_add(try_history(seed, steps.clone()), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let (successes, all) = (successes.into_inner(), (seeds.end - seeds.start) * steps.len() as u64);
    println!("ghost: {all} steps, {successes} of them calls that succeeded");
    // A model that refuses everything would agree with a manager that does.
    assert!(successes * 4 > all, "too few calls succeed to say anything");
}

#[test]
fn a_history_that_fails_is_made_as_short_as_it_may_be() {
    let found = shorten((0..400).collect(), |steps| steps.contains(&7) && steps.contains(&311));
    assert_eq!(found, [7, 311]);
    assert_eq!(shorten(vec![4, 5, 6], |steps| steps.len() > 1).len(), 2);
    let mut tries = 0;
    shorten((0..4000).collect(), |_| {
        tries += 1;
        false
    });
    assert!(tries <= TRIES);
}
