//! Which CPUs the vCPUs of a VM run on.

use package::MAX_VCPUS;

use crate::config;
use crate::draft::Draft;
use crate::report::{At, Problem, Problems};

/// Notes CPUs that do not exist and counts that contradict each other; works out where vCPUs run.
pub(super) fn check(draft: &mut Draft<'_>) {
    let on_board = draft.facts.as_ref().map(|facts| facts.cpus);
    for vm in &mut draft.vms {
        let said = vm.said;
        let cpus = match &said.cpus {
            Some(cpus) => listed(said, cpus, on_board, draft.problems),
            None => counted(said, on_board, draft.problems),
        };
        // Other checks go on as if it were one vCPU.
        vm.cpus = cpus.unwrap_or_else(|| vec![0]);
    }
}

/// `cpus = [0, 1]`.
fn listed(
    said: &config::Vm<'_>,
    cpus: &At<Vec<At<u64>>>,
    on_board: Option<u64>,
    problems: &Problems,
) -> Option<Vec<u8>> {
    let numbers = &cpus.value;
    let mut fine = count(numbers.len() as u64, &cpus.with(()), on_board, problems);
    if let Some(vcpus) = said.vcpus.as_ref().filter(|vcpus| vcpus.value != numbers.len() as u64) {
        let message = format!("{} vCPUs cannot run on {} CPUs", vcpus.value, numbers.len());
        let problem = Problem::new(&vcpus.span, message).also(Some(&cpus.span), "one CPU per vCPU");
        problems.add(problem.help("leave `vcpus` out: `cpus` says it all"));
        fine = false;
    }
    for (n, cpu) in numbers.iter().enumerate() {
        if let Some(count) = on_board.filter(|&count| cpu.value >= count) {
            let message = format!("the board has no CPU {}", cpu.value);
            problems
                .add(Problem::new(&cpu.span, message).help(format!("it has 0 to {}", count - 1)));
            fine = false;
        }
        if let Some(other) = numbers[..n].iter().find(|other| other.value == cpu.value) {
            let message = format!("two vCPUs of {} run on CPU {}", said.called(), cpu.value);
            problems.add(Problem::new(&cpu.span, message).also(Some(&other.span), "first here"));
            fine = false;
        }
    }
    let small = numbers.iter().map(|cpu| u8::try_from(cpu.value).ok());
    small.collect::<Option<_>>().filter(|_| fine)
}

/// `vcpus = 2`: on the first CPUs.
fn counted(said: &config::Vm<'_>, on_board: Option<u64>, problems: &Problems) -> Option<Vec<u8>> {
    let Some(vcpus) = &said.vcpus else { return Some(vec![0]) };
    count(vcpus.value, &vcpus.with(()), on_board, problems)
        .then(|| (0..vcpus.value as u8).collect())
}

/// Whether a VM can have so many vCPUs.
fn count(count: u64, at: &At<()>, on_board: Option<u64>, problems: &Problems) -> bool {
    let most = on_board.unwrap_or(u64::MAX).min(MAX_VCPUS as u64);
    let fine = (1..=most).contains(&count);
    if !fine {
        let message = format!("a VM cannot have {count} vCPUs");
        problems.add(Problem::new(&at.span, message).label(format!("1 to {most}")));
    }
    fine
}
