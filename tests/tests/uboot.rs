//! A card that the tool has made, started by a real U-Boot.
//!
//! U-Boot for QEMU's `virt` machine (Debian's package `u-boot-qemu`) finds the partition and the file
//! system, accepts the script's checksums, runs it, loads the image, and enters it with `booti` at EL2:
//! all that the script of a board does, but for the board. The log is read by the code of `monitor`,
//! with U-Boot's own words before it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flash::bundle::Bundle;
use flash::firmware::{Firmware, Start};
use flash::image::Image;
use flash::uboot::Device;
use libtest_mimic::{Arguments, Failed, Trial};
use package::Board;
use qemu::build::{self, Profile};
use qemu::doctor;
use qemu::launch::Prepared;
use qemu::monitor::Monitor;
use qemu::print::Printer;
use qemu::scenario;
use qemu::serial::chunks;
use qemu::verb::monitor::follow;

/// Where Debian puts it.
const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The `virt` machine as a board with U-Boot. The address is neither where QEMU itself would load the
/// image nor where it is linked.
const FIRMWARE: Firmware = Firmware {
    board: Board::QEMU_VIRT,
    image: "hypervisor.img",
    load: 0x4100_0000,
    end: 0x4f00_0000,
    behind: "nothing",
    start: Start::UBoot(Device { number: "0", script_at: 0x5000_0000 }),
    foreign: &[],
    source: "",
    partition: 4 << 20,
    wiring: &[],
};

fn main() -> Result<ExitCode> {
    let name = "a_card_is_started_by_u_boot";
    let u_boot = env::var_os("RM_U_BOOT").map_or(U_BOOT.into(), PathBuf::from);
    let trial = if u_boot.exists() {
        Trial::test(name, move || start(&u_boot).map_err(|e| Failed::from(format!("{e:#}"))))
    } else {
        let reason = format!("skipped: no {}; `apt install u-boot-qemu`", u_boot.display());
        Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
    };
    Ok(libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code())
}

/// A QEMU that ends with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(u_boot: &Path) -> Result<()> {
    let tools = doctor::ensure()?;
    let programs = build::programs(Profile::Check)?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uboot");
    let scenario = scenario::named("uart-only")?;
    let prepared = Prepared::new(scenario, &programs, &directory)?;
    let image = std::fs::read(prepared.image())?;
    let checked = Image::check(&image, Board::QEMU_VIRT)?;
    let card = Bundle::new(FIRMWARE, &checked, None)?.card()?;
    let file = directory.join("card.img");
    std::fs::write(&file, &card.bytes)?;

    let mut child = Command::new(&tools.qemu)
        .args(["-M", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a72", "-smp", "2"])
        .args(["-m", "1G", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-bios")
        .arg(u_boot)
        .arg("-drive")
        .arg(format!("if=none,id=card,format=raw,file={}", file.display()))
        .args(["-device", "virtio-blk-device,drive=card"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = chunks(child.stdout.take().context("QEMU has no standard output")?);
    let machine = Machine(child);
    let (over, wait) = mpsc::channel::<()>();
    // Ends the machine when its time is over, which ends what is read from it.
    let keeper = thread::spawn(move || {
        let _ = wait.recv_timeout(PATIENCE);
        drop(machine);
    });
    let mut monitor = Monitor::new(prepared.program(), Printer::plain([].into_iter()))?;
    let mut screen = Vec::new();
    follow(&output, &mut monitor, &mut |_| Ok(()), &mut screen, &AtomicBool::new(false))?;
    drop(over);
    let _ = keeper.join();
    let screen = String::from_utf8_lossy(&screen);
    let mut rest = &screen[..];
    for text in ["U-Boot 20", "Starting kernel ...", "qemu-virt: EL2 at 0x41000000"]
        .iter()
        .chain(scenario.log)
    {
        let at = rest.find(text).with_context(|| format!("no {text:?} in\n{screen}"))?;
        rest = &rest[at..];
    }
    ensure!(rest.contains("VERDICT ") && rest.contains(" pass "), "{screen}");
    Ok(())
}
