//! Where the programs of a manifest come from: files, and the project's own guests, built when one is
//! named.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::Path;

use manifest::{Folder, NoGuest, Sources};

use crate::build::{self, Profile, Programs};

/// Files beside a manifest, and the programs of the crate `guests`.
#[derive(Debug)]
pub struct Project {
    folder: Folder,
    profile: Profile,
    programs: OnceCell<Result<Programs, String>>,
}

impl Project {
    /// For the manifest at that path. Its guests are built with this profile, if it names any.
    pub fn new(manifest: &Path, profile: Profile) -> Self {
        Self { folder: Folder::of(manifest), profile, programs: OnceCell::new() }
    }

    fn programs(&self) -> &Result<Programs, String> {
        self.programs
            .get_or_init(|| build::programs(self.profile).map_err(|error| format!("{error:#}")))
    }
}

impl Sources for Project {
    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.folder.file(path)
    }

    fn guest(&self, name: &str) -> Result<Vec<u8>, NoGuest> {
        let programs = self.programs().as_ref().map_err(|error| NoGuest::Failed(error.clone()))?;
        // The hypervisors come from the same build.
        let guests = || programs.names().filter(|name| boards::named(name).is_none());
        if !guests().any(|guest| guest == name) {
            return Err(NoGuest::Unknown(guests().map(str::to_owned).collect()));
        }
        let path = programs.path(name).map_err(|error| NoGuest::Failed(error.to_string()))?;
        fs::read(path).map_err(|error| NoGuest::Failed(error.to_string()))
    }
}
