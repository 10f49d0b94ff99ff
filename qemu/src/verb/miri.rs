//! `cargo run -- miri`: the tests of `rm` and `rm-abi` under Miri, the interpreter that notices undefined behaviour.
//!
//! `rm` has no `unsafe` of its own, but it runs over types whose safety others have argued (its lock, its vectors,
//! its atomics), and Miri sees data races, too. An interpreter is thousands of times slower than what is compiled,
//! so less is tried there of what there is no end of, and worlds are smaller: whatever asks `cfg!(miri)`, most of it by
//! way of `rm/src/machine/fake/effort.rs`. Miri is in nightly compilers only.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::build::workspace;
use crate::print::progress;

/// Packages, and where they are.
const PACKAGES: [(&str, &str); 2] = [("rm-abi", "rm/abi"), ("rm", "rm")];
/// The tests inside a package, where another program is a file of its `tests`.
const INSIDE: &str = "lib";
/// All tests of a program.
const ALL: &[&str] = &[];
/// Names of tests, or of modules of tests that end in `::`, by package and program.
type Named = [(&'static str, &'static str, &'static [&'static str])];

/// Tests that are not run: they take minutes even so, or read sources, and Miri shows no files.
const LEFT_OUT: &Named = &[
    ("rm-abi", "any_bytes", &["every_decoder_is_asked"]),
    (
        "rm",
        "accept",
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
        &[
            "xsa_18_any_handle_and_offset_is_refused_and_none_is_an_index",
            "xsa_382_a_reply_has_no_more_than_its_receiver_has_room_for",
            "xsa_500_a_request_that_is_rewritten_while_it_is_served_is_served_as_it_came",
        ],
    ),
    ("rm", "any_bytes", &["g7_any_direct_request", "g7_any_hypercall", "g7_any_packets"]),
    ("rm", "append", &["a_long_parcel_is_made_mapped_and_reclaimed_in_steps_of_one_unit"]),
    (
        "rm",
        "cache",
        &[
            "an_offered_share_changes_its_policy_and_back_for_its_owner_and_who_accepts_later",
            "an_owner_that_ends_while_a_policy_changes_leaves_nothing_behind",
            "an_owner_that_writes_while_its_share_turns_uncached_leaves_no_line_in_the_cache",
            "an_uncached_lend_brings_its_content_there_and_back",
            "g3_an_uncached_share_is_so_for_its_owner_too_and_keeps_what_was_written",
            "while_a_policy_changes_nobody_begins_anything_with_the_parcel",
        ],
    ),
    (
        "rm",
        "canary",
        &[
            "g5_a_creation_with_sanitize_hands_on_zeros_and_leaves_the_neighbours",
            "g5_a_lend_is_wiped_for_a_vm_that_is_always_sanitized_on_either_side",
            "g5_a_lend_whose_borrower_dies_is_wiped_and_a_share_kept",
            "g5_a_reply_holds_nothing_of_an_earlier_request",
            "g5_an_accept_with_sanitize_wipes_at_the_reclaim",
            "g5_appended_pages_are_wiped_as_the_creation_said",
            "g5_frames_that_held_a_long_request_or_an_extent_list_are_erased",
            "g5_what_an_owner_that_dies_had_lent_or_shared_is_wiped",
            "g5_what_is_revoked_of_a_lend_is_wiped_and_of_a_share_kept",
            "g5_what_nobody_wipes_is_found",
        ],
    ),
    ("rm", "cells", &["g4_every_call_in_every_state_by_everybody_is_answered_as_the_table_says"]),
    (
        "rm",
        "copies",
        &[
            "a_borrower_copies_both_ways_without_a_mapping",
            "a_copy_far_into_two_parcels_ends_the_same_in_steps_of_any_size",
            "after_a_revocation_nothing_is_written_any_more",
            "g7_a_step_copies_a_bounded_number_of_bytes",
        ],
    ),
    (
        "rm",
        "cpu_access",
        &["g7_a_bracket_around_many_pages_is_done_in_short_steps_and_ends_with_the_parcel"],
    ),
    (
        "rm",
        "devices",
        &[
            "a_call_on_a_device_is_taken_over_wherever_it_stands",
            "g3_a_direction_takes_the_rights_that_it_needs_and_gives_no_others",
            "g7_a_map_of_many_pages_is_done_in_short_steps",
            "other_calls_find_a_mapping_that_is_at_work_busy",
        ],
    ),
    ("rm", "faults", ALL),
    ("rm", "ghost", &["no_sequence_of_calls_leaves_the_model"]),
    (
        "rm",
        "heaps",
        &[
            "a_vm_dies_at_every_step_of_an_allocation_and_of_a_return",
            "an_allocation_that_fails_changes_nothing_wherever_it_fails",
            "an_exhausted_heap_refuses_and_its_count_stays_exact",
            "g5_a_piece_is_shared_with_a_peer_and_comes_back_from_the_heap_as_zeros",
            "g5_what_a_vm_that_ends_has_of_a_heap_goes_back_as_zeros",
            "g7_vms_take_and_return_pieces_all_at_once",
            "sizes_are_rounded_to_pages_and_from_2_mib_on_to_blocks",
            "what_is_denied_a_heap_call_leaves_everything_as_it_was",
        ],
    ),
    (
        "rm",
        "inspect",
        &[
            "a_map_says_what_every_page_is",
            "a_map_says_what_is_registers_and_what_a_call_at_work_has_taken",
            "any_part_of_a_long_parcel_is_found_in_short_steps",
        ],
    ),
    (
        "rm",
        "lib",
        &[
            "stage2::tests::blocks::scattered_pages_that_were_donated_never_merge",
            "stage2::tests::frames::a_claim_that_finds_no_frame_can_be_taken_back",
            "stage2::tests::frames::a_cut_that_finds_no_frame_changes_nothing",
            "stage2::tests::frames::a_parcel_that_finds_no_frame_to_be_parted_stays_as_it_is",
            "stage2::tests::model::every_history_leaves_tables_records_and_cpus_in_agreement",
        ],
    ),
    (
        "rm",
        "life",
        &[
            "a_donation_that_is_being_accepted_is_decided_when_its_owner_dies",
            "a_vm_may_die_at_every_step_of_every_call",
        ],
    ),
    ("rm", "pitfalls", &["a_range_one_page_short_of_a_block_is_mapped_page_by_page"]),
    (
        "rm",
        "queues",
        &[
            "a_flush_in_the_middle_of_a_reply_drops_all_of_it_and_what_waits_comes",
            "long_requests_and_replies_take_many_packets",
        ],
    ),
    (
        "rm",
        "residency",
        &[
            "g7_an_entry_does_as_much_for_a_gib_in_small_extents_as_for_a_thousand_pages",
            "g7_the_end_of_a_vm_takes_as_much_in_each_step_for_a_gib_as_for_a_thousand_pages",
        ],
    ),
    ("rm", "revoke", &["a_call_that_is_at_work_is_taken_over_wherever_it_stands"]),
    (
        "rm",
        "shared_quotas",
        &[
            "g7_a_vm_that_has_drained_the_shared_frames_changes_nothing_within_a_guarantee",
            "g7_a_vm_that_has_drained_the_shared_parcels_changes_nothing_within_a_guarantee",
            "g7_giving_up_needs_nothing_when_every_frame_and_every_count_is_used_up",
            "g7_records_of_parcels_are_neither_lost_nor_doubled_when_all_vms_take_them_at_once",
        ],
    ),
    (
        "rm",
        "steps",
        &[
            "a_short_call_of_another_vcpu_runs_beside_a_long_one",
            "calls_of_a_stranger_between_the_steps_change_nothing",
            "every_call_ends_without_its_caller",
            "while_an_append_is_at_work_its_parcel_is_busy_and_nobody_elses",
        ],
    ),
    (
        "rm",
        "trim",
        &[
            "a_vm_that_ends_leaves_nothing_of_what_it_trimmed_or_was_trimming",
            "an_uncached_parcel_gives_pages_back_that_are_write_back_and_keep_their_content",
            "between_two_steps_of_an_owners_trim_its_parcel_waits",
            "g2_the_middle_page_of_a_block_comes_home_while_both_sides_stay_mapped",
            "g4_a_refused_trim_changes_nothing",
            "g4_a_trim_without_frames_for_its_cuts_is_refused_on_either_side",
            "g5_a_borrowers_trim_is_taken_over_wherever_it_stands",
        ],
    ),
    ("rm", "trims", ALL),
    ("rm", "unwritten", ALL),
    ("rm", "vectors", ALL),
    (
        "rm",
        "wills",
        &[
            "an_owner_s_is_executed_when_it_takes_the_parcel_away_and_while_others_still_have_it",
            "g7_records_are_paid_for_by_who_sets_them_and_nothing_fails_afterwards",
        ],
    ),
];
/// Tests that are run without [`UNCHECKED`], since they take long.
const LONG: &Named = &[
    (
        "rm",
        "advisories",
        &[
            "linux_391_a_peer_that_rings_without_end_is_heard_once_until_it_is_read",
            "xsa_217_a_page_that_has_moved_on_is_out_of_reach_of_all_who_had_it",
            "xsa_218_of_two_vcpus_that_release_at_once_one_does_and_what_was_to_be_done_is_done_once",
            "xsa_73_vms_copy_between_each_other_s_parcels_at_once_and_none_waits_for_ever",
        ],
    ),
    ("rm", "any_bytes", &["the_corpus_has_every_call_of_the_cells"]),
    (
        "rm",
        "append",
        &[
            "a_parcel_can_be_abandoned_between_appends",
            "a_range_that_lies_in_many_places_of_the_machine_is_offered_piece_by_piece",
            "a_refused_append_leaves_the_parcel_as_it_was",
        ],
    ),
    ("rm", "boot", &["vms_that_cannot_be_told_apart_or_are_none_are_refused"]),
    (
        "rm",
        "cache",
        &[
            "appended_pages_get_the_parcels_policy",
            "g5_zeros_of_an_uncached_parcel_are_in_memory_and_in_the_caches",
        ],
    ),
    (
        "rm",
        "canary",
        &[
            "g5_a_donation_hands_on_what_is_in_it",
            "g5_a_reclaim_with_sanitize_wipes",
            "g5_a_refused_creation_wipes_nothing",
            "g5_a_release_with_sanitize_wipes_at_the_reclaim_and_not_for_another_borrower",
        ],
    ),
    ("rm", "cells", &["no_call_about_a_parcel_is_missing"]),
    (
        "rm",
        "copies",
        &[
            "a_window_lets_a_vm_copy_some_bytes_and_map_nothing",
            "every_segment_has_a_status_of_its_own",
        ],
    ),
    (
        "rm",
        "devices",
        &[
            "a_device_with_short_addresses_is_not_attached_to_what_it_cannot_reach",
            "a_share_that_is_given_up_keeps_what_a_device_wrote",
            "an_owner_that_dies_takes_its_devices_along",
            "devices_that_make_no_sense_do_not_boot",
            "g2_pages_that_the_own_device_has_are_not_lent",
            "g3_a_device_reaches_a_parcel_only_while_it_is_attached_and_mapped",
            "g3_a_vm_that_may_only_copy_has_no_device_attached",
            "g4_calls_that_are_refused_change_nothing",
            "g5_a_device_that_never_stops_writing_reaches_no_page_that_its_vm_has_lost",
            "g6_a_parcel_has_eight_attachments_and_one_of_them_for_each_party",
            "g6_another_vms_device_and_another_vms_parcel_are_refused_as_none",
            "g7_a_table_that_the_vm_does_not_need_makes_room_for_one_of_its_device",
            "g7_tables_of_a_device_are_its_vm_s_and_a_map_without_them_changes_nothing",
            "what_is_trimmed_is_not_mapped_for_a_device",
            "what_the_smmu_refuses_a_device_is_counted_and_told_to_its_vm",
        ],
    ),
    ("rm", "ghost", &["a_history_that_fails_is_made_as_short_as_it_may_be"]),
    (
        "rm",
        "guarantees",
        &[
            "g6_a_handle_is_not_used_again",
            "g7_a_vm_at_its_parcel_quota_changes_nothing_for_another",
        ],
    ),
    (
        "rm",
        "heaps",
        &[
            "a_vm_takes_what_it_may_and_nothing_that_others_are_sure_of",
            "boot_makes_one_of_two_heaps_of_one_name_that_come_at_once",
            "memory_of_a_heap_is_not_given_away",
            "nobody_takes_the_guarantee_of_another_however_he_asks",
        ],
    ),
    (
        "rm",
        "info",
        &[
            "a_list_has_every_parcel_once_whatever_its_parts",
            "thousands_of_parcels_are_listed_in_short_steps_while_calls_go_on",
        ],
    ),
    ("rm", "inspect", &["a_parcel_that_goes_while_it_is_looked_at_ends_the_look"]),
    (
        "rm",
        "lib",
        &[
            "heap::tests::the_marks_of_a_gib_are_made_in_steps_of_bounded_length",
            "stage2::tests::concurrent::a_cpu_that_reads_a_block_never_notices_what_happens_to_its_pages",
            "stage2::tests::concurrent::a_lent_page_is_out_of_reach_of_a_cpu_that_keeps_trying",
            "stage2::tests::frames::a_hold_that_finds_no_frame_undoes_itself",
            "stage2::tests::frames::a_reclaim_needs_no_frame",
            "stage2::tests::frames::mergeable_tables_count_again_when_they_are_used",
            "stage2::tests::order::lending_many_pages_invalidates_once",
            "stage2::tests::part::a_borrowed_block_gives_pages_up_and_leaves_no_table_behind",
            "stage2::tests::part::a_page_of_a_lent_block_comes_home_before_the_others_and_the_block_after_them",
            "stage2::tests::part::a_range_within_leaves_that_are_whole_needs_no_table",
            "stage2::tests::part::a_shared_block_keeps_its_rights_when_it_is_cut_and_a_page_without_gets_them_back",
            "stage2::tests::search::a_full_beginning_is_not_searched_again",
            "stage2::tests::search::a_full_beginning_is_remembered_where_searches_begin",
            "stage2::tests::search::a_run_ends_where_the_machine_pages_or_what_they_are_change",
            "stage2::tests::search::addresses_outside_the_address_space_are_refused_and_absent",
            "stage2::tests::search::every_leaf_is_visited_in_steps_of_any_size",
            "stage2::tests::search::registers_are_neither_room_nor_memory",
            "stage2::tests::search::the_lowest_range_that_fits_is_found_in_steps_of_any_size",
            "stage2::tests::search::there_is_no_room_for_more_than_the_address_space",
            "stage2::tests::search::what_became_free_is_found_again",
        ],
    ),
    (
        "rm",
        "life",
        &[
            "a_vm_dies_with_thousands_of_parcels_and_each_step_is_short",
            "g5_a_dead_owner_s_parcels_are_taken_back_and_zeroed",
            "two_hundred_lives_leave_the_counts_of_the_first",
        ],
    ),
    ("rm", "lookup", &["a_parcel_that_changes_under_the_search_is_not_found"]),
    (
        "rm",
        "notices",
        &[
            "an_offer_of_many_sizes_comes_in_packets_and_whole",
            "an_offer_whose_parcel_goes_is_ended_and_names_no_other_parcel",
            "at_the_limit_the_oldest_unread_news_makes_way",
            "many_targets_are_told_in_steps",
        ],
    ),
    ("rm", "parallel", ALL),
    (
        "rm",
        "pitfalls",
        &[
            "a_page_is_in_one_parcel_once_whatever_the_list",
            "sizes_and_addresses_that_would_wrap_are_refused",
        ],
    ),
    (
        "rm",
        "queues",
        &[
            "a_request_that_finds_no_frames_is_answered",
            "queued_calls_end_the_same_in_steps_of_one_unit",
        ],
    ),
    ("rm", "quotas", &["frames"]),
    (
        "rm",
        "residency",
        &[
            "g7_an_entry_does_as_much_beside_four_thousand_parcels_as_beside_four_hundred",
            "g7_what_is_counted_would_show_work_that_grows",
        ],
    ),
    (
        "rm",
        "revoke",
        &[
            "a_borrower_that_accepts_and_releases_all_the_time_holds_nobody_up",
            "a_recall_lets_nobody_begin_and_everybody_end",
            "a_revocation_whose_parcel_is_reclaimed_meanwhile_has_nothing_left_to_do",
            "a_share_keeps_what_is_in_it",
            "g5_the_owner_takes_a_lend_back_from_all_borrowers_and_gets_zeros",
            "g7_a_borrower_that_accepts_and_releases_for_ever_holds_nobody_up",
            "who_may_not_revoke_is_refused_with_its_code",
        ],
    ),
    ("rm", "schedules", ALL),
    (
        "rm",
        "shared_quotas",
        &[
            "a_long_message_finds_the_frames_that_a_vm_is_guaranteed_in_its_mergeable_tables",
            "boot_refuses_what_it_could_not_keep",
            "g7_a_vm_that_has_drained_the_shared_creations_changes_nothing_within_a_guarantee",
            "g7_a_vm_that_has_drained_the_shared_extents_changes_nothing_within_a_guarantee",
            "g7_a_vm_that_has_drained_the_shared_pages_to_accept_changes_nothing_within_a_guarantee",
            "g7_a_vm_that_has_drained_the_shared_pages_to_lend_changes_nothing_within_a_guarantee",
        ],
    ),
    (
        "rm",
        "steps",
        &[
            "a_handle_is_nobodys_until_its_creation_and_after_its_reclaim_are_decided",
            "a_long_request_beside_a_call_at_work_is_busy_and_leaves_nothing",
            "a_reply_that_its_caller_could_not_take_twice_gives_way_at_once",
            "a_reply_that_its_caller_has_too_little_room_for_waits_until_it_has",
            "a_reply_that_waits_outlives_a_long_call_of_another_vcpu",
            "a_reply_that_waits_outlives_a_short_call_of_another_vcpu",
            "a_reply_whose_caller_does_not_come_gives_way_after_a_second",
            "a_request_whose_pages_are_gone_half_way_is_no_request",
            "a_second_long_call_of_the_same_vm_is_busy",
            "claimed_pages_stay_the_vms_own_until_the_commit",
            "every_call_ends_the_same_in_steps_of_one_unit",
            "the_owner_waits_while_an_accept_or_release_is_at_work",
        ],
    ),
    (
        "rm",
        "trim",
        &[
            "a_lookup_describes_what_is_left",
            "an_unfinished_parcel_and_a_donation_can_be_trimmed_too",
            "g3_who_accepts_later_finds_nothing_in_the_holes",
            "g5_only_what_is_trimmed_is_wiped",
            "g5_what_must_be_zero_at_the_reclaim_is_zero_at_a_trim",
            "holes_that_touch_count_once_and_too_many_are_refused",
        ],
    ),
    (
        "rm",
        "wills",
        &[
            "each_page_has_its_own_and_a_new_one_takes_the_place_of_the_old",
            "g4_who_cannot_have_it_is_refused_with_its_reason",
            "the_byte_is_cleared_and_the_bell_rung_once_however_the_mapping_ends",
            "the_byte_of_an_uncached_parcel_is_cleared_in_memory",
            "the_record_of_a_release_that_is_taken_over_is_executed_once",
            "who_loses_its_part_while_it_says_what_is_to_be_done_then_has_said_nothing",
        ],
    ),
];
/// The check that every value that is copied is one of its type. Without it Miri takes less than half the time, and
/// still sees what is read before it is written, behind its end, after it is freed, beside the writes of another thread.
const UNCHECKED: &str = "-Zmiri-disable-validation";
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

/// Which tests of a program are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All but those that are named here.
    Usual,
    /// Those of [`LONG`].
    Long,
}

/// Tests that are run together: package, program and which of its tests.
type Job = (&'static str, String, Part);

/// Runs the tests of these programs, or of all.
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
    let chosen =
        known.into_iter().filter(|(_, program)| wanted.is_empty() || wanted.contains(program));
    let jobs = chosen.flat_map(|(package, program)| jobs(package, &program));
    // Once, since programs that start beside each other would wait for each other's builds.
    for (package, _) in PACKAGES {
        let mut build = tests(package, Part::Usual);
        ensure!(
            build.args(["--tests", "--no-run"]).status()?.success(),
            "{package} does not build"
        );
    }
    let left = Mutex::new(jobs);
    let ends: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers()).map(|_| scope.spawn(|| work(&left))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
    });
    ends.into_iter().collect::<Result<()>>()?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be run of a program.
fn jobs(package: &'static str, program: &str) -> Vec<Job> {
    let (long, left_out) = (named(LONG, package, program), named(LEFT_OUT, package, program));
    let mut jobs = vec![];
    if long.is_some() {
        jobs.push((package, program.to_owned(), Part::Long));
    }
    if long != Some(ALL) && left_out != Some(ALL) {
        jobs.push((package, program.to_owned(), Part::Usual));
    }
    jobs
}

/// The tests of a program in a list, if it is there.
fn named(list: &Named, package: &str, program: &str) -> Option<&'static [&'static str]> {
    list.iter().find(|(of, name, _)| (*of, *name) == (package, program)).map(|(.., tests)| *tests)
}

/// Runs jobs, one after the other, until none is left or one fails.
fn work(left: &Mutex<impl Iterator<Item = Job>>) -> Result<()> {
    loop {
        let next = left.lock().expect("no worker panics").next();
        let Some((package, program, part)) = next else { return Ok(()) };
        let title = match part {
            Part::Usual => format!("{package} {program}"),
            Part::Long => format!("{package} {program}, what takes long"),
        };
        progress("Testing", &title);
        let begun = Instant::now();
        let Output { status, stdout, stderr } = test(package, &program, part)?;
        let mut out = io::stdout().lock();
        write!(out, "\n{title}, {} s", begun.elapsed().as_secs())?;
        out.write_all(&stdout)?;
        if !status.success() {
            io::stderr().write_all(&stderr)?;
            left.lock().expect("no worker panics").by_ref().for_each(drop);
            bail!("{title} fails under Miri");
        }
    }
}

/// How many programs are run beside each other. Each takes a core and, at the most, half a GiB.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// Runs a part of a program's tests.
fn test(package: &str, program: &str, part: Part) -> Result<Output> {
    let mut tests = tests(package, part);
    match program {
        INSIDE => tests.arg("--lib"),
        program => tests.args(["--test", program]),
    };
    tests.arg("--");
    let (long, left_out) = (named(LONG, package, program), named(LEFT_OUT, package, program));
    if part == Part::Long {
        tests.args(long.unwrap_or(ALL));
    }
    let also = if part == Part::Usual { long } else { None };
    for name in left_out.into_iter().chain(also).flatten() {
        tests.args(["--skip", name]);
    }
    tests.output().context("rustup could not be started")
}

/// Tests of a package under Miri.
fn tests(package: &str, part: Part) -> Command {
    let mut tests = miri();
    tests.args(["test", "--quiet", "--package", package]);
    tests.env("CARGO_TARGET_DIR", workspace().join("target/miri"));
    let unchecked = if part == Part::Long { UNCHECKED } else { "" };
    tests.env("MIRIFLAGS", format!("{FLAGS} {unchecked} -Zmiri-env-set=PROPTEST_CASES={CASES}"));
    // A backtrace that is not printed would be most of the work of a test that panics.
    tests.env("RUST_BACKTRACE", "0");
    tests
}

/// All programs of tests: package and name.
fn programs() -> Result<Vec<(&'static str, String)>> {
    let mut programs = vec![];
    for (package, folder) in PACKAGES {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(workspace().join(folder).join("tests"))? {
            let path = entry?.path();
            if let (Some(stem), Some("rs")) =
                (path.file_stem(), path.extension().and_then(|e| e.to_str()))
            {
                names.insert(stem.to_string_lossy().into_owned());
            }
        }
        // The longest first, so that nobody waits for it alone.
        programs.push((package, INSIDE.to_owned()));
        programs.extend(names.into_iter().map(|name| (package, name)));
    }
    Ok(programs)
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
        for (package, program, tests) in LEFT_OUT.iter().chain(LONG) {
            assert!(programs.contains(&(*package, (*program).to_owned())), "{program}");
            let (_, folder) = PACKAGES.iter().find(|(known, _)| known == package).unwrap();
            for test in *tests {
                let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
                let source = match *program {
                    INSIDE => format!("{folder}/src/{}.rs", module.replace("::", "/")),
                    program => format!("{folder}/tests/{program}.rs"),
                };
                let text = fs::read_to_string(workspace().join(&source)).unwrap_or_default();
                // Some are made by a macro, which gets their name.
                let is_there = match name {
                    "" => text.contains("#[test]"),
                    name => [format!("fn {name}("), format!("{name}: ")]
                        .iter()
                        .any(|n| text.contains(n)),
                };
                assert!(is_there, "{source} has no test {name}");
            }
        }
    }

    #[test]
    fn what_is_run_is_run_once() {
        for list in [LEFT_OUT, LONG] {
            for (at, (package, program, _)) in list.iter().enumerate() {
                let others = list[..at].iter();
                let twice = others.filter(|(of, name, _)| (of, name) == (package, program)).count();
                assert_eq!(twice, 0, "{program} is named twice");
            }
        }
        for (package, program, long) in LONG {
            let left_out = named(LEFT_OUT, package, program).unwrap_or(&[]);
            assert!(!long.iter().any(|name| left_out.contains(name)), "{program}");
            assert!(*long != ALL || left_out != ALL || named(LEFT_OUT, package, program).is_none());
        }
    }
}
