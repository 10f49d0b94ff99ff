//! `PITFALLS.md` is true: all mistakes of others are there, each with a test that exists.

use std::fs;

use qemu::build::workspace;
use tests::proof::{doubt, quoted};

/// Number, what the mistake is, and its proofs.
fn row(line: &str) -> Option<(u32, String, Vec<String>)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    Some((number, cells.next()?.to_owned(), quoted(cells.next()?)))
}

#[test]
fn every_mistake_has_a_test_that_exists() {
    let page = fs::read_to_string(workspace().join("tests/PITFALLS.md")).unwrap();
    let rows: Vec<_> = page.lines().filter_map(row).collect();
    let numbers: Vec<_> = rows.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=52).collect::<Vec<_>>());
    let mut doubts = Vec::new();
    for (number, mistake, proofs) in rows {
        assert!(mistake.len() > 20, "{number} says nothing");
        assert!(!proofs.is_empty(), "{number} has no test");
        doubts
            .extend(proofs.iter().filter_map(|proof| Some(format!("{number}: {}", doubt(proof)?))));
    }
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
}
