//! `cargo run -- miri`: the tests of `rm` and `rm-abi` under Miri, the interpreter that notices undefined behaviour.
//!
//! `rm` has no `unsafe` of its own, but it runs over types whose safety others have argued (its lock, its vectors,
//! its atomics), and Miri sees data races, too. An interpreter is ten thousand times slower than what is compiled:
//! what is left out is named below, with the reason, or what little is run; whatever is not named is run. Worlds are
//! smaller there (`rm/src/machine/fake/world.rs`), and of histories and properties there are a few. Miri is in nightly
//! compilers only.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::build::workspace;
use crate::print::progress;

/// Packages, and where they are.
const PACKAGES: [(&str, &str); 2] = [("rm-abi", "rm/abi"), ("rm", "rm")];
/// The tests inside a package, where another program is a file of its `tests`.
const INSIDE: &str = "lib";
/// All tests of a program.
const ALL: &[&str] = &[];

const SCHEDULES: &str =
    "plays thousands of schedules, on stacks of its own that an interpreter does not switch";
const FILES: &str = "reads files, and the interpreter shows it none of the host";
const STATES: &str = "makes worlds for every pair of a state and a call";
const HISTORIES: &str = "plays long histories";
const STEPS: &str = "plays calls once for each of their steps, in a world each";
const SIZE: &str = "needs what there is little of here: parcels, handles, frames or a heap";
const SEARCH: &str = "searches all memory of its worlds for bytes";
const THREADS: &str = "plays rounds of calls of several threads, and the interpreter has one";
const MINUTES: &str = "takes half a minute or more by itself";

/// What is left out: package, program, why, and the tests (or modules of tests, which end in `::`), if not all of
/// the program.
const LEFT_OUT: &[(&str, &str, &str, &[&str])] = &[
    ("rm-abi", "captured", MINUTES, ALL),
    ("rm", "schedules", SCHEDULES, ALL),
    ("rm", "cells", STATES, ALL),
    ("rm", "faults", STATES, ALL),
    ("rm", "unwritten", STATES, ALL),
    ("rm", "ghost", HISTORIES, ALL),
    ("rm", "trims", HISTORIES, ALL),
    ("rm", "any_bytes", HISTORIES, ALL),
    ("rm", "vectors", HISTORIES, ALL),
    ("rm", "steps", STEPS, ALL),
    ("rm", "revoke", STEPS, ALL),
    ("rm", "residency", SIZE, ALL),
    ("rm", "canary", SEARCH, ALL),
    ("rm", "parallel", THREADS, ALL),
    ("rm-abi", "any_bytes", FILES, &["every_decoder_is_asked"]),
    (
        "rm",
        "accept",
        MINUTES,
        &[
            "a_donation_in_many_pieces_ends_the_same_in_steps_of_any_size",
            "a_parcel_of_many_units_is_accepted_in_portions_of_512",
            "a_whole_parcel_is_one_unit_to_a_contiguous_accept",
            "an_accept_without_a_frame_for_its_reply_changes_nothing",
            "done_without_an_address_for_every_unit_is_refused_and_keeps_what_was_there",
        ],
    ),
    (
        "rm",
        "advisories",
        MINUTES,
        &[
            "linux_391_a_peer_that_rings_without_end_is_heard_once_until_it_is_read",
            "xsa_18_any_handle_and_offset_is_refused_and_none_is_an_index",
            "xsa_217_a_page_that_has_moved_on_is_out_of_reach_of_all_who_had_it",
            "xsa_218_of_two_vcpus_that_release_at_once_one_does_and_what_was_to_be_done_is_done_once",
            "xsa_382_a_reply_has_no_more_than_its_receiver_has_room_for",
            "xsa_500_a_request_that_is_rewritten_while_it_is_served_is_served_as_it_came",
            "xsa_73_vms_copy_between_each_other_s_parcels_at_once_and_none_waits_for_ever",
        ],
    ),
    (
        "rm",
        "append",
        MINUTES,
        &[
            "a_long_parcel_is_made_mapped_and_reclaimed_in_steps_of_one_unit",
            "a_parcel_can_be_abandoned_between_appends",
            "a_range_that_lies_in_many_places_of_the_machine_is_offered_piece_by_piece",
            "a_refused_append_leaves_the_parcel_as_it_was",
        ],
    ),
    ("rm", "boot", MINUTES, &["vms_that_cannot_be_told_apart_or_are_none_are_refused"]),
    (
        "rm",
        "cache",
        MINUTES,
        &[
            "an_offered_share_changes_its_policy_and_back_for_its_owner_and_who_accepts_later",
            "an_owner_that_ends_while_a_policy_changes_leaves_nothing_behind",
            "an_owner_that_writes_while_its_share_turns_uncached_leaves_no_line_in_the_cache",
            "an_uncached_lend_brings_its_content_there_and_back",
            "appended_pages_get_the_parcels_policy",
            "g3_an_uncached_share_is_so_for_its_owner_too_and_keeps_what_was_written",
            "g5_zeros_of_an_uncached_parcel_are_in_memory_and_in_the_caches",
            "while_a_policy_changes_nobody_begins_anything_with_the_parcel",
        ],
    ),
    (
        "rm",
        "copies",
        MINUTES,
        &[
            "a_borrower_copies_both_ways_without_a_mapping",
            "a_copy_far_into_two_parcels_ends_the_same_in_steps_of_any_size",
            "a_window_lets_a_vm_copy_some_bytes_and_map_nothing",
            "after_a_revocation_nothing_is_written_any_more",
            "every_segment_has_a_status_of_its_own",
            "g7_a_step_copies_a_bounded_number_of_bytes",
        ],
    ),
    (
        "rm",
        "cpu_access",
        MINUTES,
        &["g7_a_bracket_around_many_pages_is_done_in_short_steps_and_ends_with_the_parcel"],
    ),
    ("rm", "guarantees", MINUTES, &["g6_a_handle_is_not_used_again"]),
    ("rm", "guarantees", SIZE, &["g7_a_vm_at_its_parcel_quota_changes_nothing_for_another"]),
    (
        "rm",
        "info",
        SIZE,
        &[
            "a_list_has_every_parcel_once_whatever_its_parts",
            "thousands_of_parcels_are_listed_in_short_steps_while_calls_go_on",
        ],
    ),
    (
        "rm",
        "inspect",
        MINUTES,
        &[
            "a_map_says_what_every_page_is",
            "a_map_says_what_is_registers_and_what_a_call_at_work_has_taken",
            "a_parcel_that_goes_while_it_is_looked_at_ends_the_look",
            "any_part_of_a_long_parcel_is_found_in_short_steps",
        ],
    ),
    (
        "rm",
        "life",
        MINUTES,
        &[
            "a_donation_that_is_being_accepted_is_decided_when_its_owner_dies",
            "a_vm_dies_with_thousands_of_parcels_and_each_step_is_short",
            "a_vm_may_die_at_every_step_of_every_call",
            "g5_a_dead_owner_s_parcels_are_taken_back_and_zeroed",
            "two_hundred_lives_leave_the_counts_of_the_first",
        ],
    ),
    ("rm", "lookup", MINUTES, &["a_parcel_that_changes_under_the_search_is_not_found"]),
    (
        "rm",
        "notices",
        MINUTES,
        &[
            "an_offer_of_many_sizes_comes_in_packets_and_whole",
            "an_offer_whose_parcel_goes_is_ended_and_names_no_other_parcel",
            "many_targets_are_told_in_steps",
        ],
    ),
    ("rm", "notices", SIZE, &["at_the_limit_the_oldest_unread_news_makes_way"]),
    (
        "rm",
        "pitfalls",
        MINUTES,
        &[
            "a_page_is_in_one_parcel_once_whatever_the_list",
            "a_range_one_page_short_of_a_block_is_mapped_page_by_page",
            "sizes_and_addresses_that_would_wrap_are_refused",
        ],
    ),
    (
        "rm",
        "queues",
        MINUTES,
        &[
            "a_flush_in_the_middle_of_a_reply_drops_all_of_it_and_what_waits_comes",
            "a_request_that_finds_no_frames_is_answered",
            "long_requests_and_replies_take_many_packets",
            "queued_calls_end_the_same_in_steps_of_one_unit",
        ],
    ),
    ("rm", "quotas", MINUTES, &["frames"]),
    ("rm", "lib", HISTORIES, &["stage2::tests::model::"]),
    (
        "rm",
        "lib",
        MINUTES,
        &[
            "stage2::tests::blocks::scattered_pages_that_were_donated_never_merge",
            "stage2::tests::frames::a_claim_that_finds_no_frame_can_be_taken_back",
            "stage2::tests::frames::a_cut_that_finds_no_frame_changes_nothing",
            "stage2::tests::frames::a_hold_that_finds_no_frame_undoes_itself",
            "stage2::tests::frames::a_parcel_that_finds_no_frame_to_be_parted_stays_as_it_is",
            "stage2::tests::frames::a_reclaim_needs_no_frame",
            "stage2::tests::frames::mergeable_tables_count_again_when_they_are_used",
            "stage2::tests::order::lending_many_pages_invalidates_once",
            "stage2::tests::part::",
            "stage2::tests::search::",
        ],
    ),
    ("rm", "lib", SIZE, &["heap::tests::the_marks_of_a_gib_are_made_in_steps_of_bounded_length"]),
    ("rm", "lib", THREADS, &["stage2::tests::concurrent::"]),
];
/// Programs of which these tests are run; most others take half a minute or more each.
const FEW: &[(&str, &str, &[&str])] = &[
    (
        "rm",
        "devices",
        &[
            "a_machine_without_an_smmu_refuses_to_attach_and_says_why",
            "a_parcel_with_an_attachment_is_not_reclaimed_and_says_which_device_it_is",
            "an_unfinished_parcel_has_no_devices",
            "device_and_cpu_see_one_content",
        ],
    ),
    (
        "rm",
        "heaps",
        &[
            "a_piece_of_blocks_is_contiguous_and_mapped_in_blocks",
            "a_vm_sees_and_uses_the_heaps_that_it_may_and_no_others",
            "a_vm_whose_addresses_are_the_machines_has_a_piece_there",
            "an_allocation_whose_address_is_taken_meanwhile_finds_another",
            "boot_refuses_heaps_that_cannot_be",
            "g4_a_refused_call_changes_nothing",
        ],
    ),
    (
        "rm",
        "shared_quotas",
        &["g7_a_vm_that_has_drained_the_shared_unread_news_changes_nothing_within_a_guarantee"],
    ),
    (
        "rm",
        "trim",
        &[
            "all_of_a_parcel_may_be_trimmed_and_the_parcel_stays",
            "the_holders_that_are_in_the_way_are_named",
        ],
    ),
    (
        "rm",
        "wills",
        &[
            "a_caller_that_has_released_and_accepted_again_has_no_old_record",
            "a_place_that_was_called_off_is_used_again",
            "a_trim_executes_what_was_said_of_its_pages",
        ],
    ),
];
/// How many cases a property has here.
const CASES: u32 = 4;
/// Files and clocks of the host are not there, which makes a run the same every time. What a test's world is made of
/// lives until the end of the process, as at EL2, and is not a leak. References are followed as trees, and one to
/// what holds an atomic may do in all of it what the atomic allows: to look for the atomics in a frame of 512 at
/// every use of it takes ten times as long.
const FLAGS: &str = "-Zmiri-isolation-error=hide -Zmiri-ignore-leaks -Zmiri-tree-borrows \
    -Zmiri-tree-borrows-no-precise-interior-mut";
const INSTALL: [&str; 7] =
    ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];

/// Runs the tests of these programs, or of all that are not left out.
pub fn run(wanted: &[String]) -> Result<ExitCode> {
    let known: Vec<_> = programs()?;
    for name in wanted {
        ensure!(
            known.iter().any(|(_, known)| known == name),
            "no program of tests is called {name}"
        );
    }
    if !is_there() {
        progress("Installing", "a nightly compiler with Miri (once)");
        let added = Command::new("rustup").args(INSTALL).status();
        ensure!(
            added.is_ok_and(|status| status.success()) && is_there(),
            "Miri is missing; type: rustup {}",
            INSTALL.join(" ")
        );
    }
    let chosen = known.into_iter().filter(|(package, program)| {
        let is_wanted = wanted.is_empty() || wanted.contains(program);
        is_wanted && !left_out(package, program).any(|tests| tests == ALL)
    });
    // Once, since programs that start beside each other would wait for each other's builds.
    for (package, _) in PACKAGES {
        let mut build = tests(package);
        ensure!(
            build.args(["--tests", "--no-run"]).status()?.success(),
            "{package} does not build"
        );
    }
    let left = Mutex::new(chosen);
    let ends: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers()).map(|_| scope.spawn(|| work(&left))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
    });
    ends.into_iter().collect::<Result<()>>()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs programs, one after the other, until none is left or one fails.
fn work(left: &Mutex<impl Iterator<Item = (&'static str, String)>>) -> Result<()> {
    loop {
        let next = left.lock().expect("no worker panics").next();
        let Some((package, program)) = next else { return Ok(()) };
        progress("Testing", &format!("{package} {program}"));
        let Output { status, stdout, stderr } = test(package, &program)?;
        let mut out = io::stdout().lock();
        write!(out, "\n{package} {program}")?;
        out.write_all(&stdout)?;
        if !status.success() {
            io::stderr().write_all(&stderr)?;
            left.lock().expect("no worker panics").by_ref().for_each(drop);
            bail!("{package} {program} fails under Miri");
        }
    }
}

/// How many programs are run beside each other. Each takes a core and, at the most, half a GiB.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// Runs the tests of a program, all or few, but those that are left out.
fn test(package: &str, program: &str) -> Result<Output> {
    let mut tests = tests(package);
    match program {
        INSIDE => tests.arg("--lib"),
        program => tests.args(["--test", program]),
    };
    match FEW.iter().find(|(of, name, _)| (*of, *name) == (package, program)) {
        Some((.., names)) => tests.args(["--", "--exact"]).args(*names),
        None => {
            let names = left_out(package, program).flatten();
            tests.arg("--").args(names.flat_map(|name| ["--skip", name]))
        }
    };
    tests.output().context("rustup could not be started")
}

/// Tests of a package under Miri.
fn tests(package: &str) -> Command {
    let mut tests = miri();
    tests.args(["test", "--quiet", "--package", package]);
    tests.env("CARGO_TARGET_DIR", workspace().join("target/miri"));
    tests.env("MIRIFLAGS", format!("{FLAGS} -Zmiri-env-set=PROPTEST_CASES={CASES}"));
    // A backtrace that is not printed would be most of the work of a test that panics.
    tests.env("RUST_BACKTRACE", "0");
    tests
}

/// All programs of tests: package and name.
fn programs() -> Result<Vec<(&'static str, String)>> {
    let mut programs = vec![];
    for (package, folder) in PACKAGES {
        let mut names = BTreeSet::from([INSIDE.to_owned()]);
        for entry in fs::read_dir(workspace().join(folder).join("tests"))? {
            let path = entry?.path();
            if let (Some(stem), Some("rs")) =
                (path.file_stem(), path.extension().and_then(|e| e.to_str()))
            {
                names.insert(stem.to_string_lossy().into_owned());
            }
        }
        programs.extend(names.into_iter().map(|name| (package, name)));
    }
    Ok(programs)
}

/// The tests of a program that are left out, a list for each reason.
fn left_out<'a>(
    package: &'a str,
    program: &'a str,
) -> impl Iterator<Item = &'static [&'static str]> + 'a {
    let of_program =
        LEFT_OUT.iter().filter(move |(of, name, ..)| (*of, *name) == (package, program));
    of_program.map(|(.., tests)| *tests)
}

fn is_there() -> bool {
    let mut ask = miri();
    ask.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

/// Miri of the nightly compiler, whichever compiler the workspace names.
fn miri() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", "cargo", "miri"]).current_dir(workspace());
    rustup.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO");
    rustup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_there() {
        let programs = programs().unwrap();
        let left_out =
            LEFT_OUT.iter().map(|(package, program, _, tests)| (package, program, tests));
        let few = FEW.iter().map(|(package, program, tests)| (package, program, tests));
        for (package, program, tests) in left_out.chain(few) {
            assert!(
                programs.iter().any(|known| known == &(*package, (*program).to_owned())),
                "{program}"
            );
            let (_, folder) = PACKAGES.iter().find(|(known, _)| known == package).unwrap();
            for test in *tests {
                let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
                let source = match *program {
                    INSIDE => format!("{folder}/src/{}.rs", module.replace("::", "/")),
                    program => format!("{folder}/tests/{program}.rs"),
                };
                let text = fs::read_to_string(workspace().join(&source)).unwrap_or_default();
                let promise = if name.is_empty() { "#[test]" } else { &format!("fn {name}(") };
                assert!(text.contains(promise), "{source} has no test {name}");
            }
        }
    }

    #[test]
    fn what_is_left_out_has_a_reason_and_whole_programs_are_left_out_once() {
        for (package, program, ..) in FEW {
            assert_eq!(left_out(package, program).count(), 0, "{program} has few tests, all named");
        }
        for (package, program, why, tests) in LEFT_OUT {
            assert!(!why.is_empty(), "{program}");
            let lists = left_out(package, program).count();
            assert!(*tests != ALL || lists == 1, "{program} is left out, and so are tests of it");
        }
    }
}
