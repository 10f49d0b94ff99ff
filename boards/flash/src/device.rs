//! Which block devices this computer has, and what uses them.
//!
//! All of it is read from files of the Linux kernel (`Documentation/ABI/stable/sysfs-block`,
//! `proc_pid_mountinfo(5)`, `proc_swaps(5)`) below folders that a test can replace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Block devices that are no disks: made of memory or of other devices, or optical.
const NO_DISKS: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd", "mtdblock"];
/// Sizes in sysfs are in sectors of 512 bytes whatever the device's own are.
const SECTOR: u64 = 512;

/// Where to read.
#[derive(Clone, Debug)]
pub struct System {
    /// `/sys`
    pub sys: PathBuf,
    /// `/proc`
    pub proc: PathBuf,
    /// `/dev`
    pub dev: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// How a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A stick, or a card in a reader.
    Usb,
    /// A card in a slot of this computer.
    SdCard,
    /// A chip that is soldered to this computer.
    Emmc,
    /// A disk, or something unknown.
    Other,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name, as `sdb`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What its maker calls it.
    pub model: String,
    /// How it is attached.
    pub bus: Bus,
    /// Whether the kernel says that its medium can be taken out.
    pub removable: bool,
    /// Whether it refuses to be written.
    pub read_only: bool,
    /// What is done with it or its partitions at this moment; empty if nothing.
    pub uses: Vec<Use>,
}

/// Something that a device is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// This computer runs from it.
    System {
        /// Where it is mounted.
        at: String,
    },
    /// A file system on it is mounted.
    Mounted {
        /// The partition.
        partition: String,
        /// Where it is mounted.
        at: String,
    },
    /// Swap space.
    Swap {
        /// The partition.
        partition: String,
    },
    /// A part of something larger: encryption, a volume group, a RAID.
    Held {
        /// The partition.
        partition: String,
        /// The device that is made of it.
        by: String,
    },
}

impl System {
    /// All disks, cards and sticks.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let folder = self.sys.join("block");
        let entries = fs::read_dir(&folder).with_context(|| {
            format!("cannot list block devices: {} is not there (is this Linux?)", folder.display())
        })?;
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_disk(name))
            .collect();
        names.sort();
        Ok(names.iter().map(|name| self.device(name)).collect())
    }

    /// The device whose file this is. Names below `/dev/disk` are followed.
    pub fn find(&self, path: &Path) -> Result<Device> {
        let real = fs::canonicalize(path)
            .with_context(|| format!("there is no device {}", path.display()))?;
        let dev = fs::canonicalize(&self.dev).unwrap_or_else(|_| self.dev.clone());
        let name = real.strip_prefix(&dev).ok().and_then(Path::to_str).unwrap_or_default();
        ensure!(!name.is_empty(), "{} is no device: it lies outside /dev", path.display());
        if self.sys.join("block").join(name).exists() {
            return Ok(self.device(name));
        }
        if let Some(disk) = self.disk_of(name) {
            let disk = self.dev.join(disk);
            bail!(
                "{} is a partition; a card is written as a whole: name {}",
                path.display(),
                disk.display()
            );
        }
        bail!("{} is no block device", path.display())
    }

    /// The disk of a partition.
    fn disk_of(&self, partition: &str) -> Option<String> {
        let disks = self.devices().ok()?;
        let is_its = |disk: &&Device| self.block(&disk.name).join(partition).exists();
        Some(disks.iter().find(is_its)?.name.clone())
    }

    fn block(&self, name: &str) -> PathBuf {
        self.sys.join("block").join(name)
    }

    fn device(&self, name: &str) -> Device {
        let folder = self.block(name);
        let text = |file: &str| read(&folder.join(file));
        let model = ["device/vendor", "device/model", "device/name"].map(text);
        // A virtual disk has a number for a vendor.
        let is_name = |part: &String| !part.is_empty() && !part.starts_with("0x");
        let model = model.into_iter().filter(is_name).collect::<Vec<_>>();
        Device {
            name: name.into(),
            path: self.dev.join(name),
            bytes: text("size").parse::<u64>().unwrap_or(0).saturating_mul(SECTOR),
            model: if model.is_empty() { "unnamed".into() } else { model.join(" ") },
            bus: bus(&folder),
            removable: text("removable") == "1",
            read_only: text("ro") == "1",
            uses: self.uses(name),
        }
    }

    /// What is done with a disk and its partitions.
    fn uses(&self, disk: &str) -> Vec<Use> {
        let folder = self.block(disk);
        let mut parts = vec![(disk.to_owned(), folder.clone())];
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        parts.extend(
            entries
                .filter(|entry| entry.path().join("partition").exists())
                .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))),
        );
        parts.sort();
        let mounts = read(&self.proc.join("self/mountinfo"));
        let swaps = read(&self.proc.join("swaps"));
        let mut uses = Vec::new();
        for (name, folder) in parts {
            let file = self.dev.join(&name);
            let number = read(&folder.join("dev"));
            for at in mounts.lines().filter_map(|line| mount(line, &number, &file)) {
                let is_system = at == "/" || at == "/usr" || at.starts_with("/boot");
                uses.push(if is_system {
                    Use::System { at }
                } else {
                    Use::Mounted { partition: name.clone(), at }
                });
            }
            let is_swap = |line: &str| line.split_whitespace().next().map(Path::new) == Some(&file);
            if swaps.lines().any(is_swap) {
                uses.push(Use::Swap { partition: name.clone() });
            }
            let holders = fs::read_dir(folder.join("holders")).into_iter().flatten().flatten();
            for by in holders.filter_map(|holder| holder.file_name().into_string().ok()) {
                uses.push(Use::Held { partition: name.clone(), by });
            }
        }
        uses
    }
}

fn is_disk(name: &str) -> bool {
    let is_boot_area = name.contains("boot") || name.ends_with("rpmb");
    !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) && !is_boot_area
}

/// The way to the device says by which bus; a card says by its type that it is none that is soldered.
fn bus(folder: &Path) -> Bus {
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let on_usb = real.iter().filter_map(|part| part.to_str()).any(|part| {
        part.strip_prefix("usb").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    match read(&folder.join("device/type")).as_str() {
        "SD" => Bus::SdCard,
        "MMC" => Bus::Emmc,
        _ if on_usb => Bus::Usb,
        _ => Bus::Other,
    }
}

/// Where this line of mountinfo mounts the device with this number or this file.
fn mount(line: &str, number: &str, file: &Path) -> Option<String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let dash = fields.iter().position(|field| *field == "-")?;
    let is_it = *fields.get(2)? == number && !number.is_empty();
    let source = fields.get(dash + 2).map(|source| unescape(source));
    let is_its_file = source.is_some_and(|source| Path::new(&source) == file);
    (is_it || is_its_file).then(|| unescape(fields[4]))
}

/// Blanks in paths are written as `\040` there.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                text.push(byte.into());
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// A file's text without blanks around it; empty if there is none.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Computer;

    #[test]
    fn disks_are_listed_with_size_model_and_bus() {
        let computer = Computer::with_everything();
        let listed: Vec<_> = computer.system().devices().unwrap();
        let told: Vec<_> = listed
            .iter()
            .map(|d| (d.name.as_str(), d.model.as_str(), d.bytes >> 30, d.bus))
            .collect();
        assert_eq!(
            told,
            [
                ("mmcblk0", "DG4032", 29, Bus::Emmc),
                ("mmcblk1", "SC32G", 29, Bus::SdCard),
                ("sda", "ATA Samsung SSD 860", 465, Bus::Other),
                ("sdb", "Generic Reader", 14, Bus::Usb),
            ]
        );
        assert!(listed[3].removable && !listed[2].removable);
    }

    #[test]
    fn what_a_disk_is_used_for_is_found_on_its_partitions_too() {
        let computer = Computer::with_everything();
        let system = computer.system();
        assert_eq!(system.device("sda").uses[0], Use::System { at: "/".into() });
        assert_eq!(system.device("sdb").uses, []);
        computer.mount("8:17", "/dev/sdb1", "/media/me/MY\\040CARD");
        let mounted = Use::Mounted { partition: "sdb1".into(), at: "/media/me/MY CARD".into() };
        assert_eq!(system.device("sdb").uses, [mounted]);
    }

    #[test]
    fn a_mount_without_the_devices_number_is_found_by_its_file() {
        let computer = Computer::with_everything();
        // As btrfs does it.
        let file = computer.system().dev.join("sdb1").display().to_string();
        computer.mount("0:42", &file, "/data");
        assert_eq!(computer.system().device("sdb").uses.len(), 1);
    }

    #[test]
    fn swap_and_holders_are_uses() {
        let computer = Computer::with_everything();
        computer.swap("sdb1");
        computer.hold("sdb", "sdb1", "dm-0");
        let uses = computer.system().device("sdb").uses;
        let partition = "sdb1".to_owned();
        let held = Use::Held { partition: partition.clone(), by: "dm-0".into() };
        assert_eq!(uses, [Use::Swap { partition }, held]);
    }

    #[test]
    fn a_partition_is_answered_with_its_disk() {
        let computer = Computer::with_everything();
        let system = computer.system();
        let error = system.find(&system.dev.join("sdb1")).unwrap_err().to_string();
        assert!(error.contains("is a partition") && error.ends_with("dev/sdb"), "{error}");
    }

    #[test]
    fn a_name_below_dev_disk_leads_to_the_device() {
        let computer = Computer::with_everything();
        let link = computer.link("usb-Generic_Reader", "sdb");
        assert_eq!(computer.system().find(&link).unwrap().name, "sdb");
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let computer = Computer::with_everything();
        let system = computer.system();
        assert!(system.find(Path::new("/etc/passwd")).is_err());
        assert!(system.find(&system.dev.join("nothing")).is_err());
        assert!(system.find(&system.dev).is_err());
        let error = system.find(&computer.node("tty0")).unwrap_err().to_string();
        assert!(error.ends_with("is no block device"), "{error}");
    }

    #[test]
    fn strange_escapes_stay_as_they_are() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\"), r"/a\");
        assert_eq!(unescape(r"/a\9zz\é"), r"/a\9zz\é");
    }
}
