//! Device trees, and room for them.

use crate::draft::{Blob, Draft};
use crate::map::{PAGE, pages, range};
use crate::report::Problem;
use crate::tree;

/// The largest tree that a kernel takes (Linux, Documentation/arch/arm64/booting.rst).
const LARGEST: usize = 2 << 20;
/// The longest command line of arm64 Linux, with its zero byte (COMMAND_LINE_SIZE).
const COMMAND_LINE: usize = 2048;

/// Makes the tree of each VM that wants one, and puts it as high as there is room.
pub(super) fn make(draft: &mut Draft<'_>) {
    for at in 0..draft.vms.len() {
        let said = draft.vms[at].said;
        command_line(draft, said);
        if !said.device_tree {
            continue;
        }
        let Some(bytes) = tree::make(draft, &draft.vms[at]) else { continue };
        let problems = draft.problems;
        if bytes.len() > LARGEST {
            let message =
                format!("the device tree of {} takes {} bytes", said.called(), bytes.len());
            problems.add(Problem::new(&said.span, message).label("at most 2 MiB"));
            continue;
        }
        let vm = &mut draft.vms[at];
        let Some(memory) = vm.memory.clone() else { continue };
        let size = bytes.len() as u64;
        let Some(start) = vm.contents.highest(memory, size.next_multiple_of(PAGE), PAGE) else {
            let message = format!("{} has no room for its device tree", said.called());
            let span = said.memory.as_ref().map_or(&said.span, |memory| &memory.span);
            problems.add(Problem::new(span, message).label(format!("{size} bytes more")));
            continue;
        };
        vm.contents.claim(pages(range(start, size)), "device tree", &said.span, problems);
        vm.tree = Some(Blob { at: start, bytes });
    }
}

fn command_line(draft: &Draft<'_>, said: &crate::config::Vm<'_>) {
    let Some(line) = &said.command_line else { return };
    let note = |message: &str| draft.problems.add(Problem::new(&line.span, message));
    if line.value.len() >= COMMAND_LINE {
        note("a command line has at most 2047 bytes");
    }
    if line.value.contains('\0') {
        note("a command line ends at a zero byte");
    }
    if !said.device_tree {
        note("a command line without a device tree: nothing would tell it to the VM");
    }
}
