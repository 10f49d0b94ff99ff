//! Every rule, broken once: the answer names the line, the reason, and what to do.

mod common;

use common::{FULL, read};

/// A manifest with one mistake: in the full one `good` is replaced by `bad`; the answer points at the line
/// that contains `line`, says `reason`, and advises `advice`.
struct Row {
    good: &'static str,
    bad: &'static str,
    line: &'static str,
    reason: &'static str,
    advice: &'static str,
}

/// The mistake is on the line that `bad` begins.
const fn row(
    good: &'static str,
    bad: &'static str,
    reason: &'static str,
    advice: &'static str,
) -> Row {
    Row { good, bad, line: bad, reason, advice }
}

const ROWS: &[Row] = &[
    // Words.
    row("memory = \"64M\"", "mempry = \"64M\"", "unknown key `mempry`", "did you mean `memory`?"),
    row(
        "board = \"qemu-virt\"",
        "board = \"qemu-vrit\"",
        "no value of `board`",
        "did you mean `qemu-virt`?",
    ),
    row(
        "roles = [\"inspect\"]",
        "roles = [\"inspct\"]",
        "`inspct` is no value of `roles`",
        "did you mean `inspect`?",
    ),
    row(
        "end_of_life = \"restart\"",
        "end_of_life = \"reboot\"",
        "no value of `end_of_life`",
        "known are `keep`, `reset` and `restart`",
    ),
    row(
        "on_fault = \"stop\"",
        "on_fault = \"stopp\"",
        "no value of `on_fault`",
        "did you mean `stop`?",
    ),
    row(
        "sanitize = \"always\"",
        "sanitize = \"alway\"",
        "no value of `sanitize`",
        "did you mean `always`?",
    ),
    row(
        "owned_parcels = \"keep\"",
        "owned_parcels = \"kep\"",
        "no value of `owned_parcels`",
        "did you mean `keep`?",
    ),
    row(
        "trigger = \"edge\"",
        "trigger = \"rising\"",
        "no value of `trigger`",
        "known are `level` and `edge`",
    ),
    row("start = \"all\"", "start = \"al\"", "no value of `start`", "did you mean `all`?"),
    row(
        "[[channel]]\nowner = \"linux\"",
        "[[chanel]]\nowner = \"linux\"",
        "unknown key `chanel`",
        "did you mean `channel`?",
    ),
    row(
        "peer = \"service\"",
        "peer = \"servcie\"",
        "no VM is called `servcie`",
        "did you mean `service`?",
    ),
    row(
        "vms = [\"linux\", \"service\"]",
        "vms = [\"linux\", \"servic\"]",
        "no VM is called `servic`",
        "did you mean `service`?",
    ),
    row(
        "program = \"service.elf\"",
        "guest = \"example_blockin\"",
        "no guest program is called",
        "did you mean `example_blocking`?",
    ),
    row(
        "dma = true\ninter",
        "dna = true\ninter",
        "unknown key `dna` in [[vm.device]]",
        "did you mean `dma`?",
    ),
    row("parcels = 8,", "parcles = 8,", "unknown key `parcles`", "did you mean `parcels`?"),
    // Types.
    row("vmid = 16", "vmid = \"16\"", "`vmid` must be a whole number", ""),
    row("vmid = 16", "vmid = 65536", "`vmid` must be a number from 0 to 65535", ""),
    row("vmid = 16", "vmid = -1", "`vmid` must be a number", ""),
    row("memory = \"64M\"", "memory = \"64X\"", "`memory` is not a size", "\"64M\""),
    row("memory = \"64M\"", "memory = 64.5", "`memory` must be a whole number", ""),
    row("cpus = [0, 1]", "cpus = 2", "`cpus` must be a list", ""),
    row("trusted_dma = true", "trusted_dma = \"yes\"", "`trusted_dma` must be true or false", ""),
    row("may_consume = false", "may_consume = 0", "`may_consume` must be true or false", ""),
    row(
        "may_consume = false",
        "may_consme = false",
        "unknown key `may_consme`",
        "did you mean `may_consume`?",
    ),
    row("wakeup-source = true", "wakeup-source = false", "no value of a property", "write `true`"),
    row("wakeup-source = true", "reg = 1", "made by the tool", "take it out"),
    row("wakeup-source = true", "\"wake up\" = true", "no name of a property", "1 to 31"),
    // What must be there.
    Row {
        good: "vmid = 16\n",
        bad: "",
        line: "[[vm]]",
        reason: "[[vm]] has no `vmid`",
        advice: "",
    },
    Row {
        good: "kernel = \"Image\"\n",
        bad: "",
        line: "[[vm]]",
        reason: "needs one of `program`, `kernel` and `guest`",
        advice: "",
    },
    Row {
        good: "address = 0x0901_0000\n",
        bad: "",
        line: "[[vm.device]]",
        reason: "has no `address`",
        advice: "",
    },
    Row { good: "number = 48, ", bad: "", line: "at = 50", reason: "has no `number`", advice: "" },
    row(
        "program = \"service.elf\"",
        "program = \"service.elf\"\nkernel = \"Image\"",
        "contradicts",
        "",
    ),
    // Names and numbers.
    row("name = \"service\"", "name = \"linux\"", "the VM `linux` is described twice", ""),
    row("name = \"service\"", "name = \"a service\"", "no name of a VM", "1 to 16"),
    row("name = \"service\"", "name = \"\"", "no name of a VM", "1 to 16"),
    row(
        "name = \"buffers\"",
        "name = \"a-very-long-name-of-a-heap\"",
        "no name of a heap",
        "1 to 16",
    ),
    row("vmid = 0x11", "vmid = 16", "VMID 16 is given twice", ""),
    row("vmid = 0x11", "vmid = 0", "VMID 0 means nobody", "1 to 65535"),
    row("vmid = 0x11", "vmid = 255", "the resource manager's own", "1 to 65535"),
    row("gic = 3", "gic = 4", "`gic` must be 2 or 3", ""),
    // CPUs.
    row("cpus = [0, 1]", "cpus = [0, 4]", "the board has no CPU 4", "it has 0 to 3"),
    row("cpus = [0, 1]", "cpus = [1, 1]", "two vCPUs of linux run on CPU 1", ""),
    row("cpus = [0, 1]", "cpus = []", "a VM cannot have 0 vCPUs", ""),
    row("cpus = [0, 1]", "cpus = [0, 1, 2]", "a VM cannot have 3 vCPUs", ""),
    row("vcpus = 1", "vcpus = 3", "a VM cannot have 3 vCPUs", ""),
    row(
        "cpus = [0, 1]",
        "cpus = [0, 1]\nvcpus = 1",
        "1 vCPUs cannot run on 2 CPUs",
        "leave `vcpus` out",
    ),
    // Memory.
    row("memory = \"64M\"", "memory = \"63M\"", "63 MiB is no multiple of 2 MiB", "\"64M\""),
    row("memory = \"64M\"", "memory = 0", "0 B is no multiple of 2 MiB", "\"2M\""),
    row("memory = \"64M\"", "memory = \"300G\"", "no such board has more than 255 GiB", ""),
    row("memory = \"64M\"", "memory = \"2048G\"", "goes beyond", ""),
    row(
        "memory = 8388608",
        "memory = 8388608\nmemory_at = 0x4010_0000",
        "memory cannot start at 0x4010_0000",
        "multiple of 2 MiB",
    ),
    row(
        "memory = 8388608",
        "memory = 8388608\nmemory_at = 0x0900_0000",
        "interrupt controller and console",
        "",
    ),
    row(
        "memory = \"4M\"",
        "memory = \"4M\"\nmemory_at = 0x2000_0000",
        "the board has no RAM there",
        "RAM is at 0x4000_0000..0x40_0000_0000",
    ),
    row(
        "memory = \"4M\"",
        "memory = \"4M\"\nmemory_at = 0x4040_0000",
        "overlaps EL2 and its package",
        "",
    ),
    row(
        "memory = \"4M\"",
        "memory = \"1G\"",
        "not every qemu-virt has 1 GiB of free RAM in one piece",
        "say where: `memory_at`",
    ),
    // Programs.
    row(
        "program = \"service.elf\"",
        "program = \"missing\"",
        "cannot read missing",
        "the folder of the manifest",
    ),
    row("program = \"service.elf\"", "program = \"empty\"", "empty: the file is empty", ""),
    row(
        "program = \"service.elf\"",
        "program = \"far.elf\"",
        "does not fit the memory of service",
        "",
    ),
    row("program = \"service.elf\"", "program = \"Image.gz\"", "compressed by gzip", "gunzip"),
    row(
        "program = \"service.elf\"",
        "program = \"service.elf\"\nload = 0x4000_0000",
        "`load` has no meaning here",
        "leave `load` out",
    ),
    row(
        "program = \"raw.bin\"",
        "program = \"raw.bin\"\nentry = 0x1001",
        "is no instruction of the program",
        "a multiple of 4",
    ),
    row(
        "program = \"raw.bin\"",
        "program = \"raw.bin\"\nload = 0x1000",
        "does not fit the memory of driver",
        "",
    ),
    row(
        "kernel = \"Image\"",
        "kernel = \"service.elf\"",
        "is no arm64 Linux image",
        "`program` takes ELF",
    ),
    row(
        "kernel = \"Image\"",
        "kernel = \"Image\"\nentry = 0x4000_0000",
        "`entry` has no meaning here",
        "leave `entry` out",
    ),
    row("initrd = \"initrd\"", "initrd = \"empty\"", "the file is empty", ""),
    row(
        "initrd = \"initrd\"",
        "initrd = \"initrd\"\ndevice_tree = false",
        "an initrd without a device tree",
        "",
    ),
    row("console=ttyAMA0 quiet", "a\\u0000b", "ends at a zero byte", ""),
    // Devices.
    row("name = \"rtc\"", "name = \"1rtc\"", "no name of a device", "a letter"),
    row(
        "address = 0x0901_0000",
        "address = 0x0901_0200",
        "0x0901_0200 is no multiple of 4096",
        "its neighbours",
    ),
    row("size = \"4K\"\nat", "size = 0\nat", "has no registers", ""),
    row("address = 0x0901_0000", "address = 0x0900_0000", "overlaps EL2's UART", ""),
    row("address = 0x0901_0000", "address = 0x0800_0000", "overlaps the interrupt controller", ""),
    row("address = 0x0901_0000", "address = 0x5000_0000", "lies in RAM", ""),
    row("address = 0x0901_0000", "address = 0x0a00_0000", "driver", ""),
    row(
        "at = 0x0a00_0000",
        "at = 0x0900_0000",
        "interrupt controller and console",
        "`at = 0x0a00_0000`",
    ),
    Row {
        good: "at = 0x0a00_0000",
        bad: "at = 0x4000_0000",
        line: "memory = 8388608",
        reason: "overlaps rtc of service",
        advice: "",
    },
    Row {
        good: "trusted_dma = true\n",
        bad: "",
        line: "dma = true",
        reason: "virtio reaches memory by itself, and nothing confines it to the memory of driver",
        advice: "`trusted_dma = true` and `direct = true`",
    },
    Row {
        good: "direct = true\n",
        bad: "",
        line: "dma = true",
        reason: "virtio knows machine addresses only",
        advice: "`direct = true`",
    },
    row(
        "sanitize = \"always\"",
        "trusted_dma = true",
        "none of its devices has `dma = true`",
        "leave `trusted_dma` out",
    ),
    row("number = 34", "number = 31", "interrupt 31 is no device's", "plus 32"),
    row("number = 34", "number = 1020", "interrupt 1020 is no device's", "plus 32"),
    row("number = 34", "number = 33", "interrupt 33 is that of EL2's own UART", ""),
    row("number = 49", "number = 48", "interrupt 48 is given twice", ""),
    row("number = 49", "number = 34", "interrupt 34 is given twice", ""),
    row("at = 50", "at = 42", "cannot have interrupt 42", "43 to 63"),
    row(
        "{ number = 49 }",
        "{ number = 49, at = 50 }",
        "interrupt 50 is given twice in this VM",
        "",
    ),
    row("\"arm,pl031\"", "\"arm\\u0000pl031\"", "no device is called like this", ""),
    // Channels and heaps.
    row("peer = \"service\"", "peer = \"linux\"", "cannot share a channel with itself", ""),
    row(
        "peer = \"service\"",
        "peer = \"driver\"",
        "`driver` is `direct`",
        "make `driver` the owner",
    ),
    row("size = \"64K\"", "size = 1000", "a channel's size must be a multiple of 4096", ""),
    Row {
        good: "size = \"64K\"",
        bad: "size = \"256M\"",
        line: "[vm.quotas]",
        reason: "need 65536 pages_lent",
        advice: "",
    },
    row(
        "label = 7",
        "owner_at = 0x5000_0000",
        "must lie in the memory of linux",
        "leave `owner_at` out",
    ),
    row(
        "label = 7",
        "owner_at = 0x4000_0000",
        "channel (0x4000_0000..0x4001_0000) overlaps program",
        "",
    ),
    row("label = 7", "owner_at = 0x4300_0001", "0x4300_0001 is no multiple of 4096", ""),
    row("peer_at = 0x7000_0000", "peer_at = 0x4000_0000", "overlaps memory of linux", ""),
    row(
        "peer_at = 0x7000_0000",
        "peer_at = 0x2000_0000",
        "the peer cannot see the channel at 0x2000_0000",
        "from 0x4000_0000",
    ),
    row("size = \"16M\"", "size = \"1M\"", "1 MiB is no multiple of 2 MiB", ""),
    row("guaranteed = \"4M\"", "guaranteed = 1000", "1000 B is no multiple of 4096", ""),
    row("limit = \"10M\"", "limit = 4095", "4095 B is no multiple of 4096", ""),
    row("limit = \"10M\"", "limit = \"18M\"", "the heap has only 16 MiB", ""),
    row("guaranteed = \"4M\"", "guaranteed = \"12M\"", "the limit is 10 MiB", ""),
    row(
        "guaranteed = \"4M\"",
        "guaranteed = \"9M\"",
        "guaranteed 18 MiB, but the heap has 16 MiB",
        "",
    ),
    Row {
        good: "vms = [\"linux\", \"service\"]",
        bad: "vms = []",
        line: "[[heap]]",
        reason: "a heap that no VM may use",
        advice: "name VMs",
    },
    // Quotas.
    Row {
        good: "parcels = 32",
        bad: "parcels = 7",
        line: "[vm.quotas]",
        reason: "8 parcels are guaranteed, but the limit is 7",
        advice: "",
    },
    Row {
        good: "parcels = 8,",
        bad: "unread = 0,",
        line: "[vm.quotas]",
        reason: "at least 1 `unread`",
        advice: "",
    },
    Row {
        good: "parcels = 8,",
        bad: "frames = 8,",
        line: "[vm.quotas]",
        reason: "at least 9 `frames`",
        advice: "",
    },
    Row {
        good: "parcels = 32",
        bad: "unread = 33",
        line: "[vm.quotas]",
        reason: "the limit of `unread` is at most",
        advice: "",
    },
];

#[test]
fn every_mistake_is_answered_with_line_reason_and_advice() {
    let wrong: Vec<_> = ROWS.iter().filter_map(|row| check(row).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(row: &Row) -> Result<(), String> {
    let Row { good, bad, line, reason, advice } = row;
    assert!(FULL.contains(good), "{good} is no part of the full manifest");
    let text = FULL.replacen(good, bad, 1);
    let Err(report) = read(&text) else { return Err(format!("{bad:?} was accepted")) };
    let wrong = |what: &str| Err(format!("{bad}: {what}\n{report}"));
    let found = report.problems().iter().find(|problem| problem.message().contains(reason));
    let Some(problem) = found else { return wrong(reason) };
    if !problem.advice().unwrap_or("").contains(advice) {
        return wrong(advice);
    }
    let Some((at, column)) = report.place(problem) else { return wrong("no place") };
    let shown = text.lines().nth(at - 1).unwrap_or("");
    if !line.lines().any(|line| !line.is_empty() && shown.contains(line)) {
        return wrong(&format!("line {at}"));
    }
    let printed = report.to_string();
    let place = printed.contains(&format!("a.toml:{at}:{column}"));
    if !(place && printed.contains(shown) && printed.contains('^')) {
        return wrong("the line is not shown");
    }
    Ok(())
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_file() {
    let text = FULL
        .replace("vmid = 16", "vmid = 0")
        .replace("memory = 8388608", "memory = 1")
        .replace("peer = \"service\"", "peer = \"nobody\"")
        .replace("sanitize", "sanitise");
    let report = read(&text).unwrap_err();
    let messages: Vec<_> = report.problems().iter().map(|problem| problem.message()).collect();
    assert_eq!(
        messages,
        [
            "VMID 0 means nobody",
            "1 B is no multiple of 2 MiB",
            "unknown key `sanitise` in [[vm]]",
            "no VM is called `nobody`",
        ]
    );
    assert!(report.to_string().ends_with("4 errors in a.toml"));
}

#[test]
fn a_file_that_is_no_toml_is_shown_where_it_breaks_and_the_rest_is_checked() {
    let text =
        FULL.replace("vmid = 16", "vmid = = 16").replace("memory = 8388608", "memroy = 8388608");
    let report = read(&text).unwrap_err();
    let shown = report.to_string();
    assert!(shown.contains("vmid = = 16") && shown.contains("did you mean `memory`?"), "{shown}");
    assert!(!shown.contains("has no `vmid`"), "{shown}");
}

#[test]
fn a_key_that_is_said_twice_is_refused() {
    let report = read(&FULL.replace("vmid = 16", "vmid = 16\nvmid = 17")).unwrap_err();
    assert!(report.to_string().contains("duplicate key"), "{report}");
}

#[test]
fn a_manifest_without_vms_is_refused() {
    for text in ["board = \"qemu-virt\"", "board = \"qemu-virt\"\nvm = []", ""] {
        let report = read(text).unwrap_err();
        assert!(report.to_string().contains("there is no VM"), "{report}");
    }
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let vms: String = (1..18)
        .map(|n| {
            format!("[[vm]]\nname = \"v{n}\"\nvmid = {n}\nmemory = \"2M\"\nprogram = \"raw.bin\"\n")
        })
        .collect();
    let report = read(&format!("board = \"qemu-virt\"\n{vms}")).unwrap_err();
    assert!(report.to_string().contains("17 VMs are more than 16"), "{report}");
    let channel = "[[channel]]\nowner = \"linux\"\npeer = \"service\"\nsize = \"4K\"\n";
    let report = read(&format!("{FULL}{}", channel.repeat(63))).unwrap_err();
    assert!(report.to_string().contains("65 channels are more than 64"), "{report}");
    let numbers: Vec<_> = (100..122).map(|n| format!("{{ number = {n} }}")).collect();
    let many = FULL.replace("{ number = 34, trigger = \"level\" }", &numbers.join(", "));
    let report = read(&many).unwrap_err();
    assert!(report.to_string().contains("the VM has no free interrupt left"), "{report}");
}

#[test]
fn the_tables_of_what_a_vm_has_must_fit_its_frames() {
    let device = |n: u64| {
        let at = 0x1000_0000 + n * 0x20_0000;
        format!("[[vm.device]]\nname = \"d{n}\"\naddress = {at:#x}\nsize = \"4K\"\n")
    };
    let devices: String = (0..20).map(device).collect();
    let vm = |quotas: &str| {
        let vm = "[[vm]]\nname = \"a\"\nvmid = 1\nmemory = \"2M\"\nprogram = \"raw.bin\"\n";
        format!("board = \"qemu-virt\"\n{vm}{quotas}{devices}")
    };
    assert!(read(&vm("")).is_ok());
    let few = "quotas = { guaranteed = { frames = 10 }, limit = { frames = 30 } }\n";
    let report = read(&vm(few)).unwrap_err();
    let reason =
        "the memory, devices and channels of a take up to 33 `frames`, but its limit is 30";
    assert!(report.to_string().contains(reason), "{report}");
}

#[test]
fn frames_that_no_board_has_are_refused() {
    let text = FULL.replace("parcels = 32", "frames = 4000000000");
    let report = read(&text).unwrap_err().to_string();
    assert!(report.contains("no such board has more than 255 GiB"), "{report}");
}

#[test]
fn a_manifest_that_cannot_be_read_says_why() {
    let report = manifest::load(std::path::Path::new("/nowhere/a.toml")).unwrap_err();
    assert!(report.to_string().contains("cannot read /nowhere/a.toml"), "{report}");
}
