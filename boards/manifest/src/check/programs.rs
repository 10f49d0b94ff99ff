//! What a VM starts with, and where it lies in the VM's memory.

use package::Start;

use crate::config::Origin;
use crate::draft::{Blob, Draft, Vm};
use crate::map::{PAGE, hex, pages, range};
use crate::program::{Place, Program};
use crate::report::{At, Problem, Problems};
use crate::{NoGuest, Sources};

/// Where raw bytes lie, counted from the start of memory, unless the manifest says so.
const RAW: u64 = 0x8_0000;
/// The largest file that is read.
const LARGEST: usize = 1 << 30;

/// Reads the files.
pub(super) fn load(draft: &mut Draft<'_>, sources: &dyn Sources) {
    let problems = draft.problems;
    for vm in &mut draft.vms {
        if let Some((origin, name)) = &vm.said.program {
            let file = match origin {
                Origin::Guest => guest(name, sources, problems),
                Origin::Program | Origin::Kernel => file(name, sources, problems),
            };
            vm.program = file.and_then(|bytes| program(*origin, name, bytes, problems));
        }
        if let Some(path) = &vm.said.initrd
            && let Some(bytes) = file(path, sources, problems)
        {
            if bytes.is_empty() {
                problems.add(Problem::new(&path.span, "the file is empty"));
            } else {
                vm.initrd = Some(Blob { at: 0, bytes });
            }
        }
    }
}

fn file(path: &At<&str>, sources: &dyn Sources, problems: &Problems) -> Option<Vec<u8>> {
    match sources.file(path.value) {
        Ok(bytes) if bytes.len() <= LARGEST => return Some(bytes),
        Ok(_) => problems.add(Problem::new(&path.span, "the file is larger than 1 GiB")),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.value.escape_debug());
            let help = "paths count from the folder of the manifest";
            problems.add(Problem::new(&path.span, message).help(help));
        }
    }
    None
}

fn guest(name: &At<&str>, sources: &dyn Sources, problems: &Problems) -> Option<Vec<u8>> {
    match sources.guest(name.value) {
        Ok(bytes) => Some(bytes),
        Err(NoGuest::Failed(reason)) => {
            let message = format!("no guest program: {reason}");
            let help = "give the path of a file with `program` or `kernel`";
            problems.add(Problem::new(&name.span, message).help(help));
            None
        }
        Err(NoGuest::Unknown(known)) => {
            let message = format!("no guest program is called `{}`", name.value.escape_debug());
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            problems.add(Problem::new(&name.span, message).suggest(name.value, &known));
            None
        }
    }
}

fn program(
    origin: Origin,
    name: &At<&str>,
    bytes: Vec<u8>,
    problems: &Problems,
) -> Option<Program> {
    let told = |message: String, help: Option<&str>| {
        let problem = Problem::new(&name.span, message);
        problems.add(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
        None
    };
    match Program::read(bytes) {
        Err(error) => told(format!("{}: {error}", name.value.escape_debug()), error.advice),
        Ok(program) if origin == Origin::Kernel && !program.is_kernel() => {
            let message = format!("{} is no arm64 Linux image", name.value.escape_debug());
            told(
                message,
                Some("`kernel` takes arch/arm64/boot/Image; `program` takes ELF or raw bytes"),
            )
        }
        Ok(program) => Some(program),
    }
}

/// Finds out where each program lies and starts.
pub(super) fn place(draft: &mut Draft<'_>) {
    let problems = draft.problems;
    for vm in &mut draft.vms {
        let Some(program) = &vm.program else { continue };
        let Some(memory) = vm.memory.clone() else { continue };
        let said = vm.said;
        let (load, entry) = match program.place {
            Place::Fixed { load, entry } => {
                refuse(said.load.as_ref(), "load", "the ELF file says where it lies", problems);
                refuse(said.entry.as_ref(), "entry", "the ELF file says where it starts", problems);
                (load, entry)
            }
            Place::Offset(offset) => {
                refuse(said.load.as_ref(), "load", "the kernel says where it lies", problems);
                refuse(said.entry.as_ref(), "entry", "a kernel starts at its first byte", problems);
                (memory.start + offset, memory.start + offset)
            }
            Place::Anywhere => {
                let load = said.load.as_ref().map_or(memory.start + RAW, |load| load.value);
                (load, said.entry.as_ref().map_or(load, |entry| entry.value))
            }
        };
        (vm.load, vm.entry) = (load, entry);
        let Some((_, name)) = &said.program else { continue };
        let loaded = range(load, program.room);
        if loaded.start < memory.start || loaded.end > memory.end {
            let message = format!(
                "the program ({}) does not fit the memory of {} ({})",
                crate::map::text(&loaded),
                said.called(),
                crate::map::text(&memory)
            );
            let span = said.load.as_ref().map_or(&name.span, |load| &load.span);
            let problem = Problem::new(span, message);
            let memory = said.memory.as_ref().map(|memory| &memory.span);
            problems.add(problem.also(memory, "how much memory there is"));
            continue;
        }
        if entry.wrapping_sub(load) >= program.bytes.len() as u64 || !entry.is_multiple_of(4) {
            let message =
                format!("the entry point {} is no instruction of the program", hex(entry));
            let span = said.entry.as_ref().map_or(&name.span, |entry| &entry.span);
            problems.add(Problem::new(span, message).help("a multiple of 4 inside of its bytes"));
        }
        vm.contents.claim(pages(loaded), "program", &name.span, problems);
    }
}

fn refuse(said: Option<&At<u64>>, key: &str, why: &str, problems: &Problems) {
    if let Some(said) = said {
        let problem = Problem::new(&said.span, format!("`{key}` has no meaning here: {why}"));
        problems.add(problem.help(format!("leave `{key}` out")));
    }
}

/// Puts each initial RAM disk as high as there is room.
pub(super) fn place_initrds(draft: &mut Draft<'_>) {
    let problems = draft.problems;
    for vm in &mut draft.vms {
        let Some(path) = &vm.said.initrd else { continue };
        if !vm.said.device_tree {
            let message = "an initrd without a device tree: nothing would tell the VM where it is";
            problems.add(Problem::new(&path.span, message).help("leave `device_tree` out"));
        }
        let (Some(memory), Some(initrd)) = (vm.memory.clone(), &mut vm.initrd) else { continue };
        let size = initrd.bytes.len() as u64;
        match vm.contents.highest(memory, size.next_multiple_of(PAGE), PAGE) {
            Some(at) => {
                initrd.at = at;
                vm.contents.claim(pages(range(at, size)), "initrd", &path.span, problems);
            }
            None => {
                let message =
                    format!("{} has no room for an initrd of {size} bytes", vm.said.called());
                let memory = vm.said.memory.as_ref().map(|memory| &memory.span);
                problems.add(Problem::new(&path.span, message).also(memory, "make this larger"));
            }
        }
    }
}

impl Vm<'_> {
    /// Which of its vCPUs start by themselves.
    pub(crate) fn start(&self) -> Start {
        let kernel = self.program.as_ref().is_some_and(Program::is_kernel);
        self.said.start.unwrap_or(if kernel { Start::First } else { Start::All })
    }
}
