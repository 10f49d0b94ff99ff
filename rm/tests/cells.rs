//! Every cell: a parcel in every state, every call about it, made by a VM in every role.
//!
//! `cells.txt` has one table for each role: a row for each state, or for several that are the same to this
//! role, a column for each call with or without a flag, and in each cell what the call is answered. A call that is refused must change nothing that anybody
//! could see; one that is done must change what `stage/calls.rs` says that it changes, and nothing else
//! that is in a [`View`](stage::picture::View). Afterwards every VM ends, and everything must be where boot put it.
//! `RM_BLESS=1` writes the tables anew, for a reader to judge.

mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rm::machine::fake::effort::few;
use rm_abi::extension::{CALLS as EXTENSIONS, KNOWN_CALLS, Rule};
use rm_abi::message;
use stage::calls::{CALLS, Call, Effect};
use stage::set::Stage;
use stage::states::{STATES, State};
use stage::{Outcome, Role, make};

const TABLE: &str = include_str!("cells.txt");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cells.txt");
/// A call that is done, and one whose VM has another one at work.
const DONE: char = '.';
const BUSY: char = '#';
/// In this state a VM in this role cannot call.
const GONE: char = '-';

/// What the letters mean: error word and rule.
fn legend() -> BTreeMap<char, (u32, u16)> {
    let rules: BTreeMap<_, _> = Rule::ALL.iter().map(|rule| (format!("{rule:?}"), *rule)).collect();
    let line = |line: &str| {
        let mut words = line.strip_prefix("= ")?.split_whitespace();
        let letter = words.next()?.chars().next()?;
        let code = u32::from_str_radix(words.next()?, 16).expect("a code is hexadecimal");
        let name = words.next()?;
        let rule = rules.get(name).unwrap_or_else(|| panic!("no rule {name}"));
        Some((letter, (code, *rule as u16)))
    };
    TABLE.lines().filter_map(line).collect()
}

/// The letters of the tables, by role, state and call, in rows that are wanted.
fn expected(is_wanted: impl Fn(&str, &str) -> bool) -> BTreeMap<(String, String, String), char> {
    let mut cells = BTreeMap::new();
    for table in TABLE.split("\n## ").skip(1) {
        let (role, rows) = table.split_once("\n\n").expect("a table has a name");
        let (calls, rows) = rows.split_once('\n').expect("a table has rows");
        let calls: Vec<_> = calls.split_whitespace().skip(2).collect();
        let mut states = vec![];
        for line in rows.lines().filter(|line| !line.is_empty()) {
            let (state, letters) = line.split_once('|').map_or((line, None), |(s, l)| (s, Some(l)));
            states.push(state.trim());
            let Some(letters) = letters else { continue };
            states.retain(|state| is_wanted(role, state));
            if states.is_empty() {
                continue;
            }
            let letters: Vec<_> = letters.split_whitespace().collect();
            assert_eq!(letters.len(), calls.len(), "{role}, {state}: a cell for each call");
            for state in states.drain(..) {
                for (call, letter) in calls.iter().zip(&letters) {
                    let cell = [role, state, call].map(str::to_owned);
                    let twice = cells.insert(cell.into(), letter.chars().next().expect("a letter"));
                    assert!(twice.is_none(), "{role}, {state}, {call} is there twice");
                }
            }
        }
        assert!(states.is_empty(), "{role}: {states:?} have no cells");
    }
    cells
}

/// Makes the call of a cell. The stage is used up if it was done.
fn play(stage: Stage, state: &State, call: &Call, role: Role) -> (Outcome, Option<Stage>) {
    let cell = format!("{}, {}, {}", role.name(), state.name, call.name);
    let outcome = make(&stage.scene.caller(role), &(call.request)(&stage.scene, role));
    if !matches!(outcome, Outcome::Done(_)) || call.effect == Effect::None {
        stage.check_unchanged(&format!("{cell}: {outcome:?}"));
        return (outcome, Some(stage));
    }
    stage.check_done(call.effect, role, &cell);
    stage.strike(&cell, call.name.len() > 1);
    (outcome, None)
}

/// Under Miri one cell in so many is played; it shares no factor with what the cells are counted by.
const STRIDE: usize = 7919;

fn is_played((table, row, column): (usize, usize, usize)) -> bool {
    ((row * Role::ALL.len() + table) * CALLS.len() + column).is_multiple_of(few(1, STRIDE))
}

#[test]
fn g4_every_call_in_every_state_by_everybody_is_answered_as_the_table_says() {
    let legend = legend();
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Done(_) => DONE,
        Outcome::Busy => BUSY,
        Outcome::NoMemory => panic!("nothing has run out"),
        Outcome::Refused(code, rule) => {
            let known = legend.iter().find(|(_, meaning)| **meaning == (*code, *rule));
            *known.unwrap_or_else(|| panic!("no letter for {code:#x}, rule {rule}")).0
        }
    };
    let mut found: BTreeMap<(usize, usize, usize), char> = BTreeMap::new();
    let (mut done, mut refused) = (0, 0);
    for (row, state) in STATES.iter().enumerate() {
        let mut made = None;
        for (table, role) in Role::ALL.into_iter().enumerate() {
            for (column, call) in CALLS.iter().enumerate() {
                let cell = (table, row, column);
                if !is_played(cell) {
                    continue;
                }
                let stage = made.take().unwrap_or_else(|| Stage::new(state));
                if !stage.scene.runs(role) {
                    made = Some(stage);
                    found.insert(cell, GONE);
                    continue;
                }
                let (outcome, left) = play(stage, state, call, role);
                made = left;
                found.insert(cell, letter(&outcome));
                if matches!(outcome, Outcome::Done(_)) { done += 1 } else { refused += 1 }
            }
        }
        // Under Miri most states have no cell that is played.
        if made.is_some() || !cfg!(miri) {
            made.unwrap_or_else(|| Stage::new(state)).strike(state.name, true);
        }
    }
    let all = STATES.len() * CALLS.len() * Role::ALL.len();
    assert_eq!(found.len(), all.div_ceil(few(1, STRIDE)));
    println!(
        "cells: {} states, {} calls, {} roles: {} cells, {done} done, {refused} refused",
        STATES.len(),
        CALLS.len(),
        Role::ALL.len(),
        done + refused
    );
    if std::env::var_os("RM_BLESS").is_some() {
        std::fs::write(PATH, write(&found)).expect("the table can be written");
        return;
    }
    // Under Miri it takes minutes to read all rows.
    let rows = found.keys().map(|&(table, row, _)| (Role::ALL[table].name(), STATES[row].name));
    let rows: BTreeSet<_> = rows.collect();
    let expected = expected(|role, state| !cfg!(miri) || rows.contains(&(role, state)));
    let mut wrong = vec![];
    for (&(table, row, column), &is) in &found {
        let (role, state, call) = (Role::ALL[table].name(), STATES[row].name, CALLS[column].name);
        let cell = (role.to_owned(), state.to_owned(), call.to_owned());
        let said = expected.get(&cell);
        if said != Some(&is) {
            wrong.push(format!("{role}, {state}, {call}: {is:?}, and the table says {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cfg!(miri) || expected.len() == all, "the table has cells that do not exist");
}

/// The tables with these letters, under the file's head.
fn write(found: &BTreeMap<(usize, usize, usize), char>) -> String {
    let head = TABLE.split("\n## ").next().expect("there is a head");
    let mut text = head.trim_end().to_owned() + "\n";
    for (table, role) in Role::ALL.iter().enumerate() {
        write!(text, "\n## {}\n\n{:<18}|", role.name(), "state").unwrap();
        for call in CALLS {
            write!(text, " {}", call.name).unwrap();
        }
        // States that are the same to this role have one row.
        let mut rows: Vec<(String, Vec<&str>)> = vec![];
        for (row, state) in STATES.iter().enumerate() {
            let mut letters = String::new();
            for (column, call) in CALLS.iter().enumerate() {
                let width = call.name.len();
                write!(letters, " {:<width$}", found[&(table, row, column)]).unwrap();
            }
            let letters = letters.trim_end().to_owned();
            match rows.iter_mut().find(|(other, _)| *other == letters) {
                Some((_, states)) => states.push(state.name),
                None => rows.push((letters, vec![state.name])),
            }
        }
        for (letters, states) in rows {
            let (last, others) = states.split_last().expect("a row has a state");
            others.iter().for_each(|state| write!(text, "\n{state}").unwrap());
            write!(text, "\n{last:<18}|{letters}").unwrap();
        }
        text.push('\n');
    }
    text
}

/// The calls that are not about one parcel, and so in no cell.
const NOT_ABOUT_A_PARCEL: &[u32] = &[
    rm_abi::extension::DISCOVER,
    rm_abi::extension::LAST_REFUSAL,
    rm_abi::extension::SUBSCRIBE,
    rm_abi::extension::LIMITS,
    rm_abi::extension::VMS,
    rm_abi::extension::COUNTERS,
    rm_abi::extension::LEAF,
    rm_abi::extension::HEAP,
    rm_abi::extension::HEAP_ALLOC,
    rm_abi::extension::HEAP_FREE,
    rm_abi::extension::DEVICES,
];

#[test]
fn no_call_about_a_parcel_is_missing() {
    let scene = (STATES[0].make)();
    let made: Vec<_> = CALLS.iter().map(|call| (call.request)(&scene, Role::Owner).0).collect();
    let gunyah = [
        message::MEM_DONATE,
        message::MEM_LEND,
        message::MEM_SHARE,
        message::MEM_APPEND,
        message::MEM_ACCEPT,
        message::MEM_RELEASE,
        message::MEM_RECLAIM,
        message::MEM_NOTIFY,
        message::MEM_LOOKUP,
    ];
    let known = (0..64).filter(|n| KNOWN_CALLS >> n & 1 != 0).map(|n| EXTENSIONS + n);
    for call in known.chain(gunyah) {
        let times = made.iter().filter(|&&other| other == call).count();
        let apart = NOT_ABOUT_A_PARCEL.contains(&call);
        assert!(apart != (times > 0), "{call:#x} is in {times} columns, and apart: {apart}");
    }
}
