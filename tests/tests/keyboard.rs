//! `cargo run` on a terminal: from the user's keys to the VMs' answers, and to the end by a key.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use qemu::build::{self, Profile};
use qemu::doctor;
use qemu::keyboard::Keyboard;
use qemu::launch::Prepared;
use qemu::scenario;
use qemu::typing::Script;
use qemu::verdict::End;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// What the user types when a text appears.
const KEYS: &[(&str, &[u8])] = &[
    ("first VM: press a key? ", b"x"),
    ("first VM: your name? ", b"Adda\x7f\x7fa\r"),
    ("hello Ada, says the first VM", b"\x01n"),
    ("keyboard: goes to B", b"Bob\r"),
    ("hello Bob, says the second VM", b"\x01"),
    ("second VM: your name? ", b"x"),
];

/// The user's end of a terminal, and the tool's.
fn terminal() -> (File, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
    (File::from(user), OpenOptions::new().read(true).write(true).open(name).unwrap())
}

#[test]
fn a_user_talks_with_two_vms_and_ends_the_run() {
    let (tools, programs) = (doctor::ensure().unwrap(), build::programs(Profile::Check).unwrap());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("consoles-by-hand");
    let scenario = scenario::named("consoles").unwrap();
    let prepared = Prepared::new(scenario, &programs, directory).unwrap();
    let (mut user, tool) = terminal();
    let keyboard = Keyboard::on(tool).unwrap();
    let mut script = Script::new(KEYS);
    let mut screen = Vec::new();
    let outcome = prepared.run_by_hand(&tools.qemu, &keyboard, &mut |line| {
        screen.push(line.text.clone());
        script.after(line).into_iter().for_each(|keys| user.write_all(keys).unwrap());
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.end, End::Quit, "{screen:#?}");
    assert!(outcome.judgement.is_err(), "a run that the user ended is no success");
    assert!(screen.contains(&"first VM: your name? Ada".into()), "{screen:#?}");
}
