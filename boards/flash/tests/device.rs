//! A real block device: written, read back, and refused while somebody uses it.
//!
//! Needs the right to make a loop device; elsewhere the test says that it was skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flash::card::{Card, File, card};
use flash::device::System;
use flash::permission::{Proof, may_write};
use flash::write::{OpenDevice, write};

/// A loop device, which goes away with this.
struct Loop(PathBuf);

impl Loop {
    /// Of this file, if this computer lets us.
    fn of(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let device = (output.status.success() && !path.is_empty()).then(|| Self(path.into()))?;
        // In a container the device may exist without its node.
        fs::File::open(&device.0).is_ok().then_some(device)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

fn a_card() -> Card {
    let file =
        File { path: "kernel8.img".into(), bytes: (0..100_000u32).map(|n| n as u8).collect() };
    card(4 << 20, &[], &[file]).unwrap()
}

#[test]
fn a_block_device_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    fs::write(&file, vec![0xee; 80 << 20]).unwrap();
    let Some(device) = Loop::of(&file) else {
        eprintln!("skipped: no loop device can be made here");
        return;
    };
    let card = a_card();
    let size = card.bytes.len() as u64;

    // Nothing shows that it is removable, so it needs its name twice.
    let found = System::default().find(&device.0).unwrap();
    assert_eq!(found.bytes, 80 << 20);
    assert!(may_write(&found, &device.0, None, size).is_err());
    assert_eq!(may_write(&found, &device.0, Some(&device.0), size), Ok(Proof::Told));

    let mut medium = OpenDevice::open(&device.0).unwrap();
    write(&card, &mut medium, &mut |_, _| {}).unwrap();

    // Who has it open for himself keeps others out: the kernel does that, not our list.
    let second = OpenDevice::open(&device.0).unwrap_err().to_string();
    assert!(second.contains("is in use"), "{second}");
    drop(medium);
    drop(device);

    let disk = fs::read(&file).unwrap();
    for piece in &card.pieces {
        let range = piece.range.start as usize..piece.range.end as usize;
        assert_eq!(disk[range.clone()], card.bytes[range], "{}", piece.name);
    }
    assert_eq!(disk[512..4 << 20], vec![0xee; (4 << 20) - 512], "the gap is not ours");
}
