//! Proofs that a document names: that they exist is what its test looks for.
//!
//! A proof is a test of a file (`path::test`) or a scenario between VMs (`scenario name`).

use std::fs;

use qemu::build::workspace;
use qemu::scenario;

/// What stands between backticks in a cell of a table.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What is wrong with a proof.
pub fn doubt(proof: &str) -> Option<String> {
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

/// Whether a source has a function of this name that is a test, or a scene of which `scenes!` makes one.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_head = |line: &str| {
        line.strip_prefix("fn ").is_some_and(|rest| rest.split('(').next() == Some(name))
    };
    let scene = format!("{name}: \"");
    let mut scenes = lines.iter().skip_while(|line| **line != "scenes! {");
    if scenes.any(|line| line.starts_with(&scene)) {
        return true;
    }
    lines.iter().enumerate().any(|(index, line)| {
        let marks = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        is_head(line) && marks.into_iter().any(|mark| *mark == "#[test]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_does_not_exist_is_noticed() {
        for proof in [
            "rm/tests/rows.rs::no_file",
            "tests/tests/rows.rs::no_test",
            "tests/tests/rows.rs::wanted",
            "scenario dmeo",
            "a sentence",
        ] {
            assert!(doubt(proof).is_some(), "{proof}");
        }
        assert_eq!(doubt("tests/tests/rows.rs::every_proof_exists"), None);
        assert_eq!(doubt("scenario demo"), None);
    }
}
