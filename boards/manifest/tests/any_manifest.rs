//! Whatever a manifest says, reading it answers; and EL2 accepts whatever is accepted here.
//!
//! Files in `corpus/` are read first: texts that were once found by these tests or by people. `RM_EFFORT`
//! scales how many are made at random.

mod common;

use std::path::Path;
use std::{env, fs};

use common::boot::boot;
use common::{FULL, read};
use dtoolkit::fdt::Fdt;
use package::{DEVICE_INTERRUPTS, Package};
use proptest::prelude::*;

/// Reads a manifest. Whether it is accepted.
fn answer(text: &str) -> bool {
    match read(text) {
        Err(report) => {
            assert!(!report.problems().is_empty(), "refused for no reason:\n{text}");
            let shown = report.to_string();
            for problem in report.problems() {
                assert!(!problem.message().is_empty() && shown.contains("error: "), "{shown}");
            }
            assert!(report.render(true).len() >= shown.len());
            false
        }
        Ok(manifest) => {
            let _ = (manifest.tables(), manifest.picture());
            for vm in manifest.vms() {
                let tree = vm.device_tree.as_deref().map(Fdt::new);
                assert!(tree.is_none_or(|tree| tree.is_ok()), "a broken tree:\n{text}");
            }
            let bytes = manifest.into_writer([3; 16]).write();
            let bytes = bytes.unwrap_or_else(|error| panic!("EL2 refuses: {error}\n{text}"));
            let package = Package::parse(&bytes).unwrap();
            beyond(&package, text);
            boot(&package).unwrap_or_else(|error| panic!("EL2 does not boot: {error}\n{text}"));
            true
        }
    }
}

/// What the package's own check does not ask.
fn beyond(package: &Package<'_>, text: &str) {
    assert!(!package.hlt_allowed());
    for device in package.devices() {
        let registers = device.pa..device.pa + u64::from(device.pages) * 4096;
        for board in boards::QEMU_VIRT.devices.iter().chain(boards::QEMU_VIRT.ram) {
            let own = board.start.0..board.end().0;
            let meet = registers.start < own.end && own.start < registers.end;
            assert!(!meet, "a device that is EL2's, or RAM:\n{text}");
        }
    }
    for interrupt in package.interrupts() {
        assert!(DEVICE_INTERRUPTS.contains(&interrupt.virtual_) && interrupt.physical >= 32);
    }
    for vm in package.vms().filter(|vm| vm.trusted_dma) {
        assert_eq!(vm.placement, package::Placement::Identity, "{text}");
    }
}

fn cases(many: u32) -> ProptestConfig {
    let effort = env::var("RM_EFFORT").ok().and_then(|effort| effort.parse().ok()).unwrap_or(1);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(many * effort) }
}

#[test]
fn the_corpus_is_answered_as_its_first_lines_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10);
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        let accepted = answer(&text);
        let wanted = text.starts_with("# accepted");
        assert!(wanted || text.starts_with("# refused"), "{} says nothing", file.display());
        assert_eq!(accepted, wanted, "{}", file.display());
    }
}

/// A piece of text that means something somewhere.
fn word() -> impl Strategy<Value = String> {
    let keys = manifest::keys::SECTIONS.iter().flat_map(|section| section.keys);
    let keys: Vec<_> = keys.map(|key| key.name.to_owned()).collect();
    let numbers = [
        "0",
        "1",
        "2",
        "16",
        "31",
        "32",
        "33",
        "43",
        "63",
        "64",
        "255",
        "4096",
        "65536",
        "0x0",
        "0x1000",
        "0x0800_0000",
        "0x0900_0000",
        "0x4000_0000",
        "0x4020_0000",
        "0x7fe0_0000",
        "0x8000_0000",
        "0x7f_ffff_f000",
        "0x80_0000_0000",
        "9223372036854775807",
        "-1",
        "1e9",
        "18446744073709551615",
        "0xffffffffffffffff",
        "99999999999999999999999",
    ];
    let texts = [
        "\"64M\"",
        "\"2M\"",
        "\"0\"",
        "\"1024G\"",
        "\"17179869183G\"",
        "\"linux\"",
        "\"service\"",
        "\"driver\"",
        "\"\"",
        "\"é\"",
        "\"a b\"",
        "\"Image\"",
        "\"service.elf\"",
        "\"raw.bin\"",
        "\"missing\"",
        "\"empty\"",
        "\"example_partner\"",
        "\"qemu-virt\"",
        "\"rpi4\"",
        "\"zcu102\"",
        "\"level\"",
        "\"edge\"",
        "\"keep\"",
        "\"restart\"",
        "\"manage\"",
        "\"\\u0000\"",
    ];
    let others = [
        "true",
        "false",
        "[]",
        "{}",
        "[[vm]]\n",
        "[[vm.device]]\n",
        "[[channel]]\n",
        "[[heap]]\n",
        "[vm.quotas]\n",
        "= ",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "#",
        "\"",
        "'''",
        "1979-05-27",
    ];
    let fixed = numbers.into_iter().chain(texts).chain(others).map(str::to_owned);
    let fixed: Vec<_> = fixed.collect();
    prop_oneof![
        2 => prop::sample::select(keys),
        6 => prop::sample::select(fixed),
        1 => any::<String>().prop_map(|text| text.chars().take(8).collect()),
        1 => any::<u64>().prop_map(|number| format!("{number:#x}")),
    ]
}

/// A change of a manifest.
#[derive(Clone, Debug)]
enum Change {
    /// The value of a line becomes this.
    Value(usize, String),
    /// A line goes away.
    Drop(usize),
    /// A line is there again, at another place.
    Copy(usize, usize),
    /// This stands between two lines.
    Line(usize, String, String),
    /// This stands anywhere.
    Insert(usize, String),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..70_usize;
    prop_oneof![
        6 => (at.clone(), word()).prop_map(|(line, text)| Change::Value(line, text)),
        2 => at.clone().prop_map(Change::Drop),
        2 => (at.clone(), at.clone()).prop_map(|(from, to)| Change::Copy(from, to)),
        2 => (at, word(), word()).prop_map(|(line, key, value)| Change::Line(line, key, value)),
        1 => (0..1500_usize, word()).prop_map(|(at, text)| Change::Insert(at, text)),
    ]
}

fn changed(text: &str, changes: &[Change]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut inserts = Vec::new();
    for change in changes {
        let count = lines.len().max(1);
        match change {
            Change::Value(at, value) => {
                let line = lines.get_mut(at % count);
                if let Some((line, (key, _))) = line.and_then(|line| {
                    line.clone()
                        .split_once('=')
                        .map(|(k, v)| (k.to_owned(), v.to_owned()))
                        .map(|pair| (line, pair))
                }) {
                    *line = format!("{key}= {value}");
                }
            }
            Change::Drop(at) if !lines.is_empty() => drop(lines.remove(at % count)),
            Change::Drop(_) => {}
            Change::Copy(from, to) => {
                let line = lines.get(from % count).cloned().unwrap_or_default();
                lines.insert(to % count.min(lines.len() + 1), line);
            }
            Change::Line(at, key, value) => {
                lines.insert(at % count.min(lines.len() + 1), format!("{key} = {value}"));
            }
            Change::Insert(at, text) => inserts.push((*at, text)),
        }
    }
    let mut text = lines.join("\n");
    for (at, insert) in inserts {
        let at = text.floor_char_boundary(at % (text.len() + 1));
        text.insert_str(at, insert);
    }
    text
}

proptest! {
    #![proptest_config(cases(800))]

    #[test]
    fn no_change_of_a_good_manifest_makes_the_reader_panic_or_el2_refuse(
        changes in prop::collection::vec(change(), 1..5),
    ) {
        answer(&changed(FULL, &changes));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text: String, words in prop::collection::vec(word(), 0..40)) {
        answer(&text);
        answer(&words.join(" "));
    }
}

/// One of a VM's numbers, mostly one that is good.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    good: Vec<T>,
    bad: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![9 => prop::sample::select(good), 1 => prop::sample::select(bad)]
}

fn vm(index: usize) -> impl Strategy<Value = String> {
    let memory = mostly(vec!["2M", "4M", "8M", "64M"], vec!["3M", "0", "2G", "600M"]);
    let cpus = mostly(vec!["[0]", "[1, 0]", "[3]", "[2, 3]"], vec!["[]", "[4]", "[0, 0]"]);
    let program = mostly(
        vec!["kernel = \"Image\"", "program = \"raw.bin\"", "guest = \"example_partner\""],
        vec!["program = \"far.elf\"", "kernel = \"raw.bin\""],
    );
    let place = mostly(
        vec!["", "", "direct = true", "memory_at = 0x4000_0000"],
        vec!["memory_at = 0x8000_0000", "direct = true\nmemory_at = 0x5000_0000"],
    );
    let device = mostly(
        vec![
            String::new(),
            format!(
                "[[vm.device]]\nname = \"d\"\naddress = {:#x}\nsize = \"4K\"\n",
                0xa00_0000 + index * 0x1000
            ),
            format!(
                "[[vm.device]]\nname = \"d\"\naddress = {:#x}\nat = 0x1000_0000\nsize = \"8K\"\ninterrupts = [{{ number = {} }}]\n",
                0xb00_0000 + index * 0x2000,
                100 + index
            ),
        ],
        vec!["[[vm.device]]\nname = \"d\"\naddress = 0x0900_0000\nsize = \"4K\"\n".into()],
    );
    (memory, cpus, program, place, device).prop_map(move |(memory, cpus, program, place, device)| {
        format!(
            "[[vm]]\nname = \"vm{index}\"\nvmid = {}\nmemory = \"{memory}\"\ncpus = {cpus}\n{program}\n{place}\n{device}\n",
            index + 1
        )
    })
}

fn channel(vms: usize) -> impl Strategy<Value = String> {
    let size = mostly(vec!["4K", "64K", "1M"], vec!["0", "5K", "1G"]);
    (
        0..vms,
        0..vms,
        size,
        mostly(vec![""], vec!["owner_at = 0x4010_0000", "peer_at = 0x7000_0000"]),
    )
        .prop_map(|(owner, peer, size, at)| {
            format!(
                "[[channel]]\nowner = \"vm{owner}\"\npeer = \"vm{peer}\"\nsize = \"{size}\"\n{at}\n"
            )
        })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn vms_and_channels_of_all_kinds_are_packed_or_refused(
        gic in mostly(vec!["", "gic = 2", "gic = 3"], vec!["gic = 1"]),
        vms in (1..5_usize).prop_flat_map(|count| (0..count).map(vm).collect::<Vec<_>>()),
        channels in prop::collection::vec(channel(4), 0..4),
    ) {
        answer(&format!("board = \"qemu-virt\"\n{gic}\n{}{}", vms.concat(), channels.concat()));
    }
}

/// The tests above would prove nothing if nothing were ever accepted.
#[test]
fn a_fair_part_of_what_is_made_at_random_is_accepted() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let made = |runner: &mut TestRunner, index| vm(index).new_tree(runner).unwrap().current();
    let mut accepted = 0;
    for _ in 0..200 {
        let vms = made(&mut runner, 0) + &made(&mut runner, 1);
        accepted += usize::from(answer(&format!("board = \"qemu-virt\"\n{vms}")));
    }
    assert!((20..180).contains(&accepted), "{accepted} of 200");
}

/// The boot on the host would prove nothing if it took everything.
#[test]
fn the_boot_on_the_host_refuses_what_el2_refuses() {
    let change = |change: fn(&mut package::Writer)| {
        let mut writer = read(FULL).unwrap().into_writer([0; 16]);
        change(&mut writer);
        boot(&Package::parse(&writer.write().unwrap()).unwrap())
    };
    assert_eq!(change(|_| ()), Ok(()));
    let reason = |writer| change(writer).unwrap_err();
    // Where VMs accept nothing; too few frames for a long message; too few pages for a channel.
    assert!(reason(|it| it.channels[1].peer_ipa = 0x2000_0000).contains("channel 1"));
    let few = |it: &mut package::Writer| {
        (it.vms[0].quotas.guaranteed.frames, it.vms[0].quotas.limit.frames) = (8, 8);
        it.shared = package::Amounts::enough_for(&it.vms);
    };
    assert!(reason(few).contains("Frames"));
    let pages = |it: &mut package::Writer| {
        it.vms[0].quotas.guaranteed.pages_lent = 0;
        it.vms[0].quotas.limit.pages_lent = 15;
    };
    assert!(reason(pages).contains("channel 0"));
}
