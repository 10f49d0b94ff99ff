//! Links each board's bin with its script.

fn main() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker");
    println!("cargo:rerun-if-changed={scripts}");
    println!("cargo:rustc-link-arg-bins=-L{scripts}");
    println!("cargo:rustc-link-arg-bin=qemu-virt=-T{scripts}/qemu-virt.ld");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    // Firmware may run the image on a Cortex-A53, whose ADRP can go wrong at the end of a page.
    println!("cargo:rustc-link-arg-bins=--fix-cortex-a53-843419");
}
