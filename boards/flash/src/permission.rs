//! May this device be written? Only if nothing uses it and it is a medium that somebody can take out.
//!
//! Writing a card destroys what is on it, and a wrong letter destroys a computer. So a device must
//! prove that it is meant, in one of two ways: the kernel says that its medium is removable (a card in
//! a USB reader, a stick) or that it is an SD card in a slot; or the user writes its exact name a
//! second time. Neither helps for a device that is in use, or that the card does not fit.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::device::{Bus, Device, Use};

/// Why a device may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The kernel calls its medium removable.
    Removable,
    /// It is an SD card in a slot.
    SdCard,
    /// The user has named it twice.
    Told,
}

/// Why a device may not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something uses it.
    InUse {
        /// The device.
        path: PathBuf,
        /// What.
        by: Use,
    },
    /// It cannot be written.
    ReadOnly(PathBuf),
    /// There is no medium in it.
    Empty(PathBuf),
    /// The card does not fit.
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The card's.
        needed: u64,
    },
    /// Nothing shows that its medium can be taken out.
    NotRemovable {
        /// The device.
        device: Box<Device>,
        /// As the user wrote it.
        named: PathBuf,
        /// What the user gave to confirm it.
        flag: Option<PathBuf>,
    },
}

/// Decides. `named` is how the user called the device, and `flag` what followed `--yes-write-to`.
pub fn may_write(
    device: &Device,
    named: &Path,
    flag: Option<&Path>,
    needed: u64,
) -> Result<Proof, Refusal> {
    let path = device.path.clone();
    if let Some(by) = device.uses.first().cloned() {
        return Err(Refusal::InUse { path, by });
    }
    if device.bytes == 0 {
        return Err(Refusal::Empty(path));
    }
    if device.read_only {
        return Err(Refusal::ReadOnly(path));
    }
    if device.bytes < needed {
        return Err(Refusal::TooSmall { path, bytes: device.bytes, needed });
    }
    match device.bus {
        Bus::SdCard => return Ok(Proof::SdCard),
        // An external disk is on USB too, but its medium stays in it.
        Bus::Usb | Bus::Other if device.removable => return Ok(Proof::Removable),
        _ => {}
    }
    // The same letters, not a second name of the same device: whoever writes it has looked.
    if flag.is_some_and(|flag| flag.as_os_str() == named.as_os_str()) {
        return Ok(Proof::Told);
    }
    let flag = flag.map(Path::to_owned);
    Err(Refusal::NotRemovable { device: Box::new(device.clone()), named: named.to_owned(), flag })
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removable => "its medium is removable",
            Self::SdCard => "it is an SD card",
            Self::Told => "you have named it twice",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path, by } => write!(f, "{} is in use: {by}", path.display()),
            Self::ReadOnly(path) => write!(
                f,
                "{} cannot be written; an SD card has a small switch at its side for that",
                path.display()
            ),
            Self::Empty(path) => write!(f, "{} has no card in it", path.display()),
            Self::TooSmall { path, bytes, needed } => write!(
                f,
                "{} holds {}, and the card image needs {}",
                path.display(),
                Size(*bytes),
                Size(*needed)
            ),
            Self::NotRemovable { device, named, flag } => {
                let (named, what) = (named.display(), kind(device));
                write!(f, "{named} ({}, {}) is {what}", device.model, Size(device.bytes))?;
                match flag {
                    Some(flag) => write!(
                        f,
                        "; --yes-write-to {} names another device than --device {named}",
                        flag.display()
                    ),
                    None => write!(
                        f,
                        ", nothing that can be taken out; if all on it may be lost, add \
                         --yes-write-to {named}"
                    ),
                }
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What a device is that is not known to be removable.
fn kind(device: &Device) -> &'static str {
    match device.bus {
        Bus::Emmc => "a chip of this computer",
        Bus::Usb => "an external disk",
        Bus::SdCard | Bus::Other => "a disk of this computer",
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { at } => {
                write!(f, "this computer runs from it (it is mounted at {at})")
            }
            Self::Mounted { partition, at } => write!(
                f,
                "{partition} is mounted at {at}; `umount '{at}'` first, and look whether the files \
                 there may be lost"
            ),
            Self::Swap { partition } => {
                write!(f, "{partition} is swap space; `swapoff /dev/{partition}` would end that")
            }
            Self::Held { partition, by } => {
                write!(f, "{partition} is a part of {by} (encryption, a volume group or a RAID)")
            }
        }
    }
}

/// A number of bytes for people, with the units that makers print on cards.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000)];
        match units.into_iter().find(|&(_, unit)| self.0 >= unit) {
            Some((name, unit)) => {
                let tenths = self.0 / (unit / 10);
                write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
            }
            None if self.0 >= 1000 => write!(f, "{} kB", self.0 / 1000),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Computer;

    const NEEDED: u64 = 64 << 20;

    /// What is decided about a device of this computer, named by its own path.
    fn asked(computer: &Computer, name: &str, flag: Option<&str>) -> Result<Proof, String> {
        let system = computer.system();
        let path = system.dev.join(name);
        let device = system.find(&path).unwrap();
        let flag = flag.map(|flag| system.dev.join(flag));
        may_write(&device, &path, flag.as_deref(), NEEDED).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn cards_and_sticks_may_be_written() {
        let computer = Computer::with_everything();
        assert_eq!(asked(&computer, "sdb", None), Ok(Proof::Removable));
        assert_eq!(asked(&computer, "mmcblk1", None), Ok(Proof::SdCard));
    }

    #[test]
    fn the_disk_that_holds_the_system_is_never_written() {
        let computer = Computer::with_everything();
        for flag in [None, Some("sda")] {
            let why = asked(&computer, "sda", flag).unwrap_err();
            assert!(why.contains("this computer runs from it"), "{why}");
        }
    }

    #[test]
    fn a_mounted_card_is_not_written_even_if_it_is_named_twice() {
        let computer = Computer::with_everything();
        computer.mount("8:17", "/dev/sdb1", "/media/card");
        for flag in [None, Some("sdb")] {
            let why = asked(&computer, "sdb", flag).unwrap_err();
            assert!(why.contains("`umount '/media/card'`"), "{why}");
        }
    }

    #[test]
    fn swap_and_parts_of_something_are_not_written() {
        let computer = Computer::with_everything();
        computer.swap("sdb1");
        assert!(asked(&computer, "sdb", Some("sdb")).unwrap_err().contains("swapoff /dev/sdb1"));
        computer.hold("mmcblk1", "mmcblk1p1", "dm-0");
        computer.write("sys/block/mmcblk1/mmcblk1p1/partition", "1");
        assert!(asked(&computer, "mmcblk1", Some("mmcblk1")).unwrap_err().contains("part of dm-0"));
    }

    #[test]
    fn a_soldered_chip_needs_its_name_twice() {
        let computer = Computer::with_everything();
        let why = asked(&computer, "mmcblk0", None).unwrap_err();
        assert!(why.contains("a chip of this computer") && why.ends_with("dev/mmcblk0"), "{why}");
        assert_eq!(asked(&computer, "mmcblk0", Some("mmcblk0")), Ok(Proof::Told));
    }

    #[test]
    fn an_external_disk_needs_its_name_twice() {
        let computer = Computer::with_everything();
        computer.write("sys/block/sdb/removable", "0");
        assert!(asked(&computer, "sdb", None).unwrap_err().contains("an external disk"));
        assert_eq!(asked(&computer, "sdb", Some("sdb")), Ok(Proof::Told));
    }

    #[test]
    fn the_second_name_must_be_the_same() {
        let computer = Computer::with_everything();
        let why = asked(&computer, "mmcblk0", Some("mmcblk1")).unwrap_err();
        assert!(why.contains("names another device"), "{why}");
        // Two ways to the same device are not the same name.
        let why = asked(&computer, "mmcblk0", Some("./mmcblk0/../mmcblk0")).unwrap_err();
        assert!(why.contains("names another device"), "{why}");
    }

    #[test]
    fn no_medium_a_locked_one_and_a_small_one_are_refused() {
        let computer = Computer::with_everything();
        computer.write("sys/block/sdb/ro", "1");
        assert!(asked(&computer, "sdb", None).unwrap_err().contains("small switch"));
        computer.write("sys/block/sdb/size", "0");
        assert!(asked(&computer, "sdb", None).unwrap_err().contains("no card in it"));
        computer.write("sys/block/mmcblk1/size", "65536");
        let why = asked(&computer, "mmcblk1", None).unwrap_err();
        assert!(why.ends_with("holds 33.5 MB, and the card image needs 67.1 MB"), "{why}");
    }

    #[test]
    fn a_device_of_which_nothing_is_known_is_refused() {
        let computer = Computer::with_everything();
        computer.write("sys/block/sdz/size", "99999999");
        computer.node("sdz");
        assert!(asked(&computer, "sdz", None).unwrap_err().contains("a disk of this computer"));
    }

    #[test]
    fn sizes_are_written_as_on_a_card() {
        let told = [7, 65_536, 67_108_864, 31_914_983_424, 2_000_398_934_016].map(Size);
        let told = told.map(|size| size.to_string());
        assert_eq!(told, ["7 bytes", "65 kB", "67.1 MB", "31.9 GB", "2.0 TB"]);
    }
}
