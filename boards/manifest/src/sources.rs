//! Where programs come from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files and programs that a manifest names.
pub trait Sources {
    /// The file at a path that counts from the folder of the manifest.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn file(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The ELF file of one of the project's own guest programs.
    ///
    /// # Errors
    ///
    /// There is none of that name, or none at all.
    fn guest(&self, name: &str) -> Result<Vec<u8>, NoGuest>;
}

/// Why there is no such guest program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGuest {
    /// There are others: these.
    Unknown(Vec<String>),
    /// None can be had.
    Failed(String),
}

/// Files from a folder, and no guest programs.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of a manifest.
    pub fn of(manifest: &Path) -> Self {
        Self(manifest.parent().unwrap_or(Path::new("")).to_owned())
    }
}

impl Sources for Folder {
    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.0.join(path);
        // A device or pipe would never end.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        fs::read(path)
    }

    fn guest(&self, _name: &str) -> Result<Vec<u8>, NoGuest> {
        Err(NoGuest::Failed("only files can be had here".into()))
    }
}
