//! Where each VM's memory lies, in its own addresses and in the machine's.

use package::{EMULATED, MEMORY_GRANULE, VM_MEMORY_BASE};
use rm::frame_pool::FrameRecord;
use rm::heap::words;

use crate::board::bytes;
use crate::draft::{Draft, IPA_END, Vm};
use crate::machine;
use crate::map::{PAGE, hex, meet, range, text};
use crate::report::{At, Problem, Problems};
use crate::size;

/// Enters what no VM may have: EL2 in the machine, and what EL2 emulates in each VM.
pub(super) fn keep(draft: &mut Draft<'_>) {
    let packed: u64 = draft.vms.iter().map(packed).sum();
    if let Some(facts) = &draft.facts {
        draft.machine = facts.map(packed);
    }
    for vm in &mut draft.vms {
        for (range, what) in machine::emulated(draft.gic, vm.cpus.len() as u64) {
            vm.space.keep(range, what);
        }
    }
}

/// About how much of the package is this VM's, its device tree included.
fn packed(vm: &Vm<'_>) -> u64 {
    let program = vm.program.as_ref().map_or(0, |program| program.bytes.len());
    let initrd = vm.initrd.as_ref().map_or(0, |initrd| initrd.bytes.len());
    (program + initrd) as u64 + 16 * PAGE
}

/// Gives each VM the addresses of its memory: first those that the manifest says.
pub(super) fn place(draft: &mut Draft<'_>) {
    let chosen = |vm: &Vm<'_>| vm.said.memory_at.is_none() && vm.said.is_direct();
    for later in [false, true] {
        for at in 0..draft.vms.len() {
            if chosen(&draft.vms[at]) == later {
                place_one(draft, at);
            }
        }
    }
}

fn place_one(draft: &mut Draft<'_>, at: usize) {
    let (said, problems) = (draft.vms[at].said, draft.problems);
    let Some(size) = &said.memory else { return };
    if size.value == 0 || !size.value.is_multiple_of(MEMORY_GRANULE) {
        let message = format!("{} is no multiple of 2 MiB", size::text(size.value));
        let near = size.value.saturating_add(MEMORY_GRANULE - 1) / MEMORY_GRANULE;
        let help = format!("the next one is \"{}M\"", near.max(1).saturating_mul(2));
        return problems.add(Problem::new(&size.span, message).help(help));
    }
    let start = match &said.memory_at {
        Some(said) => said.clone(),
        None if !said.is_direct() => size.with(VM_MEMORY_BASE),
        None => match choose(draft, at, size) {
            Some(start) => start,
            None => return,
        },
    };
    if !start.value.is_multiple_of(MEMORY_GRANULE) {
        let message = format!("memory cannot start at {}", hex(start.value));
        return problems.add(Problem::new(&start.span, message).help("take a multiple of 2 MiB"));
    }
    let memory = range(start.value, size.value);
    if size.value > IPA_END || memory.end > IPA_END {
        let message = format!("memory ({}) goes beyond {}", text(&memory), hex(IPA_END));
        return problems.add(Problem::new(&start.span, message).label("too far up, or too large"));
    }
    if meet(&memory, &EMULATED) {
        let message = format!(
            "memory ({}) lies where every VM has its interrupt controller and console ({})",
            text(&memory),
            text(&EMULATED)
        );
        return problems.add(Problem::new(&start.span, message));
    }
    let what = format!("memory of {}", said.called());
    if said.is_direct() && !in_machine(draft, &start, &memory, &what) {
        return;
    }
    let vm = &mut draft.vms[at];
    if vm.space.claim(memory.clone(), what, &start.span, problems) {
        vm.memory = Some(memory);
    }
}

/// Claims the machine's own memory for a VM that sees it as it is.
fn in_machine(
    draft: &mut Draft<'_>,
    start: &At<u64>,
    memory: &std::ops::Range<u64>,
    what: &str,
) -> bool {
    let Some(facts) = &draft.facts else { return true };
    if facts.bank(memory).is_none() {
        let banks: Vec<_> = facts.ram.iter().map(text).collect();
        let message =
            format!("{what} ({}) is `direct`, but the board has no RAM there", text(memory));
        let help = format!("RAM is at {}", banks.join(" and "));
        draft.problems.add(Problem::new(&start.span, message).help(help));
        return false;
    }
    draft.machine.claim(memory.clone(), what, &start.span, draft.problems)
}

/// The highest RAM that is free in the machine and in the VM.
fn choose(draft: &Draft<'_>, at: usize, size: &At<u64>) -> Option<At<u64>> {
    let facts = draft.facts.as_ref()?;
    let mut taken = draft.machine.clone();
    taken.keep(EMULATED, "");
    draft.vms[at].space.claims().iter().for_each(|claim| taken.keep(claim.range.clone(), ""));
    let free =
        |bank: &std::ops::Range<u64>| taken.highest(bank.clone(), size.value, MEMORY_GRANULE);
    // The first GiB or so, which every such board has.
    let found = facts.sure.iter().filter_map(free).next_back();
    if found.is_none() {
        let message = format!(
            "not every {} has {} of free RAM in one piece",
            draft.board.as_ref().map_or("board", |board| board.value.name()),
            size::text(size.value)
        );
        let help = "if yours has, say where: `memory_at`";
        draft.problems.add(Problem::new(&size.span, message).help(help));
    }
    found.map(|start| size.with(start))
}

/// What the resource manager keeps for frames, guaranteed and shared: as many as the limits together.
pub(crate) fn manager(frames: impl Iterator<Item = u64>) -> u64 {
    let record = size_of::<FrameRecord>() + size_of::<u32>();
    frames.fold(0, u64::saturating_add).saturating_mul(PAGE + record as u64)
}

/// What the resource manager keeps for a heap of so many bytes: which pages are taken.
pub(crate) fn marks(heap: u64) -> u64 {
    (words(heap / PAGE) * size_of::<u64>()) as u64
}

/// Whether all memory together fits the board's.
pub(super) fn check_ram(draft: &Draft<'_>) {
    let Some(facts) = &draft.facts else { return };
    let packed: u64 = draft.vms.iter().map(packed).sum();
    let frames = draft.vms.iter().map(|vm| u64::from(vm.said.quotas.value.limit.frames));
    let mut sum = facts.hypervisor(packed) + manager(frames);
    let vms = draft.config.vms.iter().filter_map(|vm| vm.memory.as_ref());
    let vms = vms.filter(|size| size.value <= IPA_END);
    let heaps = draft.config.heaps.iter().filter_map(|heap| heap.size.as_ref());
    let vms = vms.map(|size| (size, 0));
    let heaps = heaps.map(|size| (size, marks(size.value)));
    for (size, marks) in vms.chain(heaps) {
        sum = sum.saturating_add(size.value).saturating_add(marks);
        if sum > bytes(&facts.ram) {
            return too_much(draft.problems, size, sum, bytes(&facts.ram));
        }
    }
}

fn too_much(problems: &Problems, size: &At<u64>, sum: u64, ram: u64) {
    let (sum, ram) = (size::text(sum), size::text(ram));
    let message =
        format!("up to here VMs, heaps and EL2 take {sum}, but no such board has more than {ram}");
    problems.add(Problem::new(&size.span, message));
}
