//! Links each board's bin with its script, which has the same name.

use std::fs;

fn main() {
    let root = env!("CARGO_MANIFEST_DIR");
    let scripts = format!("{root}/../linker");
    println!("cargo:rerun-if-changed={scripts}");
    println!("cargo:rerun-if-changed=src/bin");
    // A library for the host has nothing to link.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-L{scripts}");
    let bins = fs::read_dir(format!("{root}/src/bin")).expect("the bins lie in src/bin");
    for bin in bins.filter_map(Result::ok) {
        let name = bin.file_name().to_string_lossy().replace(".rs", "");
        println!("cargo:rustc-link-arg-bin={name}=-T{scripts}/{name}.ld");
    }
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rustc-link-arg-bins=--build-id=sha1");
    // Firmware may run the image on a Cortex-A53, whose ADRP can go wrong at the end of a page.
    println!("cargo:rustc-link-arg-bins=--fix-cortex-a53-843419");
}
