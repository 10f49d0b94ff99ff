//! `boards/PORTING.md` is true: its blocks, applied to a copy of the sources, give an image for the board,
//! and a tool that knows it.
//!
//! A block's first line says what it is: the language and a file that the block is, or `diff` and a
//! file that the block changes. Of a change, lines with a blank in front are found in the file in this
//! order, `+` adds behind what was found last, `-` takes away, and `@@` says that something is left out.

use std::fs;
use std::path::{Path, PathBuf};

use qemu::build::{TARGET, cargo, workspace};
use qemu::elf;

/// A block of the page.
#[derive(Debug)]
struct Block {
    file: String,
    is_change: bool,
    lines: Vec<String>,
}

/// The blocks of a page that name a file.
fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(block), None) => block.lines.push(line.to_owned()),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(head)) => {
                let (language, file) = head.split_once(' ').unwrap_or((head, ""));
                let (file, is_change) = (file.to_owned(), language == "diff");
                open = Some(Block { file, is_change, lines: Vec::new() });
            }
            (None, None) => {}
        }
    }
    found.into_iter().filter(|block| !block.file.is_empty()).collect()
}

/// The file's text after a change.
fn change(text: &str, lines: &[String]) -> Result<String, String> {
    let mut file: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut at = 0;
    for line in lines.iter().filter(|line| !line.starts_with("@@")) {
        let (mark, rest) = line.split_at_checked(1).unwrap_or((" ", ""));
        if mark == "+" {
            file.insert(at, rest.to_owned());
            at += 1;
            continue;
        }
        let found = file[at..].iter().position(|other| other == rest);
        at += found.ok_or_else(|| format!("there is no line {rest:?} from line {} on", at + 1))?;
        match mark {
            "-" => drop(file.remove(at)),
            _ => at += 1,
        }
    }
    Ok(file.join("\n") + "\n")
}

/// A copy of the sources, without what was built, replacing that of an earlier run.
fn copy_of_the_sources(to: &Path) {
    let _ = fs::remove_dir_all(to);
    copy(workspace(), to);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the scratch folder can be made");
    for entry in fs::read_dir(from).expect("the sources can be listed").filter_map(Result::ok) {
        let (name, path) = (entry.file_name(), entry.path());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match name.to_str() {
            Some("target" | ".git") => {}
            _ if is_folder => copy(&path, &to.join(name)),
            _ => drop(fs::copy(&path, to.join(name)).expect("a source can be copied")),
        }
    }
}

fn apply(blocks: &[Block], tree: &Path) {
    for block in blocks {
        let path = tree.join(&block.file);
        let text = if block.is_change {
            let text = fs::read_to_string(&path).expect("a file that is changed exists");
            change(&text, &block.lines).unwrap_or_else(|why| panic!("{}: {why}", block.file))
        } else {
            assert!(!path.exists(), "{} is there already", block.file);
            block.lines.join("\n") + "\n"
        };
        fs::write(path, text).expect("the scratch folder can be written");
    }
}

/// Runs cargo in the copy. It has a folder of its own for what is built: cargo tells the crates of two
/// workspaces apart by their place below the root, and would give those of the copy to the original.
fn run_cargo(tree: &Path, target: &Path, arguments: &[&str]) {
    let mut cargo = cargo();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", target).args(arguments).arg("--offline");
    let output = cargo.output().expect("cargo can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?} in {}:\n{said}", tree.display());
}

fn page() -> String {
    fs::read_to_string(workspace().join("boards/PORTING.md")).expect("the page is there")
}

#[test]
fn the_board_of_the_walk_through_can_be_built_and_is_known_to_the_tool() {
    let blocks = blocks(&page());
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("porting");
    let (tree, target) = (scratch.join("tree"), scratch.join("target"));
    copy_of_the_sources(&tree);
    apply(&blocks, &tree);
    let build = ["build", "--quiet", "--package", "boards", "--bin", "plank-one"];
    let how = ["--target", TARGET, "--profile", "image-check"];
    run_cargo(&tree, &target, &[&build[..], &how].concat());
    let image = target.join(TARGET).join("image-check/plank-one");
    let image = elf::flatten(&image).expect("the program can be laid out");
    assert_eq!(image.bytes[56..60], *b"ARM\x64", "the arm64 header's mark");
    // What lays out cards and what reads manifests, with one more board in their tables.
    run_cargo(&tree, &target, &["check", "--quiet", "--package", "flash", "--package", "manifest"]);
    let _ = fs::remove_dir_all(&tree);
}

#[test]
fn the_walk_through_is_as_short_as_it_says() {
    let blocks = blocks(&page());
    let new: Vec<_> = blocks.iter().filter(|block| !block.is_change).collect();
    let for_el2 = blocks.iter().filter(|block| !block.file.contains("flash")).count();
    assert_eq!((new.len(), for_el2), (3, 4), "three new files, and lines in one list");
}

#[test]
fn a_change_that_does_not_fit_is_refused() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let text = "one\ntwo\nthree\n";
    let both = change(text, &lines(" one\n-two\n+2\n@@\n three\n+four"));
    assert_eq!(both.as_deref(), Ok("one\n2\nthree\nfour\n"));
    assert!(change(text, &lines(" three\n two")).is_err(), "not in this order");
    assert!(change(text, &lines("-five")).is_err());
}

#[test]
fn blocks_without_a_file_are_left_alone() {
    let found =
        blocks("```sh\nls\n```\ntext\n```rust a.rs\nfn a() {}\n```\n```diff b.rs\n+x\n```\n");
    let files: Vec<_> = found.iter().map(|block| (block.file.as_str(), block.is_change)).collect();
    assert_eq!(files, [("a.rs", false), ("b.rs", true)]);
    assert_eq!(found[0].lines, ["fn a() {}"]);
}
