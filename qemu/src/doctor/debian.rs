//! Debian's packages: QEMU, and the source of the standard library where rustup's server does not
//! answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::output;

const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";
/// The project's own entry beside it.
const BACKPORTS: &str = "/etc/apt/sources.list.d/rm-backports.sources";
/// Packages that hold the source of the standard library.
const SOURCE_PACKAGES: [&str; 2] = ["rust-src", "rust-web-src"];

pub(super) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

/// Whether packages may be installed without asking: as root only.
pub(super) fn may_install() -> bool {
    is_debian() && rustix::process::geteuid().is_root()
}

/// Why this user may not change a folder, if so.
pub(super) fn cannot_write(folder: &Path) -> Option<String> {
    let probe = folder.join(".rm-doctor");
    match fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)) {
        Ok(()) => None,
        Err(error) => Some(format!("{} belongs to somebody else: {error}", folder.display())),
    }
}

/// Installs QEMU: from the backports, where it is newer, else what the release has.
pub(super) fn install_qemu() -> Result<()> {
    let install = ["install", "-y", "--no-install-recommends"];
    let suite = codename().map(|name| format!("{name}-backports"));
    if let Some(suite) = suite
        && add_backports(&suite).is_ok()
        && apt(&["update"]).is_ok()
        && apt(&[&install[..], &["-t", &suite, "qemu-system-arm"]].concat()).is_ok()
    {
        return Ok(());
    }
    apt(&["update"])?;
    apt(&[&install[..], &["qemu-system-arm"]].concat())
}

/// Installs a compiler of C++.
pub(super) fn install_cxx() -> Result<()> {
    apt(&["update"])?;
    apt(&["install", "-y", "--no-install-recommends", "g++"])
}

/// Adds the backports of the release, unless the machine knows them already.
fn add_backports(suite: &str) -> Result<()> {
    let known = output(Command::new("apt-cache").arg("policy"));
    if !known.is_some_and(|known| known.contains(suite)) {
        fs::write(BACKPORTS, stanza(suite)?)?;
    }
    Ok(())
}

/// The machine's first source of packages, for another suite. The mirror stays the one that is
/// known to answer.
fn stanza(suite: &str) -> Result<String> {
    let sources = fs::read_to_string(SOURCES).with_context(|| format!("cannot read {SOURCES}"))?;
    Ok(with_suite(&sources, suite))
}

fn with_suite(sources: &str, suite: &str) -> String {
    let first = sources.lines().skip_while(|line| line.trim().is_empty());
    let first = first.take_while(|line| !line.trim().is_empty());
    let changed = first.map(|line| match line.split_once(':') {
        Some(("Suites", _)) => format!("Suites: {suite}\n"),
        _ => format!("{line}\n"),
    });
    changed.collect()
}

fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    if !apt.status().is_ok_and(|status| status.success()) {
        bail!("apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The folder `library` of the source of this compiler version. Packages are downloaded with an apt
/// state of our own, which leaves the machine's alone and needs no rights.
pub(super) fn rust_source(version: &str, work: &Path) -> Result<PathBuf> {
    for folder in ["state/lists/partial", "cache/archives/partial", "unpacked"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let suites = suites().map(|suite| stanza(&suite)).collect::<Result<Vec<_>>>()?;
    fs::write(work.join("list.sources"), suites.join("\n"))?;
    fs::write(work.join("apt.conf"), private_state(work))?;
    // A suite that does not exist (yet) makes `update` fail after it has read the others.
    let _ = private(work, "apt-get").args(["-q", "update"]).status();
    let versions = output(private(work, "apt-cache").arg("madison").args(SOURCE_PACKAGES))
        .context("apt-cache does not answer")?;
    let package = choose(&versions, version)
        .with_context(|| format!("Debian has no source package of Rust {version}"))?;
    unpack(&package, work)
}

fn unpack(package: &str, work: &Path) -> Result<PathBuf> {
    let run = |command: &mut Command| match command.status() {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("{command:?} failed"),
    };
    for file in packages(work) {
        fs::remove_file(file)?;
    }
    run(private(work, "apt-get").args(["-q", "download", package]).current_dir(work))?;
    let file = packages(work).next().context("apt-get has downloaded nothing")?;
    let to = work.join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&to))?;
    // Excerpts for tests of the compiler are called `library` too, but have no lock file.
    let found = output(Command::new("find").arg(&to).args(["-path", "*/library/Cargo.lock"]));
    let found = found.context("the package cannot be searched")?;
    let lock = Path::new(found.lines().next().context("the package has no library")?);
    Ok(lock.parent().context("the package has no library")?.to_owned())
}

fn packages(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
}

/// Where the source may be: the release and its backports, and the next release's, which are the
/// first to get a new compiler.
fn suites() -> impl Iterator<Item = String> {
    let own = codename().unwrap_or_else(|| "stable".into());
    let next = if own == "bookworm" { "trixie" } else { "forky" };
    let backports = |release: &str| format!("{release}-backports");
    [own.clone(), backports(&own), backports(next)].into_iter()
}

/// An apt configuration whose state, lists and cache lie in one folder.
fn private_state(work: &Path) -> String {
    let work = work.display();
    format!(
        "Dir::State \"{work}/state\";\nDir::State::status \"/var/lib/dpkg/status\";\n\
         Dir::Cache \"{work}/cache\";\nDir::Etc::sourcelist \"{work}/list.sources\";\n\
         Dir::Etc::sourceparts \"-\";\n"
    )
}

fn private(work: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("APT_CONFIG", work.join("apt.conf"));
    command
}

/// `package=version` of the source of this compiler, out of `apt-cache madison`.
fn choose(versions: &str, wanted: &str) -> Option<String> {
    versions.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (package, version) = (columns.next()?, columns.next()?);
        let same = version.strip_prefix(wanted)?.starts_with(['+', '-', '~']);
        same.then(|| format!("{package}={version}"))
    })
}

/// Copies everything in a folder into another, which may have some of it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("cannot copy {} to {}", from.display(), to.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_come_from_the_same_mirror() {
        let sources = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main\n\nTypes: deb\nURIs: http://mirror/security\n";
        let expected = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\n\
                        Components: main\n";
        assert_eq!(with_suite(sources, "bookworm-backports"), expected);
    }

    #[test]
    fn only_the_very_same_compiler_version_will_do() {
        let versions = "  rust-src | 1.96.1+dfsg1-2 | http://m Packages\n  \
                        rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://m Packages\n";
        assert_eq!(choose(versions, "1.95.0").unwrap(), "rust-src=1.95.0+dfsg1-2~bpo13+1");
        assert_eq!(choose(versions, "1.9"), None);
        assert_eq!(choose(versions, "1.94.0"), None);
    }
}
