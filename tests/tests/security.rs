//! `SECURITY.md` is true: every guarantee has its tests, and those that are named exist.

use std::fs;

use qemu::build::workspace;
use tests::proof::{doubt, quoted};

fn text(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap()
}

#[test]
fn every_guarantee_is_mapped_to_tests_that_exist() {
    let page = text("tests/SECURITY.md");
    let guarantees = text("rm/src/lib.rs");
    let numbers: Vec<_> = guarantees
        .lines()
        .filter_map(|line| Some(line.strip_prefix("//! * **")?.split_once("**")?.0))
        .filter(|name| name.starts_with('G'))
        .collect();
    assert_eq!(numbers.len(), 8);
    for guarantee in numbers {
        let row = page.lines().find(|line| line.starts_with(&format!("| {guarantee} |")));
        let row = row.unwrap_or_else(|| panic!("{guarantee} has no row"));
        let proofs = quoted(row);
        assert!(proofs.len() > 1, "{guarantee} has {proofs:?}");
        let doubts: Vec<_> = proofs.iter().filter_map(|proof| doubt(proof)).collect();
        assert!(doubts.is_empty(), "{guarantee}: {doubts:?}");
    }
    let scenarios = quoted(&page).into_iter().filter(|proof| proof.starts_with("scenario "));
    let doubts: Vec<_> = scenarios.filter_map(|scenario| doubt(&scenario)).collect();
    assert!(doubts.is_empty(), "{doubts:?}");
}

#[test]
fn who_looks_for_it_at_the_front_finds_the_way() {
    assert!(text("README.md").contains("(tests/SECURITY.md)"));
    assert!(text("tests/SECURITY.md").contains("*Report a vulnerability*"));
}
