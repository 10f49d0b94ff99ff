//! Devices of the machine that VMs drive themselves, and their interrupts.

use package::{DEVICE_INTERRUPTS, EMULATED, MAX_DEVICES, SHARED_INTERRUPTS};

use crate::config;
use crate::draft::{Device, Draft, IPA_END, Interrupt, Vm};
use crate::map::{Map, PAGE, hex, meet, range, text};
use crate::report::{At, Problem, Problems, Span};

/// What is known of the machine while devices are given out.
struct Machine<'a> {
    map: Map,
    ram: Vec<std::ops::Range<u64>>,
    /// EL2's own interrupt.
    uart: Option<u32>,
    /// Interrupts that are given, and where.
    given: Vec<At<u32>>,
    problems: &'a Problems,
}

/// Gives each VM its devices.
pub(super) fn check(draft: &mut Draft<'_>) {
    let mut machine = Machine {
        map: std::mem::take(&mut draft.machine),
        ram: draft.facts.as_ref().map_or(Vec::new(), |facts| facts.ram.clone()),
        uart: draft.facts.as_ref().map(|facts| facts.uart_interrupt),
        given: Vec::new(),
        problems: draft.problems,
    };
    for vm in &mut draft.vms {
        dma(vm.said, draft.problems);
        names(vm.said, draft.problems);
        let mut seen = Vec::new();
        vm.said.devices.iter().for_each(|said| reserve(said, &mut seen, draft.problems));
        for said in &vm.said.devices {
            if let Some(device) = give(&mut machine, vm, said, &mut seen) {
                vm.devices.push(device);
            }
        }
    }
    draft.machine = machine.map;
    let devices = || draft.config.vms.iter().flat_map(|vm| &vm.devices);
    let interrupts = devices().flat_map(|device| {
        device
            .interrupts
            .iter()
            .filter_map(|interrupt| interrupt.number.as_ref().map(|it| &it.span))
    });
    count("devices", devices().map(|device| &device.span).collect(), draft.problems);
    count("interrupts", interrupts.collect(), draft.problems);
}

fn count(what: &str, spans: Vec<&Span>, problems: &Problems) {
    if let Some(span) = spans.get(MAX_DEVICES) {
        let message = format!("{} {what} are more than {MAX_DEVICES}", spans.len());
        problems.add(Problem::new(span, message).label("one too many"));
    }
}

/// A device that reaches memory by itself must be said to be trusted, by name.
fn dma(said: &config::Vm<'_>, problems: &Problems) {
    let trusted = said.trusted_dma.as_ref().filter(|trusted| trusted.value);
    let with_dma = |device: &&config::Device<'_>| device.dma.as_ref().is_some_and(|dma| dma.value);
    for device in said.devices.iter().filter(with_dma) {
        let Some(dma) = &device.dma else { continue };
        let called = device.name.as_ref().map_or("the device", |name| name.value);
        if trusted.is_none() {
            let message = format!(
                "{called} reaches memory by itself, and nothing confines it to the memory of {}",
                said.called()
            );
            let help = "whoever drives it can read and write all memory: if you trust this VM with \
                        that, write `trusted_dma = true` and `direct = true` into it";
            problems.add(Problem::new(&dma.span, message).help(help));
        } else if !said.is_direct() {
            let message =
                format!("{called} knows machine addresses only, but {} sees others", said.called());
            let help = "write `direct = true`, so that its addresses are the machine's";
            problems.add(Problem::new(&dma.span, message).help(help));
        }
    }
    if let Some(trusted) = trusted.filter(|_| !said.devices.iter().any(|device| with_dma(&device)))
    {
        let message = format!(
            "{} is trusted with DMA, but none of its devices has `dma = true`",
            said.called()
        );
        problems.add(Problem::new(&trusted.span, message).help("leave `trusted_dma` out"));
    }
}

/// Devices of a VM are told apart by name, and their nodes are called by it.
fn names(said: &config::Vm<'_>, problems: &Problems) {
    let mut earlier: Vec<&At<&str>> = Vec::new();
    for name in said.devices.iter().filter_map(|device| device.name.as_ref()) {
        // Devicetree v0.4, 2.2.1: up to 31 characters, the first a letter.
        let known = |c: char| c.is_ascii_alphanumeric() || ",._+-".contains(c);
        let letter = name.value.starts_with(|c: char| c.is_ascii_alphabetic());
        if !letter || name.value.len() > 31 || !name.value.chars().all(known) {
            let message = format!("`{}` is no name of a device", name.value.escape_debug());
            let help = "a letter, then up to 30 letters, digits and characters of `,._+-`";
            problems.add(Problem::new(&name.span, message).help(help));
        }
        if let Some(other) = earlier.iter().find(|other| other.value == name.value) {
            let message = format!("{} has two devices called `{}`", said.called(), name.value);
            problems.add(Problem::new(&name.span, message).also(Some(&other.span), "first here"));
        }
        earlier.push(name);
    }
}

/// Notes the interrupts that a VM's devices name in the VM, before others are chosen.
fn reserve(said: &config::Device<'_>, seen: &mut Vec<At<u32>>, problems: &Problems) {
    for at in said.interrupts.iter().filter_map(|interrupt| interrupt.at.as_ref()) {
        if !DEVICE_INTERRUPTS.contains(&at.value) {
            let (first, last) = DEVICE_INTERRUPTS.into_inner();
            let message = format!("a VM's device cannot have interrupt {}", at.value);
            let help = format!("{first} to {last} are for devices, or leave `at` out");
            problems.add(Problem::new(&at.span, message).help(help));
        }
        if let Some(other) = seen.iter().find(|other| other.value == at.value) {
            let message = format!("interrupt {} is given twice in this VM", at.value);
            problems.add(Problem::new(&at.span, message).also(Some(&other.span), "first here"));
        }
        seen.push(at.clone());
    }
}

fn give<'a>(
    machine: &mut Machine<'_>,
    vm: &mut Vm<'a>,
    said: &'a config::Device<'a>,
    seen: &mut Vec<At<u32>>,
) -> Option<Device<'a>> {
    let problems = machine.problems;
    let interrupts = interrupts(machine, said, seen);
    texts(said, problems);
    let (name, address, size) = (said.name.as_ref()?, said.address.as_ref()?, said.size.as_ref()?);
    let at = said.at.as_ref().unwrap_or(address);
    for number in [address, size, at] {
        if !number.value.is_multiple_of(PAGE) {
            let message = format!("{} is no multiple of 4096", hex(number.value));
            let help = "a VM is given whole pages: with a part of one it would get its neighbours";
            problems.add(Problem::new(&number.span, message).help(help));
            return None;
        }
    }
    let (pa, ipa) = (range(address.value, size.value), range(at.value, size.value));
    let fits = |end: u64| size.value > 0 && size.value <= IPA_END && end <= IPA_END;
    if !fits(pa.end) || !fits(ipa.end) {
        let message = format!("{} has no registers, or some beyond {}", name.value, hex(IPA_END));
        problems.add(Problem::new(&size.span, message));
        return None;
    }
    if let Some(bank) = machine.ram.iter().find(|bank| meet(bank, &pa)) {
        let message = format!("{} ({}) lies in RAM ({})", name.value, text(&pa), text(bank));
        problems.add(Problem::new(&address.span, message).label("no device is there"));
        return None;
    }
    if meet(&ipa, &EMULATED) {
        let message = format!(
            "{} ({}) lies where every VM has its interrupt controller and console ({})",
            name.value,
            text(&ipa),
            text(&EMULATED)
        );
        let problem = Problem::new(&at.span, message);
        problems
            .add(problem.help("say where else the VM finds it: `at = 0x0a00_0000`, for example"));
        return None;
    }
    let what = format!("{} of {}", name.value, vm.said.called());
    let given = machine.map.claim(pa.clone(), &*what, &address.span, problems);
    let placed = vm.space.claim(ipa.clone(), &*what, &at.span, problems);
    let device = Device { said, pa: pa.start, ipa: ipa.start, size: size.value, interrupts };
    (given && placed).then_some(device)
}

/// Texts of the node must not end early.
fn texts(said: &config::Device<'_>, problems: &Problems) {
    for text in
        said.compatible.iter().filter(|text| text.value.contains('\0') || text.value.is_empty())
    {
        problems.add(Problem::new(&text.span, "no device is called like this in device trees"));
    }
}

fn interrupts(
    machine: &mut Machine<'_>,
    said: &config::Device<'_>,
    seen: &mut Vec<At<u32>>,
) -> Vec<Interrupt> {
    let mut all = Vec::new();
    for interrupt in &said.interrupts {
        let Some(number) = &interrupt.number else { continue };
        physical(machine, number);
        let virtual_ = interrupt.at.as_ref().map(|at| at.value).or_else(|| {
            let free = |number: &u32| !seen.iter().any(|other| other.value == *number);
            DEVICE_INTERRUPTS.into_iter().find(free)
        });
        let Some(virtual_) = virtual_ else {
            let message = "the VM has no free interrupt left for this one";
            machine.problems.add(Problem::new(&number.span, message));
            continue;
        };
        if interrupt.at.is_none() {
            seen.push(number.with(virtual_));
        }
        all.push(Interrupt { physical: number.value, virtual_, edge: interrupt.edge });
    }
    all
}

/// Notes an interrupt that cannot be given.
fn physical(machine: &mut Machine<'_>, number: &At<u32>) {
    let problems = machine.problems;
    if !SHARED_INTERRUPTS.contains(&number.value) {
        let (first, last) = SHARED_INTERRUPTS.into_inner();
        let message = format!("interrupt {} is no device's", number.value);
        let help = format!(
            "devices have {first} to {last}: the number in a Linux device tree, `<0 n _>`, plus 32"
        );
        return problems.add(Problem::new(&number.span, message).help(help));
    }
    if machine.uart == Some(number.value) {
        let message = format!("interrupt {} is that of EL2's own UART", number.value);
        return problems.add(Problem::new(&number.span, message));
    }
    if let Some(other) = machine.given.iter().find(|other| other.value == number.value) {
        let message = format!("interrupt {} is given twice", number.value);
        return problems
            .add(Problem::new(&number.span, message).also(Some(&other.span), "first here"));
    }
    machine.given.push(number.clone());
}
