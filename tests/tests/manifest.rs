//! A user's own file, from its first line to the verdict.

use std::fs;
use std::path::Path;

use qemu::build::{self, Profile, workspace};
use qemu::doctor;
use qemu::image::assemble;
use qemu::launch::Prepared;
use qemu::print::Printer;
use qemu::scenario::{self, Scenario};
use qemu::sources::Project;

/// What the two programs that share and EL2 must say.
const SHARING: &[&str] = &["my partner has accepted it", "it answered 42", "conservation holds"];
/// What those that allocate from heaps must.
const HEAPS: &[&str] = &[
    "heap system: 40 MiB",
    "buffers of 1024 KiB from the same heap are zero",
    "I still get my 4 MiB",
    "conservation holds",
];

/// Boots the example of two programs that share with another beginning, which names the board.
fn boot(name: &str, beginning: &str) {
    boot_example("sharing.toml", name, beginning, SHARING);
}

fn boot_example(example: &str, name: &str, beginning: &str, log: &'static [&'static str]) {
    let tools = doctor::ensure().unwrap();
    let file = workspace().join("boards/manifest/examples").join(example);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("board = \"qemu-virt\""));
    let text = text.replace("board = \"qemu-virt\"", beginning);
    let manifest = manifest::parse(&file, &text, &Project::new(&file, Profile::Check));
    let manifest = manifest.unwrap_or_else(|report| panic!("{report}"));
    let scenario = scenario::manifest::of(&manifest, name);
    let scenario = Scenario { log, ..scenario };
    if let Some(reason) = tools.lacks(&scenario.machine) {
        return eprintln!("{name} is skipped: {reason}");
    }
    let programs = build::programs(Profile::Check).unwrap();
    let program = programs.path(&scenario.el2_program()).unwrap().to_owned();
    let image = assemble(&program, manifest.into_writer([0; 16])).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifest").join(name);
    let prepared = Prepared::of(&scenario, program, image, folder).unwrap();
    let outcome = prepared.run(&tools.qemu, &mut |_| {}).unwrap();
    let printer = Printer::plain(scenario.vm_names());
    let lines: Vec<_> = outcome.lines.iter().map(|line| printer.format(line)).collect();
    assert!(outcome.judgement.is_ok(), "{:?}\n{}", outcome.judgement, lines.join("\n"));
}

#[test]
fn two_programs_of_a_manifest_share_under_a_gicv3() {
    boot("gicv3", "board = \"qemu-virt\"");
}

#[test]
fn two_programs_of_a_manifest_share_under_a_gicv2() {
    boot("gicv2", "board = \"qemu-virt\"\ngic = 2");
}

#[test]
fn two_programs_of_a_manifest_share_on_a_zcu102() {
    boot("zcu102", "board = \"zcu102\"");
}

#[test]
fn two_programs_of_a_manifest_share_on_a_raspberry_pi() {
    boot("rpi4", "board = \"rpi4\"");
}

#[test]
fn two_programs_of_a_manifest_allocate_from_its_heaps() {
    boot_example("heaps.toml", "heaps", "board = \"qemu-virt\"", HEAPS);
}
