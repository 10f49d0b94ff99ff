//! `ADVISORIES.md` is true: every class is there, with a test that exists or the reason why it cannot apply.

use std::fs;

use qemu::build::workspace;
use tests::proof::doubt;

/// The classes that there must be, by the advisories that they are known by.
const WANTED: &[&str] = &[
    "XSA-18",
    "XSA-26",
    "XSA-73",
    "XSA-134, 232",
    "XSA-217",
    "XSA-218",
    "XSA-222",
    "XSA-224",
    "XSA-226, 318, 411, 501",
    "XSA-227",
    "XSA-228, 235",
    "XSA-230",
    "XSA-234",
    "XSA-236",
    "XSA-255, 268, 379, 384, 387, 486",
    "XSA-284",
    "XSA-295",
    "XSA-316",
    "XSA-380",
    "XSA-382",
    "XSA-393",
    "XSA-394",
    "XSA-402",
    "XSA-480",
    "XSA-493",
    "XSA-500",
    "XSA-361, 362, 365",
    "XSA-396",
    "XSA-391",
    "XSA-403",
];

/// A line of the table: the class, and what it says of it.
fn classes(table: &str) -> Vec<(String, String)> {
    let class = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.to_owned();
        name.starts_with("XSA").then(|| (name, cells.collect::<Vec<_>>().join(" | ")))
    };
    table.lines().filter_map(class).collect()
}

/// What is wrong with a line.
fn wrong(said: &str) -> Option<String> {
    let proofs: Vec<_> = said.split('`').skip(1).step_by(2).collect();
    if proofs.is_empty() && !said.contains("Cannot apply:") && !said.contains("Open:") {
        return Some("neither a proof nor a reason".to_owned());
    }
    proofs.into_iter().find_map(doubt)
}

fn table() -> String {
    let file = workspace().join("tests/ADVISORIES.md");
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn every_class_is_there_once_with_a_proof_that_exists_or_a_reason() {
    let classes = classes(&table());
    let names: Vec<_> = classes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, WANTED);
    let doubts: Vec<_> = classes
        .iter()
        .filter_map(|(name, said)| Some(format!("{name}: {}", wrong(said)?)))
        .collect();
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
}

#[test]
fn a_line_without_proof_or_reason_is_noticed() {
    assert!(wrong("a cause | what is here").is_some());
    assert!(wrong("a cause | `rm/tests/none.rs::none`").is_some());
    assert_eq!(wrong("a cause | Cannot apply: there is none"), None);
    assert_eq!(wrong("a cause | `scenario demo`"), None);
}
