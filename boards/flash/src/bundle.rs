//! All files of a board, as a folder or as a card.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::card::{self, Blob, Card, File};
use crate::firmware::{Firmware, Foreign, Start};
use crate::image::Image;
use crate::permission::Size;
use crate::script;

/// No boot loader or firmware file is larger; what is, is a mistake.
const LARGEST_FOREIGN: u64 = 64 << 20;

/// Where the files are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder of this computer, called `<this folder>`, with the hypervisor's ELF file beside them.
    Folder,
    /// On a card.
    Card,
}

/// What a board starts from.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The board's firmware.
    pub firmware: Firmware,
    /// Files of the card.
    pub files: Vec<File>,
    /// What lies outside of its partition.
    pub blobs: Vec<Blob>,
    /// What the maker has to add and was not given.
    pub missing: Vec<&'static Foreign>,
}

impl Bundle {
    /// Puts together what a board's firmware wants for this image. `foreign` is the user's folder
    /// with the maker's files.
    pub fn new(firmware: Firmware, image: &Image<'_>, foreign: Option<&Path>) -> Result<Self> {
        let (size, room) = (image.bytes.len() as u64, firmware.end - firmware.load);
        ensure!(
            size <= room,
            "the image has {}, but {} loads it to {:#x}, and at {:#x} comes {}: {} fit",
            Size(size),
            firmware.board.name(),
            firmware.load,
            firmware.end,
            firmware.behind,
            Size(room)
        );
        let file = |path: &str, bytes: &[u8]| File { path: path.into(), bytes: bytes.into() };
        let mut files = vec![file(firmware.image, image.bytes)];
        if let Some((name, text)) = firmware.configuration() {
            files.push(file(name, text.as_bytes()));
            if let Start::UBoot(_) = firmware.start {
                let wrapped = script::wrap(firmware.board.name(), &text);
                files.push(file("boot.scr", &wrapped));
            }
        }
        let mut bundle = Self { firmware, files, blobs: Vec::new(), missing: Vec::new() };
        for wanted in firmware.foreign {
            bundle.add(wanted, foreign)?;
        }
        let readme = bundle.readme();
        bundle.files.push(file("README.txt", readme.as_bytes()));
        Ok(bundle)
    }

    /// Takes one of the maker's files from the user's folder.
    fn add(&mut self, wanted: &'static Foreign, folder: Option<&Path>) -> Result<()> {
        let Some(folder) = folder else {
            self.missing.push(wanted);
            return Ok(());
        };
        ensure!(folder.is_dir(), "there is no folder {} with firmware", folder.display());
        let path = folder.join(wanted.name);
        if !path.exists() {
            self.missing.push(wanted);
            return Ok(());
        }
        let told = || format!("cannot read {}", path.display());
        let length = fs::metadata(&path).with_context(told)?.len();
        ensure!(
            (1..=LARGEST_FOREIGN).contains(&length),
            "{} has {length} bytes, so it is not {}",
            path.display(),
            wanted.what
        );
        let bytes = fs::read(&path).with_context(told)?;
        match wanted.at {
            Some(at) => self.blobs.push(Blob { name: wanted.name.into(), at, bytes }),
            None => self.files.push(File { path: wanted.name.into(), bytes }),
        }
        Ok(())
    }

    /// The card with all of it. A card that its board cannot start from is refused.
    pub fn card(&self) -> Result<Card> {
        let board = self.firmware.board.name();
        match self.firmware.start {
            Start::Emulator => {
                bail!("{board} starts from no card: give the image to QEMU (`-kernel`)")
            }
            Start::Unknown => bail!(
                "what {board}'s firmware wants on a card is not known here; \
                 boards/flash/src/firmware.rs is where to say it"
            ),
            Start::RaspberryPi | Start::UBoot(_) => {}
        }
        let needed: Vec<_> =
            self.missing.iter().filter(|file| file.needed).map(|file| file.name).collect();
        ensure!(
            needed.is_empty(),
            "{board} does not start without {}, which are not part of this project; put them into a \
             folder and give that with --firmware <folder>. They are in {}",
            needed.join(", "),
            self.firmware.source
        );
        card::card(self.firmware.partition, &self.blobs, &self.files)
    }

    /// Writes the files into a folder, and says which.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for file in &self.files {
            let path = folder.join(&file.path);
            fs::create_dir_all(path.parent().unwrap_or(folder))
                .and_then(|()| fs::write(&path, &file.bytes))
                .with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }

    /// The text of README.txt: what the files are, and what to do with them.
    pub fn readme(&self) -> String {
        let board = self.firmware.board.name();
        let mut text = format!("What {board} starts from\n\n");
        for file in &self.files {
            let _ = writeln!(text, "  {:<26}{}", file.path, self.about(&file.path));
        }
        for blob in &self.blobs {
            let at = blob.at;
            let _ =
                writeln!(text, "  {:<26}on the card at byte {at:#x}, in no partition", blob.name);
        }
        let _ = writeln!(text, "\nWhat to do next\n");
        for (number, step) in (1..).zip(self.next_steps(Place::Folder)) {
            let _ = writeln!(text, "  {number}. {}", step.replace('\n', "\n     "));
        }
        text
    }

    fn about(&self, path: &str) -> &'static str {
        let foreign = self.firmware.foreign.iter().find(|foreign| foreign.name == path);
        match (path, foreign) {
            (_, Some(foreign)) => foreign.what,
            ("config.txt", _) => "what the board's firmware is told, with reasons",
            ("boot.cmd", _) => "what U-Boot is told, with reasons",
            ("boot.scr", _) => "the same as U-Boot reads it",
            _ => "the image: hypervisor, VMs and their device trees",
        }
    }

    /// What the user does next, in plain words.
    pub fn next_steps(&self, place: Place) -> Vec<String> {
        let firmware = &self.firmware;
        let board = firmware.board.name();
        if let Start::Unknown = firmware.start {
            return vec![format!(
                "Load {} at a multiple of 2 MiB in {board}'s memory and enter its first byte at EL2, with \
                 the MMU off and the address of the device tree in x0 (the arm64 boot protocol; U-Boot's \
                 `booti` does that).",
                firmware.image
            )];
        }
        if let Start::Emulator = firmware.start {
            return vec![format!(
                "In this folder:\n`qemu-system-aarch64 -M virt,virtualization=on,gic-version=3 -cpu \
                 cortex-a72 -smp 4 -m 1G \\\n  -nodefaults -display none -serial stdio -kernel {} \
                 > log`,\nand when it has ended:\n`cargo run -- monitor \
                 <this folder>/log --elf <this folder>/hypervisor.elf`.",
                firmware.image
            )];
        }
        let mut steps = Vec::new();
        if !self.missing.is_empty() {
            let files = self.missing.iter().map(|file| format!("  {} ({})", file.name, file.what));
            let files = files.collect::<Vec<_>>().join("\n");
            let (verb, or) = match self.missing.iter().any(|file| file.needed) {
                true => ("Get", ""),
                false => ("Unless the board has it elsewhere, get", "or keep the card's own; "),
            };
            steps.push(format!(
                "{verb} what is not part of this project:\n{files}\nfrom {}\n({or}the next time \
                 --firmware <folder> takes it along).",
                firmware.source
            ));
        }
        if place == Place::Folder {
            steps.push(format!(
            "Copy all files here onto the first FAT partition of an SD card, or let the tool write a \
             card:\n`cargo run -- flash --board {board} --manifest <file> --firmware <folder>`."
        ));
        }
        steps.push(firmware.wiring.join("\n"));
        if let Start::UBoot(device) = firmware.start {
            steps.push(format!(
                "U-Boot runs boot.scr by itself. If it does not, stop it with a key and type\n\
                 `load mmc {}:1 {:#x} boot.scr; source {1:#x}`.",
                device.number, device.script_at
            ));
        }
        steps.push(match place {
            Place::Folder => "`cargo run -- monitor /dev/ttyUSB<n> --elf <this folder>/hypervisor.elf`, \
                              and switch the board on.\nKeep hypervisor.elf, which need not be on the \
                              card: it has the texts of the log."
                .into(),
            Place::Card => "`cargo run -- monitor /dev/ttyUSB<n>`, and switch the board on.".into(),
        });
        steps
    }
}

#[cfg(test)]
mod tests {
    use package::Board;

    use super::*;
    use crate::image::tests::image_for;

    fn bundle(board: Board, foreign: Option<&Path>) -> Result<Bundle> {
        let bytes = image_for(board);
        Bundle::new(Firmware::of(board), &Image::check(&bytes, board).unwrap(), foreign)
    }

    fn names(bundle: &Bundle) -> Vec<&str> {
        bundle.files.iter().map(|file| file.path.as_str()).collect()
    }

    /// A folder with files of a maker.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("this is {file}")).unwrap();
        }
        folder
    }

    const PI: [&str; 4] =
        ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "overlays/disable-bt.dtbo"];

    #[test]
    fn each_board_gets_the_files_that_its_firmware_reads() {
        let of = |board| bundle(board, None).unwrap();
        assert_eq!(names(&of(Board::RPI4)), ["kernel8.img", "config.txt", "README.txt"]);
        for board in [Board::IMX8MP_EVK, Board::ZCU102] {
            let wanted = ["hypervisor.img", "boot.cmd", "boot.scr", "README.txt"];
            assert_eq!(names(&of(board)), wanted);
        }
        assert_eq!(names(&of(Board::QEMU_VIRT)), ["hypervisor.img", "README.txt"]);
    }

    #[test]
    fn a_folder_holds_the_very_image() {
        let target = tempfile::tempdir().unwrap();
        let written = bundle(Board::RPI4, None).unwrap().write(target.path()).unwrap();
        assert_eq!(written.len(), 3);
        let image = fs::read(target.path().join("kernel8.img")).unwrap();
        assert_eq!(image, image_for(Board::RPI4));
    }

    #[test]
    fn a_card_without_what_the_board_needs_is_refused_with_the_place_to_get_it() {
        let error = bundle(Board::RPI4, None).unwrap().card().unwrap_err().to_string();
        assert!(error.contains("start4.elf, fixup4.dat"), "{error}");
        assert!(error.contains("github.com/raspberrypi/firmware"), "{error}");
        let given = folder(&PI);
        let bundle = bundle(Board::RPI4, Some(given.path())).unwrap();
        assert!(PI.iter().all(|file| names(&bundle).contains(file)), "{:?}", names(&bundle));
        assert_eq!(bundle.card().unwrap().pieces[0].name, "FAT32 partition with 7 files");
    }

    #[test]
    fn a_boot_loader_that_the_board_may_have_elsewhere_is_taken_if_it_is_given() {
        assert_eq!(bundle(Board::IMX8MP_EVK, None).unwrap().card().unwrap().pieces.len(), 2);
        let given = folder(&["flash.bin"]);
        let card = bundle(Board::IMX8MP_EVK, Some(given.path())).unwrap().card().unwrap();
        assert_eq!(card.bytes[32 << 10..][..17], *b"this is flash.bin");
        let given = folder(&["BOOT.BIN"]);
        let bundle = bundle(Board::ZCU102, Some(given.path())).unwrap();
        assert!(names(&bundle).contains(&"BOOT.BIN") && bundle.missing.is_empty());
    }

    #[test]
    fn a_wrong_folder_or_file_of_firmware_is_refused() {
        let error = bundle(Board::RPI4, Some(Path::new("/nonexistent"))).unwrap_err().to_string();
        assert!(error.contains("no folder /nonexistent"), "{error}");
        let given = folder(&[]);
        fs::write(given.path().join("start4.elf"), "").unwrap();
        let error = bundle(Board::RPI4, Some(given.path())).unwrap_err().to_string();
        assert!(error.ends_with("has 0 bytes, so it is not firmware of the GPU"), "{error}");
    }

    #[test]
    fn an_image_that_does_not_fit_the_boards_memory_is_refused() {
        let mut bytes = image_for(Board::ZCU102);
        bytes.resize(0x0f00_0000, 0);
        let size = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&size.to_le_bytes());
        let image = Image::check(&bytes, Board::ZCU102).unwrap();
        let error = Bundle::new(Firmware::of(Board::ZCU102), &image, None).unwrap_err().to_string();
        assert!(
            error.contains("loads it to 0x200000, and at 0xf000000 comes the device"),
            "{error}"
        );
    }

    #[test]
    fn the_emulator_gets_no_card() {
        let error = bundle(Board::QEMU_VIRT, None).unwrap().card().unwrap_err().to_string();
        assert!(error.contains("`-kernel`"), "{error}");
    }

    #[test]
    fn who_has_a_card_is_not_told_to_make_one() {
        let bundle = bundle(Board::IMX8MP_EVK, None).unwrap();
        let (folder, card) = (bundle.next_steps(Place::Folder), bundle.next_steps(Place::Card));
        assert!(folder.iter().any(|step| step.starts_with("Copy all files")));
        assert_eq!(card.len() + 1, folder.len());
        assert!(!card.concat().contains("folder>/"));
        assert!(card.last().unwrap().contains("monitor /dev/ttyUSB<n>`"));
    }

    #[test]
    fn a_board_that_nobody_has_described_gets_its_image_and_no_card() {
        let bytes = image_for(Board::ZCU102);
        let image = Image::check(&bytes, Board::ZCU102).unwrap();
        let bundle = Bundle::new(Firmware::unknown(Board::ZCU102), &image, None).unwrap();
        assert_eq!(names(&bundle), ["hypervisor.img", "README.txt"]);
        assert!(bundle.next_steps(Place::Folder)[0].contains("multiple of 2 MiB"));
        let error = bundle.card().unwrap_err().to_string();
        assert!(error.contains("boards/flash/src/firmware.rs"), "{error}");
    }

    #[test]
    fn the_readme_names_every_file_and_every_missing_one() {
        for Firmware { board, .. } in Firmware::ALL {
            let bundle = bundle(board, None).unwrap();
            let readme = bundle.files.iter().find(|file| file.path == "README.txt").unwrap();
            let readme = String::from_utf8(readme.bytes.clone()).unwrap();
            let files = names(&bundle).into_iter().filter(|name| *name != "README.txt");
            for name in files.chain(bundle.missing.iter().map(|file| file.name)) {
                assert!(readme.contains(name), "{name} in\n{readme}");
            }
        }
    }
}
