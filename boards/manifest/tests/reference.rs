//! The reference and the examples say what the reader does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use manifest::keys::{SECTIONS, Section};
use manifest::{Manifest, NoGuest, Sources, load_with};
use package::{OnFault, Package, Quotas, Roles, Start};
use rm::memparcel::MAX_HANDLES;

mod common;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The tables of keys in the reference: name, type and default of each row.
fn tables() -> Vec<Vec<[String; 3]>> {
    let text = fs::read_to_string(folder().join("MANIFEST.md")).unwrap();
    let (mut tables, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        if line == "| key | type | default | meaning |" {
            tables.push(Vec::new());
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, kind, default, meaning] = cells[..] else { panic!("{line}") };
            assert!(meaning.len() > 10, "{line}");
            let row = [name.trim_matches('`'), kind, default].map(str::to_owned);
            tables.last_mut().unwrap().push(row);
        }
    }
    tables
}

#[test]
fn the_reference_lists_every_key_with_its_type_and_default() {
    let rows = |section: &&Section| {
        let rows = section.keys.iter();
        rows.map(|key| [key.name, key.kind.text(), key.default].map(str::to_owned)).collect()
    };
    let wanted: Vec<Vec<_>> = SECTIONS.iter().map(rows).collect();
    assert_eq!(tables(), wanted);
}

#[test]
fn the_quotas_of_the_reference_are_the_usual_ones() {
    let table = tables().remove(5);
    let both = |of: fn(&package::Amounts) -> u64| {
        format!("{} and {}", of(&Quotas::USUAL.guaranteed), of(&Quotas::USUAL.limit))
    };
    let usual = [
        both(|of| of.parcels.into()),
        both(|of| of.extents.into()),
        both(|of| of.unfinished.into()),
        both(|of| of.unread.into()),
        both(|of| of.frames.into()),
        both(|of| of.pages_lent),
        both(|of| of.pages_accepted),
    ];
    let said: Vec<_> = table.into_iter().map(|[_, _, default]| default).collect();
    assert_eq!(said, usual);
    let text = fs::read_to_string(folder().join("MANIFEST.md")).unwrap();
    let parcels = format!("the limits of all VMs together are at most {MAX_HANDLES} |");
    let unread = format!("the limit at most {} |", rm::quota::Quotas::MAX_UNREAD);
    let frames = format!("at least {} guaranteed |", rm::quota::Quotas::MIN_FRAMES);
    assert!([parcels, unread, frames].iter().all(|bound| text.contains(bound)));
}

/// The files that users bring along.
struct Brought;

impl Sources for Brought {
    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        match path {
            "Image" => Ok(common::kernel()),
            "rootfs.cpio.gz" => Ok(vec![1; 100_000]),
            "service.elf" => Ok(common::elf(0x4008_0000, 0x4008_0000)),
            "guest.bin" | "hello.bin" => Ok(vec![2; 5000]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn guest(&self, name: &str) -> Result<Vec<u8>, NoGuest> {
        // A program of this repository has a file of its name.
        let file = folder().join(format!("../../tests/guests/src/bin/{name}.rs"));
        if file.is_file() {
            return Ok(common::elf(0x4008_0000, 0x4008_0000));
        }
        Err(NoGuest::Unknown(Vec::new()))
    }
}

fn example(name: &str) -> Manifest {
    let path = folder().join("examples").join(name);
    let manifest = load_with(&path, &Brought).unwrap_or_else(|report| panic!("{report}"));
    let bytes = manifest.clone().into_writer([1; 16]).write().unwrap();
    Package::parse(&bytes).unwrap();
    manifest
}

#[test]
fn the_example_of_two_programs_has_a_channel_between_them() {
    let manifest = example("sharing.toml");
    let writer = manifest.configuration();
    let names: Vec<_> = manifest.vms().iter().map(|vm| &*vm.program).collect();
    assert_eq!(names, ["example_blocking", "example_partner"]);
    assert_eq!((writer.channels.len(), writer.channels[0].label, writer.cpus), (1, 1, 1));
}

#[test]
fn the_example_of_linux_starts_its_second_vcpu_itself() {
    let manifest = example("linux.toml");
    let [linux, service] = &manifest.configuration().vms[..] else { panic!("two VMs") };
    assert_eq!((linux.start, linux.vcpus, linux.roles), (Start::First, 2, Roles::MANAGE));
    assert!(linux.initrd.is_some());
    assert_eq!((service.start, service.on_fault), (Start::All, OnFault::Restart));
    assert_eq!(manifest.configuration().heaps[0].vms, 0b11);
}

#[test]
fn the_example_of_heaps_has_one_for_both_and_one_for_the_first() {
    let manifest = example("heaps.toml");
    let heaps = manifest.configuration().heaps.iter();
    let heaps: Vec<_> = heaps.map(|it| (it.size, it.guaranteed, it.limit, it.vms)).collect();
    assert_eq!(heaps, [(40 << 20, 4 << 20, 34 << 20, 0b11), (2 << 20, 0, 2 << 20, 0b01)]);
}

#[test]
fn the_example_of_a_device_gives_the_clock_and_its_interrupt() {
    let manifest = example("device.toml");
    let writer = manifest.configuration();
    let (device, interrupt) = (&writer.devices[0], &writer.interrupts[0]);
    assert_eq!((device.pa, device.ipa, device.pages), (0x901_0000, 0xa00_0000, 1));
    assert_eq!((interrupt.physical, interrupt.virtual_, interrupt.edge), (34, 43, false));
    assert_eq!(writer.vms[1].quotas.limit.parcels, 8);
    assert_eq!(writer.vms[1].load, 0x4020_0000);
}

#[test]
fn every_example_is_one_of_these_tests() {
    let folder = fs::read_dir(folder().join("examples")).unwrap();
    let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["device.toml", "heaps.toml", "linux.toml", "sharing.toml"]);
}

/// The texts in the reference between these marks.
fn blocks(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join("MANIFEST.md")).unwrap();
    let begin = format!("```{kind}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_smallest_manifest_and_the_mistake_of_the_reference_are_real() {
    let smallest = blocks("toml").remove(0);
    let path = Path::new("my.toml");
    manifest::parse(path, &smallest, &Brought).unwrap_or_else(|report| panic!("{report}"));
    let wrong = smallest.replace("memory", "mempry");
    let report = manifest::parse(path, &wrong, &Brought).unwrap_err().to_string();
    assert!(report.contains(blocks("text").remove(0).trim()), "{report}");
}
