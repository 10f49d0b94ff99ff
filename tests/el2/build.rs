//! Links the programs as a board's image: they take the hypervisor's place.

fn main() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../../linker");
    println!("cargo:rerun-if-changed={scripts}");
    println!("cargo:rustc-link-arg-bins=-L{scripts}");
    println!("cargo:rustc-link-arg-bins=-T{scripts}/qemu-virt.ld");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rustc-link-arg-bins=--build-id=sha1");
    println!("cargo:rustc-link-arg-bins=--fix-cortex-a53-843419");
}
