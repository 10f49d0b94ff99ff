//! `mutations.toml` and `MUTATIONS.md` are true: each mistake can be made, and a test is named that exists.
//!
//! Whether that test notices it is what `cargo run -- mutate` finds out, which takes long.

use std::collections::BTreeSet;
use std::fs;

use qemu::build::workspace;
use qemu::mutation::{self, TABLE};
use tests::proof::doubt;

fn table() -> String {
    fs::read_to_string(workspace().join(TABLE)).unwrap()
}

#[test]
fn every_mistake_can_still_be_made() {
    let mutations = mutation::list(workspace()).unwrap();
    let broken: Vec<_> = mutations.iter().filter_map(|m| m.applied_in(workspace()).err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn mistakes_have_names_of_their_own_and_break_a_guarantee() {
    let mutations = mutation::list(workspace()).unwrap();
    let names: BTreeSet<_> = mutations.iter().map(|m| &m.name).collect();
    assert_eq!(names.len(), mutations.len());
    for number in 1..=8 {
        let guarantee = format!("G{number}");
        assert!(mutations.iter().any(|m| m.guarantee == guarantee), "none breaks {guarantee}");
    }
}

#[test]
fn the_table_is_that_of_the_list() {
    let mutations = mutation::list(workspace()).unwrap();
    let expected = mutation::table(&mutations, &mutation::catchers(&table()));
    assert!(table() == expected, "`cargo run -- mutate --write` writes it anew");
}

#[test]
fn every_mistake_is_noticed_by_a_test_that_exists() {
    let catchers = mutation::catchers(&table());
    let doubts: Vec<_> = catchers
        .iter()
        .filter_map(|(name, test)| Some(format!("{name}: {}", doubt(test)?)))
        .collect();
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
}
