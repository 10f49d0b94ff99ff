//! Heaps: memory of which VMs take buffers.

use package::{MEMORY_GRANULE, Name};

use crate::config::Heap;
use crate::draft::Draft;
use crate::map::PAGE;
use crate::report::{At, Problem};
use crate::size;

/// Checks sizes and VMs.
pub(super) fn check(draft: &mut Draft<'_>) {
    for said in &draft.config.heaps {
        let vms = said.vms.iter().filter_map(|name| find(draft, name));
        let vms = vms.fold(0, |all, vm| all | 1u32.checked_shl(vm as u32).unwrap_or(0));
        if vms == 0 && said.vms.is_empty() {
            let message = "a heap that no VM may use";
            draft.problems.add(Problem::new(&said.span, message).help("name VMs in `vms`"));
        }
        let Some(size) = &said.size else { continue };
        if size.value == 0 || !size.value.is_multiple_of(MEMORY_GRANULE) {
            let message = format!("{} is no multiple of 2 MiB", size::text(size.value));
            draft.problems.add(Problem::new(&size.span, message));
            continue;
        }
        let Some((guaranteed, limit)) = shares(draft, said, size) else { continue };
        // A name that does not fit has been noted.
        let Some(name) = said.name.as_ref().and_then(|name| short(name.value)) else { continue };
        draft.heaps.push(package::Heap { name, size: size.value, guaranteed, limit, vms });
    }
}

/// What each VM is sure of and may have. Notes what does not fit.
fn shares(draft: &Draft<'_>, said: &Heap<'_>, size: &At<u64>) -> Option<(u64, u64)> {
    let limit = said.limit.clone().unwrap_or_else(|| size.clone());
    let guaranteed = said.guaranteed.clone().unwrap_or_else(|| limit.with(0));
    let note = |at: &At<u64>, message: String| {
        draft.problems.add(Problem::new(&at.span, message));
    };
    let whole = [&guaranteed, &limit].into_iter().find(|it| !it.value.is_multiple_of(PAGE));
    let all = guaranteed.value.saturating_mul(said.vms.len() as u64);
    if let Some(it) = whole {
        note(it, format!("{} is no multiple of 4096", size::text(it.value)));
    } else if limit.value > size.value {
        note(&limit, format!("the heap has only {}", size::text(size.value)));
    } else if guaranteed.value > limit.value {
        let (sure, limit) = (size::text(guaranteed.value), size::text(limit.value));
        note(&guaranteed, format!("{sure} are guaranteed, but the limit is {limit}"));
    } else if all > size.value {
        let (all, has) = (size::text(all), size::text(size.value));
        note(&guaranteed, format!("its VMs together are guaranteed {all}, but the heap has {has}"));
    } else {
        return Some((guaranteed.value, limit.value));
    }
    None
}

/// The name as packages have it.
pub(crate) fn short(name: &str) -> Option<Name> {
    (name.len() <= size_of::<Name>()).then(|| Name::new(name))
}

/// The VM of that name; notes it if there is none.
pub(super) fn find(draft: &Draft<'_>, name: &At<&str>) -> Option<usize> {
    let names = || draft.config.vms.iter().map(|vm| vm.name.as_ref().map(|name| name.value));
    let found = names().position(|known| known == Some(name.value));
    if found.is_none() {
        let message = format!("no VM is called `{}`", name.value.escape_debug());
        let known: Vec<_> = names().flatten().collect();
        draft.problems.add(Problem::new(&name.span, message).suggest(name.value, &known));
    }
    found
}
