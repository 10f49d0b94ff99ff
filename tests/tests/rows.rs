//! `ROWS.md` is true: every row is there and has a proof, and every proof exists.

use std::fs;

use qemu::build::workspace;
use tests::proof::{doubt, quoted};

/// The rows that there must be.
fn wanted() -> Vec<u32> {
    (1..=47).collect()
}

/// A line of the table: its number, and the cells with proofs.
struct Row {
    number: u32,
    proofs: Vec<String>,
}

fn rows(table: &str) -> Vec<Row> {
    table.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    let proofs = cells.skip(1).flat_map(quoted).collect();
    Some(Row { number, proofs })
}

fn table() -> String {
    let file = workspace().join("tests/ROWS.md");
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn every_row_is_there_once_and_has_a_proof() {
    let rows = rows(&table());
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, wanted());
    let bare: Vec<_> = rows.iter().filter(|row| row.proofs.is_empty()).collect();
    assert!(
        bare.is_empty(),
        "without a proof: {:?}",
        bare.iter().map(|r| r.number).collect::<Vec<_>>()
    );
}

#[test]
fn every_proof_exists() {
    let doubts: Vec<_> = rows(&table())
        .iter()
        .flat_map(|row| row.proofs.iter().filter_map(|proof| Some((row.number, doubt(proof)?))))
        .map(|(number, doubt)| format!("row {number}: {doubt}"))
        .collect();
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
}

#[test]
fn a_row_is_read_cell_by_cell() {
    let rows = rows("| row | what |\n|---|---|\n| 7 | x | `a::b` `scenario c` | none |\n");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].number, &rows[0].proofs[..]),
        (7, &["a::b".to_owned(), "scenario c".into()][..])
    );
}
