//! The board, and that VMs and heaps can be told apart.

use package::{MAX_CHANNELS, MAX_HEAPS};
use rm::config::{MAX_NAME, MAX_VMS};

use crate::draft::Draft;
use crate::report::{At, Problem, Problems, Span};

/// The resource manager's own VMID.
const MANAGER: u16 = 255;

/// Notes bad names, numbers and counts.
pub(super) fn check(draft: &Draft<'_>) {
    let (config, problems) = (draft.config, draft.problems);
    board(draft);
    if config.vms.is_empty() {
        problems.add(Problem::new(&config.span, "there is no VM").help("add a section `[[vm]]`"));
    }
    let spans = |vms: &[crate::config::Vm<'_>]| vms.iter().map(|vm| vm.span.clone()).collect();
    count("VMs", spans(&config.vms), MAX_VMS, problems);
    count(
        "channels",
        config.channels.iter().map(|it| it.span.clone()).collect(),
        MAX_CHANNELS,
        problems,
    );
    count("heaps", config.heaps.iter().map(|it| it.span.clone()).collect(), MAX_HEAPS, problems);
    names("VM", config.vms.iter().map(|vm| vm.name.as_ref()), problems);
    names("heap", config.heaps.iter().map(|heap| heap.name.as_ref()), problems);
    vmids(draft);
}

fn board(draft: &Draft<'_>) {
    let Some(board) = &draft.board else { return };
    let Some(facts) = &draft.facts else {
        let message = format!("this tool has no table of the board `{}`", board.value.name());
        return draft.problems.add(Problem::new(&board.span, message));
    };
    let Some(gic) = &draft.config.gic else { return };
    if !facts.gics.contains(&gic.value) {
        let message = format!("{} has no GICv{}", board.value.name(), gic.value);
        let help = format!("it has GICv{}; leave `gic` out", facts.gics[0]);
        draft.problems.add(Problem::new(&gic.span, message).help(help));
    }
}

/// Notes the first thing of a kind that is one too many.
fn count(what: &str, spans: Vec<Span>, most: usize, problems: &Problems) {
    if let Some(span) = spans.get(most) {
        let message = format!("{} {what} are more than {most}", spans.len());
        problems.add(Problem::new(span, message).label("one too many"));
    }
}

/// Notes names that EL2's log could not print, and those that are taken.
fn names<'a>(what: &str, all: impl Iterator<Item = Option<&'a At<&'a str>>>, problems: &Problems) {
    let mut earlier: Vec<&At<&str>> = Vec::new();
    for name in all.flatten() {
        let printable = name.value.bytes().all(|byte| byte.is_ascii_graphic());
        if name.value.is_empty() || name.value.len() > MAX_NAME || !printable {
            let message = format!("`{}` is no name of a {what}", name.value.escape_debug());
            let help = format!("a name has 1 to {MAX_NAME} letters, digits and signs, no spaces");
            problems.add(Problem::new(&name.span, message).help(help));
        }
        if let Some(other) = earlier.iter().find(|other| other.value == name.value) {
            let message = format!("the {what} `{}` is described twice", name.value);
            problems.add(Problem::new(&name.span, message).also(Some(&other.span), "first here"));
        }
        earlier.push(name);
    }
}

fn vmids(draft: &Draft<'_>) {
    let mut earlier: Vec<&At<u16>> = Vec::new();
    for vmid in draft.config.vms.iter().filter_map(|vm| vm.vmid.as_ref()) {
        let reserved = match vmid.value {
            0 => Some("VMID 0 means nobody"),
            MANAGER => Some("VMID 255 is the resource manager's own"),
            _ => None,
        };
        if let Some(reason) = reserved {
            let help = "take any other number from 1 to 65535";
            draft.problems.add(Problem::new(&vmid.span, reason).help(help));
        }
        if let Some(other) = earlier.iter().find(|other| other.value == vmid.value) {
            let message = format!("VMID {} is given twice", vmid.value);
            let problem = Problem::new(&vmid.span, message);
            draft.problems.add(problem.also(Some(&other.span), "first here"));
        }
        earlier.push(vmid);
    }
}
