//! A computer with disks that are files: what the tests of this crate look at and write to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::device::System;

/// Its folder goes away with it.
pub(crate) struct Computer(TempDir);

impl Computer {
    /// A disk with the system, an SD card in a slot, one in a USB reader, and a soldered chip.
    pub(crate) fn with_everything() -> Self {
        let computer = Self(tempfile::tempdir().unwrap());
        let write = |path: &str, text: &str| computer.write(path, text);
        for (name, way, gib, removable) in [
            ("sda", "pci0000:00/0000:00:17.0/ata1/host0", 465, "0"),
            ("sdb", "pci0000:00/0000:00:14.0/usb1/1-3/host4", 14, "1"),
            ("mmcblk0", "platform/sdhci.0/mmc_host/mmc0", 29, "0"),
            ("mmcblk1", "platform/sdhci.1/mmc_host/mmc1", 29, "0"),
        ] {
            let folder = format!("sys/devices/{way}/block/{name}");
            write(&format!("{folder}/size"), &format!("{}\n", gib << 21));
            write(&format!("{folder}/removable"), removable);
            write(&format!("{folder}/ro"), "0\n");
            fs::create_dir_all(computer.path().join("sys/block")).unwrap();
            let folder = computer.path().join(folder);
            symlink(folder, computer.path().join("sys/block").join(name)).unwrap();
            write(&format!("dev/{name}"), "");
        }
        for (file, text) in [
            ("sda/device/vendor", "ATA     "),
            ("sda/device/model", "Samsung SSD 860 "),
            ("sda/dev", "8:0"),
            ("sda/sda1/partition", "1"),
            ("sda/sda1/dev", "8:1"),
            ("sdb/device/vendor", "Generic "),
            ("sdb/device/model", "Reader          "),
            ("sdb/dev", "8:16"),
            ("sdb/sdb1/partition", "1"),
            ("sdb/sdb1/dev", "8:17"),
            ("mmcblk0/device/type", "MMC"),
            ("mmcblk0/device/name", "DG4032"),
            ("mmcblk1/device/type", "SD"),
            ("mmcblk1/device/name", "SC32G"),
        ] {
            write(&format!("sys/block/{file}"), text);
        }
        for extra in ["loop0", "dm-0", "mmcblk0boot0", "sr0"] {
            write(&format!("sys/block/{extra}/size"), "2048");
        }
        for partition in ["sda1", "sdb1"] {
            write(&format!("dev/{partition}"), "");
        }
        write("proc/swaps", "Filename Type Size Used Priority\n");
        write("proc/self/mountinfo", "");
        computer.mount("8:1", "/dev/sda1", "/");
        computer
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn system(&self) -> System {
        let folder = |name| self.path().join(name);
        System { sys: folder("sys"), proc: folder("proc"), dev: folder("dev") }
    }

    /// Writes a file and makes the folders on the way to it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn append(&self, path: &str, line: &str) {
        let before = fs::read_to_string(self.path().join(path)).unwrap();
        self.write(path, &format!("{before}{line}\n"));
    }

    pub(crate) fn mount(&self, number: &str, source: &str, at: &str) {
        let line = format!("36 25 {number} / {at} rw,noatime shared:1 - ext4 {source} rw");
        self.append("proc/self/mountinfo", &line);
    }

    pub(crate) fn swap(&self, name: &str) {
        let file = self.system().dev.join(name);
        self.append("proc/swaps", &format!("{} partition 8 0 -2", file.display()));
    }

    pub(crate) fn hold(&self, disk: &str, partition: &str, by: &str) {
        self.write(&format!("sys/block/{disk}/{partition}/holders/{by}/dev"), "253:0");
    }

    /// A file in `/dev` of no block device.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.write(&format!("dev/{name}"), "");
        self.system().dev.join(name)
    }

    /// A second name for a device.
    pub(crate) fn link(&self, name: &str, device: &str) -> PathBuf {
        let folder = self.system().dev.join("disk/by-id");
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("../../{device}"), folder.join(name)).unwrap();
        folder.join(name)
    }
}
