//! What `cargo run -- image` writes for a manifest, started as its README says.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use boards::{IMX8MP_EVK, QEMU_VIRT, RPI4, ZCU102};
use fatfs::{FileSystem, FsOptions};
use flash::bundle::Bundle;
use flash::card::Card;
use flash::firmware::Firmware;
use flash::image::Image;
use hyp::board::Region;
use package::Board;
use qemu::build::{self, Profile, workspace};
use qemu::doctor;
use qemu::image::assemble;
use qemu::launch::Prepared;
use qemu::monitor::Monitor;
use qemu::print::Printer;
use qemu::scenario;
use qemu::serial::chunks;
use qemu::sources::Project;
use qemu::verb::monitor::follow;
use rm::address::Pa;

const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a file on a card holds.
fn on_card(card: &Card, start: u64, path: &str) -> Vec<u8> {
    let partition = card.bytes[start as usize..].to_vec();
    let disk = FileSystem::new(Cursor::new(partition), FsOptions::new()).unwrap();
    let mut bytes = Vec::new();
    disk.root_dir().open_file(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_boards_card_holds_the_very_image_that_its_scenario_starts() {
    doctor::ensure().unwrap();
    let programs = build::programs(Profile::Check).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cards");
    for board in boards::ids().filter(|&board| board != Board::QEMU_VIRT) {
        let scenario = scenario::named(&format!("{}-uart-only", board.name())).unwrap();
        let prepared = Prepared::new(scenario, &programs, folder.join(board.name())).unwrap();
        let image = fs::read(prepared.image()).unwrap();
        let checked = Image::check(&image, board).unwrap();
        // What the maker gives need not be real for this.
        let firmware = Firmware::of(board);
        let foreign = folder.join(board.name()).join("firmware");
        for file in firmware.foreign {
            let path = foreign.join(file.name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file.what).unwrap();
        }
        let bundle = Bundle::new(firmware, &checked, Some(&foreign)).unwrap();
        let card = bundle.card().unwrap();
        let held = on_card(&card, firmware.partition, firmware.image);
        assert!(held == image, "{}", board.name());
        for file in firmware.foreign {
            let what = file.what.as_bytes();
            match file.at {
                Some(at) => assert_eq!(&card.bytes[at as usize..][..what.len()], what),
                None => assert_eq!(on_card(&card, firmware.partition, file.name), what),
            }
        }
    }
}

#[test]
fn the_image_lies_in_memory_that_el2_knows() {
    for board in [&QEMU_VIRT, &RPI4, &IMX8MP_EVK, &ZCU102] {
        let firmware = Firmware::of(board.id);
        let lies_in = |region: &Region| {
            region.contains(Pa(firmware.load)) && region.contains(Pa(firmware.end - 1))
        };
        assert!(board.ram.iter().any(lies_in), "{}", board.id.name());
    }
}

#[test]
fn an_example_manifest_becomes_an_image_that_starts_as_its_readme_says() {
    let tools = doctor::ensure().unwrap();
    let programs = build::programs(Profile::Check).unwrap();
    let file = workspace().join("boards/manifest/examples/sharing.toml");
    let manifest = manifest::load_with(&file, &Project::new(&file, Profile::Check));
    let manifest = manifest.unwrap_or_else(|report| panic!("{report}"));
    let board = manifest.board();
    let program = programs.path(board.name()).unwrap();
    let image = assemble(program, manifest.into_writer([0; 16])).unwrap();
    let checked = Image::check(&image.bytes, board).unwrap();
    let bundle = Bundle::new(Firmware::of(board), &checked, None).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    bundle.write(&folder).unwrap();

    // The command between the first two back quotes, but for where its output goes.
    let readme = fs::read_to_string(folder.join("README.txt")).unwrap();
    let command = readme.split('`').nth(1).unwrap().replace("\\\n", " ");
    let (command, _) = command.split_once('>').unwrap();
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("qemu-system-aarch64"));
    let mut machine = Command::new(&tools.qemu)
        .args(words)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = chunks(machine.stdout.take().unwrap());
    let machine = Machine(machine);
    let (over, wait) = mpsc::channel::<()>();
    // Ends the machine when its time is over, which ends what is read from it.
    let keeper = thread::spawn(move || {
        let _ = wait.recv_timeout(PATIENCE);
        drop(machine);
    });
    let mut monitor = Monitor::new(program, Printer::plain([].into_iter())).unwrap();
    let mut screen = Vec::new();
    let never = AtomicBool::new(false);
    follow(&output, &mut monitor, &mut |_| Ok(()), &mut screen, &never).unwrap();
    drop(over);
    keeper.join().unwrap();

    let screen = String::from_utf8_lossy(&screen);
    let mut rest = &screen[..];
    for text in scenario::named("example-blocking").unwrap().log {
        let at = rest.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{screen}"));
        rest = &rest[at..];
    }
    assert!(rest.contains(&format!("VERDICT {} pass ", image.nonce)), "{screen}");
}
