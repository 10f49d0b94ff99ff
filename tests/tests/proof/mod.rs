//! Whether a test or a scenario that a table names exists.

use std::fs;

use qemu::build::workspace;
use qemu::scenario;

/// What is wrong with a proof.
pub(crate) fn doubt(proof: &str) -> Option<String> {
    if let Some(name) = proof.strip_prefix("scenario ") {
        return scenario::named(name).err().map(|error| error.to_string());
    }
    let Some((path, test)) = proof.split_once("::") else {
        return Some(format!("{proof:?} is neither a test nor a scenario"));
    };
    let Ok(source) = fs::read_to_string(workspace().join(path)) else {
        return Some(format!("there is no file {path}"));
    };
    (!is_test(&source, test)).then(|| format!("{path} has no test {test}"))
}

/// Whether a source has a function of this name that is a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_head = |line: &str| {
        line.strip_prefix("fn ").is_some_and(|rest| rest.split('(').next() == Some(name))
    };
    lines.iter().enumerate().any(|(index, line)| {
        let marks = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        is_head(line) && marks.into_iter().any(|mark| *mark == "#[test]")
    })
}
