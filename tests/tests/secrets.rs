//! The program `secrets` asks every question there is: no call of the ABI is forgotten.

use std::collections::BTreeSet;
use std::fs;

use guests::questions::{ELSEWHERE, Named, QUESTIONS};
use qemu::build::workspace;

/// A call's name and its message id.
type Call = (String, u32);

fn text(file: &str) -> String {
    let file = workspace().join("rm/abi/src").join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The constants of a source, each with what it is.
fn constants(source: &str) -> impl Iterator<Item = (&str, &str)> {
    source.lines().filter_map(|line| {
        line.strip_prefix("pub const ")?.strip_suffix(';')?.split_once(": u32 = ")
    })
}

/// The calls of the original's protocol; what is sent by the manager alone has another range.
fn original(source: &str) -> Vec<Call> {
    let call = |(name, value): (&str, &str)| {
        let id = u32::from_str_radix(&value.strip_prefix("0x")?.replace('_', ""), 16).ok()?;
        (id >> 20 & 0xf == 0).then(|| (name.to_owned(), id))
    };
    constants(source).filter_map(call).collect()
}

/// The extension calls.
fn extension(source: &str) -> Vec<Call> {
    let call = |(name, value): (&str, &str)| {
        let number =
            if value == "CALLS" { 0 } else { value.strip_prefix("CALLS + ")?.parse().ok()? };
        Some((name.to_owned(), rm_abi::extension::CALLS + number))
    };
    constants(source).filter_map(call).collect()
}

fn calls() -> Vec<Call> {
    [original(&text("message.rs")), extension(&text("extension.rs"))].concat()
}

fn asked() -> BTreeSet<u32> {
    QUESTIONS.iter().map(|question| question.call).collect()
}

#[test]
fn every_call_is_asked_or_there_is_a_reason_why_not() {
    let asked = asked();
    let excused: BTreeSet<u32> = ELSEWHERE.iter().map(|(call, _)| *call).collect();
    assert_eq!(excused.len(), ELSEWHERE.len(), "a call is excused twice");
    assert!(ELSEWHERE.iter().all(|(_, reason)| !reason.is_empty()));
    let calls = calls();
    let known: BTreeSet<u32> = calls.iter().map(|(_, id)| *id).collect();
    let served = (0..64).filter(|number| rm_abi::extension::KNOWN_CALLS >> number & 1 != 0);
    assert!(served.clone().all(|number| known.contains(&(rm_abi::extension::CALLS + number))));
    let wrong: Vec<_> = calls
        .iter()
        .filter(|(_, id)| asked.contains(id) == excused.contains(id))
        .map(|(name, id)| format!("{name} ({id:#x})"))
        .collect();
    assert!(wrong.is_empty(), "asked and excused, or neither: {wrong:?}");
    let unknown: Vec<_> = asked.union(&excused).filter(|id| !known.contains(id)).collect();
    assert!(unknown.is_empty(), "no call of the ABI: {unknown:x?}");
}

/// The requests of the table of extension calls: name of the call, and of the request's type.
fn requests(source: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("//! | `CALLS + ")?.split(" | ").skip(1);
        let [call, request] = [cells.next()?, cells.next()?];
        let bare = |cell: &str| Some(cell.strip_prefix("[`")?.strip_suffix("`]")?.to_owned());
        Some((bare(call)?, bare(request)?))
    };
    source.lines().filter_map(row).collect()
}

/// Whether the documented layout of a type, or of what its list consists of, has a handle.
fn has_handle(sources: &[String], name: &str) -> bool {
    let head = format!("pub struct {name} ");
    let Some((before, _)) = sources.iter().find_map(|source| source.split_once(&head)) else {
        panic!("no type is called {name}")
    };
    let documentation = before.rsplit("\n\n").next().unwrap_or_default();
    let layout = documentation.split("/// ```").nth(1).unwrap_or_default();
    layout.contains("handle") || layout.contains("segments") && has_handle(sources, "CopySegment")
}

#[test]
fn every_extension_call_with_a_handle_is_asked_with_one() {
    let table = text("extension.rs");
    let sources = ["device", "grant", "heap", "inspect", "limits", "parcel", "policy", "trim"]
        .map(|file| text(&format!("extension/{file}.rs")));
    let sources = [&sources[..], std::slice::from_ref(&table)].concat();
    let ids = extension(&table);
    let requests = requests(&table);
    assert!(requests.len() >= 20, "{requests:?}");
    let mut with_handle = 0;
    for (call, request) in requests {
        let (_, id) = ids.iter().find(|(name, _)| *name == call).expect("it has an id");
        let asked = QUESTIONS
            .iter()
            .any(|question| question.call == *id && question.named == Named::Parcel);
        let has = has_handle(&sources, &request);
        assert!(!has || asked, "{call} takes a handle and is not asked with one");
        assert!(has || !asked, "{call} is asked with a handle and takes none");
        with_handle += usize::from(has);
    }
    assert!(with_handle >= 14, "only {with_handle} calls take a handle");
}

#[test]
fn questions_have_names_of_their_own() {
    let names: BTreeSet<_> = QUESTIONS.iter().map(|question| question.name).collect();
    assert_eq!(names.len(), QUESTIONS.len());
}
