//! `cargo run -- check`: reads a manifest and shows what would be built.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use manifest::Manifest;

use crate::build::Profile;
use crate::print::{self, progress};
use crate::sources::Project;

/// Shows tables and a picture of the memory, or all that is wrong. Writes device trees where the user
/// wants them.
pub fn run(path: &Path, device_trees: Option<&Path>) -> Result<ExitCode> {
    show(path, device_trees, &mut io::stdout())
}

fn show(path: &Path, device_trees: Option<&Path>, to: &mut dyn Write) -> Result<ExitCode> {
    let manifest = match manifest::load_with(path, &Project::new(path, Profile::Image)) {
        Ok(manifest) => manifest,
        Err(report) => {
            let colours = print::wants_colour(io::stderr().is_terminal());
            eprintln!("{}", report.render(colours));
            return Ok(ExitCode::FAILURE);
        }
    };
    // A reader that has gone away (`| head`) is no reason to panic.
    let _ = writeln!(to, "{}\n{}", manifest.tables(), manifest.picture());
    match device_trees {
        Some(folder) => write_trees(&manifest, folder)?,
        None => progress("Fine", "`--device-trees <folder>` writes the device trees of the VMs"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a `.dtb` file for each VM that has a tree.
fn write_trees(manifest: &Manifest, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (index, vm) in manifest.vms().iter().enumerate() {
        let Some(tree) = &vm.device_tree else { continue };
        let file = folder.join(file_name(index, &vm.name));
        fs::write(&file, tree).with_context(|| format!("cannot write {}", file.display()))?;
        progress("Wrote", &file.display().to_string());
    }
    Ok(())
}

/// A name that stays in the folder, whatever the VM is called, and that no two VMs share.
fn file_name(index: usize, vm: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    format!("{index}-{}.dtb", vm.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_stays_in_its_folder_whatever_its_vm_is_called() {
        assert_eq!(file_name(0, "linux"), "0-linux.dtb");
        assert_eq!(file_name(1, "../a/b"), "1-___a_b.dtb");
    }

    #[test]
    fn trees_are_written_as_the_package_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(folder.path().join("raw"), [0; 64]).unwrap();
        let vm = "[[vm]]\nname = \"a\"\nvmid = 1\nmemory = \"2M\"\nprogram = \"raw\"\n";
        fs::write(&file, format!("board = \"qemu-virt\"\n{vm}")).unwrap();
        let trees = folder.path().join("trees");
        let mut shown = Vec::new();
        assert_eq!(show(&file, Some(&trees), &mut shown).unwrap(), ExitCode::SUCCESS);
        let manifest = manifest::load(&file).unwrap_or_else(|report| panic!("{report}"));
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains(&manifest.tables()) && shown.contains("What a sees"), "{shown}");
        let written = fs::read(trees.join("0-a.dtb")).unwrap();
        assert_eq!(Some(&written), manifest.vms()[0].device_tree.as_ref());
    }

    #[test]
    fn a_manifest_with_mistakes_fails() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, "board = \"qemu\"").unwrap();
        let mut shown = Vec::new();
        assert_eq!(show(&file, None, &mut shown).unwrap(), ExitCode::FAILURE);
        assert!(shown.is_empty());
    }
}
