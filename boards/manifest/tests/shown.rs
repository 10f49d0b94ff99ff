//! What `check` prints of a manifest.

mod common;

use std::path::Path;
use std::{env, fs};

use common::{FULL, read};

#[test]
fn tables_and_picture_are_those_that_were_read_by_people() {
    let manifest = read(FULL).unwrap_or_else(|report| panic!("{report}"));
    let now = format!("{}\n{}", manifest.tables(), manifest.picture());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/full.txt");
    if env::var_os("RM_BLESS").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let then = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        now == then,
        "{} differs (RM_BLESS=1 writes it anew); it is now\n{now}",
        file.display()
    );
}
