//! The standard library for the target: from rustup, or built from Debian's copy of its source.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{debian, output};
use crate::build::{TARGET, cargo, workspace};
use crate::print::progress;

/// The crates that an image links.
const LIBRARIES: [&str; 3] = ["core", "alloc", "compiler_builtins"];

/// The folder of the target's libraries, if they are there.
pub(super) fn find() -> Result<String> {
    let folder = folder()?;
    ensure!(is_complete(&folder), "{TARGET} is missing; type: rustup target add {TARGET}");
    Ok(format!("{TARGET} ({})", rustc_version()?))
}

pub(super) fn ensure() -> Result<()> {
    let Err(missing) = find() else { return Ok(()) };
    if let Some(reason) = debian::cannot_write(&sysroot()?) {
        return Err(missing.context(reason));
    }
    progress("Installing", &format!("compiler target {TARGET} (once)"));
    let mut rustup = Command::new("rustup");
    let added = rustup.args(["target", "add", TARGET]).current_dir(workspace()).status();
    if added.is_ok_and(|status| status.success()) && find().is_ok() {
        return Ok(());
    }
    progress("Building", "the target's libraries from Debian's source package instead");
    build_from_source().context(missing)?;
    find().map(drop)
}

fn rustc(arguments: &[&str]) -> Result<String> {
    output(Command::new("rustc").args(arguments).current_dir(workspace()))
        .with_context(|| format!("rustc {} fails", arguments.join(" ")))
}

fn folder() -> Result<PathBuf> {
    Ok(rustc(&["--print", "target-libdir", "--target", TARGET])?.trim_end().into())
}

fn sysroot() -> Result<PathBuf> {
    Ok(rustc(&["--print", "sysroot"])?.trim_end().into())
}

/// "1.95.0" out of "rustc 1.95.0 (hash date)".
fn rustc_version() -> Result<String> {
    let text = rustc(&["--version"])?;
    Ok(text.split_whitespace().nth(1).context("rustc has no version")?.to_owned())
}

fn is_complete(folder: &Path) -> bool {
    LIBRARIES.iter().all(|library| libraries(folder, library).next().is_some())
}

/// The files `lib<name>-<hash>.rlib` of a folder.
fn libraries(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let prefix = format!("lib{name}-");
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    files.filter(move |path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
        name.starts_with(&prefix) && name.ends_with(".rlib")
    })
}

/// Compiles the libraries from the source of the very same compiler version and puts them where the
/// compiler looks for them, so that later builds need nothing special.
fn build_from_source() -> Result<()> {
    let version = rustc_version()?;
    let work = workspace().join("target/doctor");
    let source = debian::rust_source(&version, &work.join("apt"))?;
    let library = sysroot()?.join("lib/rustlib/src/rust/library");
    if !library.join("Cargo.lock").exists() {
        debian::copy(&source, &library)?;
    }
    let built = compile(&work.join("empty"))?;
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    for name in LIBRARIES {
        let from = libraries(&built, name).next().with_context(|| format!("no lib{name}"))?;
        fs::copy(&from, folder.join(from.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Builds an empty program together with the libraries; gives the folder that holds them.
fn compile(project: &Path) -> Result<PathBuf> {
    // An earlier attempt's libraries would lie beside the new ones.
    let _ = fs::remove_dir_all(project);
    fs::create_dir_all(project.join("src"))?;
    // The empty [workspace] keeps this project out of the one whose target folder it lies in.
    let manifest = "[package]\nname = \"empty\"\nedition = \"2024\"\n\n[lib]\n\n[workspace]\n";
    fs::write(project.join("Cargo.toml"), manifest)?;
    fs::write(project.join("src/lib.rs"), "#![no_std]\n")?;
    let mut cargo = cargo();
    cargo.current_dir(project).env("RUSTC_BOOTSTRAP", "1");
    // The image profile optimises across crates, libraries included, which needs their bitcode.
    cargo.env("RUSTFLAGS", "-Cembed-bitcode=yes");
    cargo.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--target-dir",
        "target",
        "-Zbuild-std=core,alloc,compiler_builtins",
        "-Zbuild-std-features=compiler-builtins-mem",
    ]);
    if !cargo.status().is_ok_and(|status| status.success()) {
        bail!("the target's libraries could not be built; cargo says why above");
    }
    Ok(project.join("target").join(TARGET).join("release/deps"))
}
