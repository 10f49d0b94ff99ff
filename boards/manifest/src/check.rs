//! The rules, each in the file of what it is about. Together they refuse all that EL2 would refuse.

mod channels;
mod devices;
mod heaps;
mod memory;
mod names;
mod programs;
mod quotas;
mod trees;
mod vcpus;

pub(crate) use heaps::short;
pub(crate) use memory::{manager, marks};

use crate::Sources;
use crate::draft::Draft;

/// Works the draft out and notes all that is wrong with it. Later steps use what earlier ones found.
pub(crate) fn all(draft: &mut Draft<'_>, sources: &dyn Sources) {
    names::check(draft);
    vcpus::check(draft);
    quotas::check(draft);
    programs::load(draft, sources);
    memory::keep(draft);
    devices::check(draft);
    memory::place(draft);
    programs::place(draft);
    heaps::check(draft);
    channels::place(draft);
    quotas::check_frames(draft);
    programs::place_initrds(draft);
    trees::make(draft);
    memory::check_ram(draft);
}
