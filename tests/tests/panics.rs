//! `PANICS.md` is true: `rm` can panic nowhere but where it says, and why no VM gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use package::Board;
use qemu::build::{self, Profile, workspace};
use tests::panics::{self, Place};
use tests::proof::quoted;

/// Reasons that many places have in common, and for each file the places with theirs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Document {
    reasons: BTreeSet<String>,
    files: BTreeMap<String, Vec<Entry>>,
}

/// Places of a file that have one reason.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// One of the common reasons; `None` if it is said here.
    reason: Option<String>,
    texts: Vec<String>,
}

fn read(text: &str) -> Document {
    let mut document = Document::default();
    let mut file = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            file = Some(name.to_owned());
        } else if let (None, Some(rest)) = (&file, line.strip_prefix("* **")) {
            document.reasons.extend(rest.split_once("**").map(|(name, _)| name.to_owned()));
        } else if let (Some(file), Some(rest)) = (&file, line.strip_prefix("* ")) {
            let common = rest.strip_prefix("**").and_then(|rest| rest.split_once("**"));
            let said = rest.split_once("`: ").is_some_and(|(_, why)| why.len() > 10);
            assert!(common.is_some() || said, "{file}: no reason in {line:?}");
            let reason = common.map(|(name, _)| name.to_owned());
            let places = rest.split_once("`: ").filter(|_| common.is_none());
            let places = places.map_or(rest.to_owned(), |(places, _)| format!("{places}`"));
            let entry = Entry { reason, texts: quoted(&places) };
            document.files.entry(file.clone()).or_default().push(entry);
        }
    }
    document
}

fn document() -> Document {
    read(&fs::read_to_string(workspace().join("tests/PANICS.md")).unwrap())
}

/// The texts of all places of `rm` and of the crate that decodes for it, by file.
fn found() -> BTreeMap<String, BTreeSet<String>> {
    let programs = build::programs(Profile::Image).expect("the programs can be built");
    let of_a_board = |board: Board| {
        let path = programs.path(board.name()).expect("each board has its program");
        panics::places(path, "rm/").expect("the program can be read")
    };
    let places: BTreeSet<Place> = boards::ids().flat_map(of_a_board).collect();
    assert!(places.len() > 100, "what is looked for is there: {}", places.len());
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for place in places {
        let source = fs::read_to_string(workspace().join(&place.file)).unwrap();
        let text = place.text(&source).unwrap_or_else(|| panic!("there is no {place:?}"));
        found.entry(place.file).or_default().insert(text);
    }
    found
}

#[test]
fn g7_every_place_where_the_manager_could_panic_is_known() {
    let document = document();
    let mut unknown = String::new();
    for (file, texts) in found() {
        let entries = document.files.get(&file).map_or(&[][..], Vec::as_slice);
        let known: BTreeSet<_> = entries.iter().flat_map(|entry| &entry.texts).collect();
        for text in texts.iter().filter(|text| !known.contains(text)) {
            let _ = writeln!(unknown, "### {file}\n* `{text}`: ");
        }
    }
    assert!(unknown.is_empty(), "say in tests/PANICS.md why no VM gets there:\n{unknown}");
}

#[test]
fn nothing_is_explained_that_is_not_there() {
    let document = document();
    let mut used = BTreeSet::new();
    for (file, entries) in &document.files {
        let source = fs::read_to_string(workspace().join(file)).unwrap();
        let lines: Vec<_> = source.lines().map(str::trim).collect();
        let is_there = |text: &str| {
            let (head, behind) = text.split_once("!(").unwrap_or((text, ""));
            let split = |(at, line): (usize, &&str)| {
                line.ends_with(&format!("{head}!(")) && lines.get(at + 1) == Some(&behind)
            };
            lines.iter().any(|line| line.ends_with(text)) || lines.iter().enumerate().any(split)
        };
        for entry in entries {
            for text in &entry.texts {
                assert!(is_there(text), "{file} has no {text:?} any more");
            }
            used.extend(entry.reason.clone());
        }
    }
    assert_eq!(used, document.reasons, "reasons that are given and that are explained");
}

#[test]
fn a_document_is_read_line_by_line() {
    let text = "* **acl** why\n### a.rs\n* **acl** `x[i]` `y`\n* `panic!()`: since it is not so\n";
    let document = read(text);
    assert_eq!(document.reasons, BTreeSet::from(["acl".to_owned()]));
    let common = Entry { reason: Some("acl".into()), texts: vec!["x[i]".into(), "y".into()] };
    let own = Entry { reason: None, texts: vec!["panic!()".into()] };
    assert_eq!(document.files["a.rs"], [common, own]);
}
