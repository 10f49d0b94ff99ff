//! Mistakes for the tests of `rm` to find.
//!
//! A test that passes says little; that it fails when something is wrong says what it is worth. Each
//! mutation of `tests/mutations.toml` replaces one text of one source by another, and is made in a copy of the
//! workspace, so the sources themselves are never touched.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use toml::de::DeTable;

/// Where the mutations are, from the workspace's root.
const LIST: &str = "tests/mutations.toml";
/// Where it is said which test noticed them.
pub const TABLE: &str = "tests/MUTATIONS.md";

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its name.
    pub name: String,
    /// The source, from the workspace's root.
    pub file: String,
    /// The guarantee that is broken.
    pub guarantee: String,
    /// What is wrong.
    pub mistake: String,
    /// What comes of it.
    pub breaks: String,
    old: String,
    new: String,
}

/// The mutations of a workspace.
pub fn list(workspace: &Path) -> Result<Vec<Mutation>> {
    let file = workspace.join(LIST);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {LIST}"))?;
    parse(&text).with_context(|| format!("{LIST} cannot be understood"))
}

fn parse(text: &str) -> Result<Vec<Mutation>> {
    let table = DeTable::parse(text)?;
    let entries = table.get_ref().get("mutation").and_then(|list| list.get_ref().as_array());
    let entries = entries.context("there is no list of mutations")?;
    let mutations = entries.iter().map(|entry| {
        let entry = entry.get_ref().as_table().context("a mutation is a table")?;
        let text = |key: &str| -> Result<String> {
            let value = entry.get(key).and_then(|value| value.get_ref().as_str());
            Ok(value.with_context(|| format!("a mutation has no text `{key}`"))?.to_owned())
        };
        Ok(Mutation {
            name: text("name")?,
            file: text("file")?,
            guarantee: text("guarantee")?,
            mistake: text("mistake")?,
            breaks: text("breaks")?,
            old: text("old")?,
            new: text("new")?,
        })
    });
    mutations.collect()
}

impl Mutation {
    /// The source with the mistake in it.
    pub fn apply(&self, source: &str) -> Result<String> {
        let found = source.matches(&*self.old).count();
        ensure!(found == 1, "{}: its old text is {found} times in {}", self.name, self.file);
        ensure!(self.old != self.new, "{} changes nothing", self.name);
        Ok(source.replacen(&*self.old, &self.new, 1))
    }

    /// The source of a workspace with the mistake in it.
    pub fn applied_in(&self, workspace: &Path) -> Result<String> {
        let source = fs::read_to_string(workspace.join(&self.file));
        self.apply(&source.with_context(|| format!("{}: no file {}", self.name, self.file))?)
    }
}

/// Which test noticed each mutation, as the table in the docs says; a test is `path::name`.
pub type Catchers = BTreeMap<String, String>;

/// What a table says.
pub fn catchers(table: &str) -> Catchers {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('`');
        let name = cells.next()?.to_owned();
        Some((name, cells.nth_back(1)?.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

/// The table, with a row for each mutation.
pub fn table(mutations: &[Mutation], catchers: &Catchers) -> String {
    let mut table = String::from(HEAD);
    for Mutation { name, file, guarantee, mistake, breaks, .. } in mutations {
        let catcher = catchers.get(name).map_or("nothing", String::as_str);
        let _ = writeln!(
            table,
            "| `{name}` | {guarantee} | {file} | {mistake}: {breaks} | `{catcher}` |"
        );
    }
    table
}

const HEAD: &str = "\
# Mistakes that the tests notice

Each row is a mistake that somebody could make in `rm`, and the test that fails because of it. `cargo run -- mutate` makes
them one at a time in a copy of the sources under `target/` and runs the tests of `rm` until one fails; a mistake that none
notices is an error. A test that does not end has noticed it, too. `cargo run -- mutate
<text>` does it for those whose name contains the text. The list itself is [mutations.toml](mutations.toml); this table is
written by `cargo run -- mutate --write`, and `cargo test --package tests --test mutations` fails when it is not that of the
list, when a mistake can no longer be made because its place has changed, or when a test named here does not exist.

| mistake | guarantee | file | what is wrong, and what comes of it | noticed by |
|---|---|---|---|---|
";

/// A copy of the workspace to make mistakes in. Files that are the same stay untouched, so cargo builds again
/// only what changed.
#[derive(Debug)]
pub struct Copy {
    from: PathBuf,
    to: PathBuf,
}

impl Copy {
    /// Brings the copy in folder `to` up to date.
    pub fn new(from: &Path, to: PathBuf) -> Result<Self> {
        mirror(from, &to, &|name| name == "target" || name == ".git")?;
        Ok(Self { from: from.to_owned(), to })
    }

    /// The copy's root.
    pub fn root(&self) -> &Path {
        &self.to
    }

    /// Makes one mistake.
    pub fn make(&self, mutation: &Mutation) -> Result<()> {
        write(&self.to.join(&mutation.file), mutation.applied_in(&self.from)?.as_bytes())
    }

    /// Puts right what [`Copy::make`] has done.
    pub fn put_right(&self, mutation: &Mutation) -> Result<()> {
        let source = fs::read(self.from.join(&mutation.file))?;
        write(&self.to.join(&mutation.file), &source)
    }
}

/// Makes one folder like another. `skip` tells what at its top is left out.
fn mirror(from: &Path, to: &Path, skip: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| anyhow!("a name is no text"))?;
        if skip(&name) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            mirror(&entry.path(), &target, &|_| false)?;
        } else {
            write(&target, &fs::read(entry.path())?)?;
        }
        names.push(name);
    }
    // What was there in an earlier copy would be built, too.
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let known = entry.file_name().to_str().is_some_and(|name| names.iter().any(|n| n == name));
        if !known {
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
    }
    Ok(())
}

fn write(file: &Path, contents: &[u8]) -> Result<()> {
    match fs::read(file) {
        Ok(present) if present == contents => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => bail!("{}: {error}", file.display()),
        _ => {}
    }
    fs::write(file, contents).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation() -> Mutation {
        let text = "[[mutation]]\nname = 'a'\nfile = 'f'\nguarantee = 'G1'\nmistake = 'm'\nbreaks = 'b'\n\
                    old = '''\nx\n'''\nnew = ''";
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn a_mistake_is_made_where_its_place_is_found_once() {
        assert_eq!(mutation().apply("w\nx\ny\n").unwrap(), "w\ny\n");
        for source in ["w\n", "x\nx\n"] {
            assert!(mutation().apply(source).is_err(), "{source:?}");
        }
        assert!(Mutation { new: "x\n".into(), ..mutation() }.apply("x\n").is_err());
    }

    #[test]
    fn what_is_missing_in_the_list_is_said() {
        let error = parse("[[mutation]]\nname = 'a'").unwrap_err();
        assert_eq!(error.to_string(), "a mutation has no text `file`");
        assert!(parse("").is_err() && parse("mutation = 1").is_err() && parse("[").is_err());
    }

    #[test]
    fn the_table_tells_again_what_was_written_to_it() {
        let known = Catchers::from([("a".to_owned(), "rm/tests/x.rs::y".to_owned())]);
        assert_eq!(catchers(&table(&[mutation()], &known)), known);
        let nobody = Catchers::from([("a".to_owned(), "nothing".to_owned())]);
        assert_eq!(catchers(&table(&[mutation()], &Catchers::new())), nobody);
    }

    #[test]
    fn a_copy_follows_its_original_and_takes_a_mistake_alone() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (from.path(), to.path());
        fs::create_dir_all(from.join("target/debug")).unwrap();
        fs::create_dir(from.join("d")).unwrap();
        for (file, text) in [("f", "x\n"), ("d/g", "1"), ("gone", "2")] {
            fs::write(from.join(file), text).unwrap();
        }
        let copy = Copy::new(from, to.to_owned()).unwrap();
        let changed = |file: &str| fs::metadata(to.join(file)).unwrap().modified().unwrap();
        let before = changed("d/g");
        fs::remove_file(from.join("gone")).unwrap();
        Copy::new(from, to.to_owned()).unwrap();
        assert_eq!(changed("d/g"), before);
        assert!(!to.join("gone").exists() && !to.join("target").exists());
        copy.make(&mutation()).unwrap();
        assert_eq!(fs::read(to.join("f")).unwrap(), b"");
        assert_eq!(fs::read(from.join("f")).unwrap(), b"x\n");
        copy.put_right(&mutation()).unwrap();
        assert_eq!(fs::read(to.join("f")).unwrap(), b"x\n");
    }
}
